"""What ingest costs over the bare model: the whole job against forward passes and nothing else.

The floor is the model's blocks over the same length-sorted batches, with no hook, no tokenising and
no writing. Beside it the loop that people write: input order, batches of 32, padded by the
tokenizer, `output_hidden_states=True`. Rounds alternate; the figure is the median of their ratios.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.run import Figure
from ingest.activations import ingest_activations
from ingest.batching import DEFAULT_TOKEN_BUDGET, pad, plan_batches
from ingest.fetch import fetch
from ingest.models import LoadedModel, identify, load, resolve
from ingest.prompt_sources import ready_sets
from ingest.prompts import import_prompts, read_prompts
from ingest.recording import run_backbone
from ingest.templates import encode, pad_id

MODEL = "smollm2-135m"
ROUNDS = 5
_NAIVE_BATCH = 32


def measure() -> list[Figure]:
    """Ratios over `demo_alignment`, all layers."""
    spec = resolve(MODEL)
    folder = fetch(spec)
    loaded = load(spec, folder, identify(spec, folder, "float32"), "cpu")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "lake"
        import_prompts(root, "demo_alignment", ready_sets()["demo_alignment"])
        texts = [prompt.text for prompt in read_prompts(root, {"demo_alignment": None})]
        over_floor, over_naive = [], []
        for turn in range(ROUNDS):
            floor = _seconds(lambda: _forward(loaded, texts))
            naive = _seconds(lambda: _hidden_states_loop(loaded, texts))
            job = _job_seconds(Path(name) / f"lake{turn}")
            over_floor.append(job / floor)
            over_naive.append(naive / job)
    return [
        Figure("ingest job / bare forward passes", statistics.median(over_floor), 1.05, "lower"),
        Figure("hidden-states loop / ingest job", statistics.median(over_naive), 2.0, "higher"),
    ]


def _forward(loaded: LoadedModel, texts: list[str]) -> None:
    rows = encode(loaded.tokenizer, texts, "raw", MODEL)
    for batch in plan_batches([len(row) for row in rows], DEFAULT_TOKEN_BUDGET):
        tokens, mask = pad([rows[index] for index in batch], pad_id(loaded.tokenizer))
        run_backbone(loaded.model, tokens, mask)


@torch.inference_mode()
def _hidden_states_loop(loaded: LoadedModel, texts: list[str]) -> None:
    loaded.tokenizer.pad_token = loaded.tokenizer.pad_token or loaded.tokenizer.eos_token
    for start in range(0, len(texts), _NAIVE_BATCH):
        batch = loaded.tokenizer(
            texts[start : start + _NAIVE_BATCH], return_tensors="pt", padding=True
        )
        states = loaded.model(**batch, output_hidden_states=True).hidden_states
        torch.stack(states[1:])[:, :, -5:].mean(2).numpy()


def _job_seconds(root: Path) -> float:
    """The job's own time, less the loading of the weights, which the floor does not pay either."""
    import_prompts(root, "demo_alignment", ready_sets()["demo_alignment"])
    spec = resolve(MODEL)
    folder = fetch(spec)
    loading = _seconds(lambda: load(spec, folder, identify(spec, folder, "float32"), "cpu"))
    job = _seconds(lambda: ingest_activations(root, spec, {"demo_alignment": None}, device="cpu"))
    return job - loading


def _seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
