"""Ingest on a GPU: the whole job against the bare model on the same card, in bfloat16.

The weights are random, in the shape of Qwen2.5 0.5B: they are as fast as trained ones. Prompts are
tokenised by bytes. Without a CUDA device nothing is measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from axes.warehouse.render import echo
from benchmarks.ingest.floor import over_floor
from benchmarks.ingest.workload import workload
from benchmarks.run import Figure, interval_figure
from tests.tiny_models import save_tiny

SHAPE = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
PROMPT_COUNT = 2000
TOKEN_BUDGET = 32_768
# 0.95 of the throughput.
GOAL = 1 / 0.95


def measure(device: str = "cuda", shape: Mapping[str, int] = SHAPE) -> Iterator[Figure]:
    """Job over bare forward passes, all layers."""
    if device == "cuda" and not torch.cuda.is_available():
        echo("not measured: no CUDA device")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = save_tiny(Path(name) / "qwen2-random", "qwen2", **shape)
        with workload(str(folder), PROMPT_COUNT, device=device, dtype="bfloat16") as work:
            rounds, _ = over_floor(work, TOKEN_BUDGET)
    card = torch.cuda.get_device_name() if device == "cuda" else device
    conditions = f"{card}, {PROMPT_COUNT} prompts, batches of {TOKEN_BUDGET} tokens"
    title = "ingest job / bare forward passes, bfloat16"
    yield interval_figure(title, rounds, GOAL, "lower", conditions)
