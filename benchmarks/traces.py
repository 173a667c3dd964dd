"""What recording costs while a model generates: the whole job against plain batched generation.

The floor is transformers' `generate` over the same batches, greedy, already tokenised and padded:
the same prompts give the same tokens. The job reads prompts, tokenises, generates, records every
token's distribution with vectors or projections, and writes and commits.
transformers' own continuous batching, which jobs do not use, is timed beside them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig

from axes.ingest.forward.templates import pad_id
from axes.ingest.generation.generate import end_ids
from axes.ingest.generation.traces import ingest_traces
from axes.ingest.requests import TraceRequest
from axes.warehouse.connection import connect, rows
from benchmarks.ingest.workload import SET, Workload, workload
from benchmarks.run import Figure, alternate, interval_figure, ratios, seconds
from tests.rows import put

MODEL = "smollm2-135m"
PROMPT_COUNT = int(os.environ.get("AXES_BENCH_TRACES") or 32)
NEW_TOKENS = 64
BATCH_SIZE = 32
# In which completions end at different lengths.
TEMPLATE = "chat"
ROUNDS = 12
GOAL = 1.03
LAYERS = (12, 18, 23)
AXES_AT_EACH = 2
# Tokens of a block of the cache of continuous batching.
_BLOCK = 32


def measure() -> Iterator[Figure]:
    """The jobs that keep vectors or projections, and continuous batching, over plain generation."""
    with workload(MODEL, PROMPT_COUNT) as work:
        batches = work.batches(BATCH_SIZE, TEMPLATE)
        axes = _put_axes(work)
        _require_same_tokens(work, batches)
        floor, vectors, projections, continuous = alternate(
            ROUNDS,
            lambda: seconds(lambda: _generate(work, batches)),
            lambda: _job_seconds(work, layers=LAYERS),
            lambda: _job_seconds(work, axes=axes),
            lambda: seconds(lambda: _generate_continuously(work, batches)),
        )
    conditions = (
        f"{MODEL}, {PROMPT_COUNT} prompts in its chat template, up to {NEW_TOKENS} tokens, "
        f"batches of {BATCH_SIZE}, {torch.get_num_threads()} threads"
    )
    kept = {
        f"vectors of {len(LAYERS)} layers": vectors,
        f"projections on {len(axes)} axes": projections,
    }
    for name, times in kept.items():
        name = f"traces with {name} / plain generate"
        yield interval_figure(name, ratios(times, floor), GOAL, "lower", conditions)
    name = "transformers' continuous batching / plain generate"
    yield interval_figure(name, ratios(continuous, floor), None, "lower", conditions)


def _generate(work: Workload, batches: list[tuple[Tensor, Tensor]]) -> list[list[int]]:
    """The tokens of each row, from the first that is generated, padding behind an end included."""
    model: Any = work.loaded.model
    generated = []
    for tokens, mask in batches:
        with torch.inference_mode():
            found = model.generate(
                tokens, attention_mask=mask.long(), generation_config=_greedy(work)
            )
        generated += found[:, tokens.shape[1] :].tolist()
    return generated


def _generate_continuously(work: Workload, batches: list[tuple[Tensor, Tensor]]) -> list[list[int]]:
    """The same rows in one call, in which each leaves when it ends."""
    model: Any = work.loaded.model
    prompts = [ids[real].tolist() for batch in batches for ids, real in zip(*batch, strict=True)]
    # Room for all rows; by itself the cache takes most of the machine's memory.
    blocks = sum(-(-(len(ids) + NEW_TOKENS) // _BLOCK) for ids in prompts)
    cache = ContinuousBatchingConfig(page_size=_BLOCK, num_blocks=blocks)
    found = model.generate_batch(
        prompts, generation_config=_greedy(work), continuous_batching_config=cache
    )
    return [output.generated_tokens for output in found.values()]


def _greedy(work: Workload) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=end_ids(work.loaded),
        pad_token_id=pad_id(work.loaded.tokenizer),
    )


def _put_axes(work: Workload) -> list[str]:
    """Random axes in the model's space, two at each layer; returns their ids."""
    random = np.random.default_rng(0)
    space = {"space_model": work.name, "space_model_id": work.loaded.identity.model_id}
    described = []
    for layer in LAYERS:
        for number in range(AXES_AT_EACH):
            vector = random.normal(size=work.loaded.d_model)
            vector /= np.linalg.norm(vector)
            name = {"axis_id": f"random-{layer}-{number}", "name": f"random/{layer}/{number}"}
            place = {"layer": layer, "site": "resid_post"}
            described.append({**name, **space, **place, "vector": vector.tolist()})
    put(work.lake, "axes", *described)
    return [row["axis_id"] for row in described]


def _job_seconds(work: Workload, **options: Any) -> float:
    with work.fresh_root() as root:
        return seconds(lambda: _run_job(work, root, **options))


def _run_job(work: Workload, root: Path, **options: Any) -> None:
    with work.preloaded():
        ingest_traces(
            root,
            work.loaded.spec,
            TraceRequest(
                prompt_set=SET,
                template=TEMPLATE,
                device="cpu",
                batch_size=BATCH_SIZE,
                max_new_tokens=NEW_TOKENS,
                **options,
            ),
        )


def _require_same_tokens(work: Workload, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Both generate the same, token for token; this is also what warms them up."""
    floor = _generate(work, batches)
    with work.fresh_root() as root:
        _run_job(work, root, layers=LAYERS[:1])
        found = rows(
            connect(root),
            "select list(token_id order by step) as ids from generation_tokens "
            "group by generation_id",
        )
    ends = set(end_ids(work.loaded))
    whole = [_up_to_end(ids, ends) for ids in floor]
    if sorted(whole) != sorted(row["ids"] for row in found):
        raise ValueError("the job and the floor do not generate the same tokens")


def _up_to_end(ids: list[int], ends: set[int]) -> list[int]:
    ended = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    return ids[: ended + 1]
