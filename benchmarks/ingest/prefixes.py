"""Prompts that begin alike: what they share is run once, against run with each.

A system prompt of 100 tokens before every prompt, and 8 families of prompts that have 100 tokens of
examples in common.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from axes.ingest.prompt_sources import PromptSource
from axes.warehouse.connection import connect, query, vectors
from benchmarks.ingest.workload import Workload, workload
from benchmarks.run import Figure, alternate, median_figure, ratios

MODEL = "smollm2-135m"
PROMPT_COUNT = 200
SHARED_TOKENS = 100
FAMILIES = 8
ROUNDS = 5
GOAL = 0.6
FAMILIES_GOAL = 0.5
TOLERANCE = 1e-4

_SYSTEM = (
    "You are a careful assistant who answers questions about everyday life. Read the question "
    "twice, say what you know, and say plainly what you do not know. Prefer short sentences and "
    "common words. Where a number matters, give it with its unit and say how sure you are. "
)


def measure(model: str = MODEL) -> Iterator[Figure]:
    """Time with prefixes shared over time without, and how far apart the vectors are."""
    with workload(model, PROMPT_COUNT) as work:
        selection = {"template": "chat", "system": _shared_text(work, _SYSTEM)}
        yield from _compared(work, "one prefix", GOAL, **selection)
        families = [_shared_text(work, f"Set {at}. {_SYSTEM}") for at in range(FAMILIES)]
        texts = [f"{families[at % FAMILIES]}{text}" for at, text in enumerate(work.texts())]
    with tempfile.TemporaryDirectory() as folder:
        pl.DataFrame({"text": texts}).write_parquet(path := Path(folder) / "families.parquet")
        with workload(model, PROMPT_COUNT, source=PromptSource(str(path))) as work:
            yield from _compared(work, f"{FAMILIES} prefixes", FAMILIES_GOAL)


def _compared(work: Workload, what: str, goal: float, **selection: Any) -> Iterator[Figure]:
    conditions = f"{work.name}, {PROMPT_COUNT} prompts, {SHARED_TOKENS} tokens shared"
    (first, count), (second, every) = (
        _stored_vectors(work, selection, shares_prefix) for shares_prefix in (True, False)
    )
    difference = np.linalg.norm(first - second, axis=1) / np.linalg.norm(second, axis=1)
    shared, whole = alternate(
        ROUNDS,
        lambda: work.job_seconds(**selection),
        lambda: work.job_seconds(**selection, shares_prefix=False),
    )
    times = ratios(shared, whole)
    yield median_figure(f"{what} shared / recomputed", times, goal, "lower", conditions)
    for name, value, limit in (
        ("tokens run, shared / recomputed", count / every, goal),
        ("largest difference over norm", float(difference.max()), TOLERANCE),
    ):
        yield Figure(f"{what}: {name}", value, limit, "lower", conditions=conditions)


def _shared_text(work: Workload, text: str) -> str:
    """So many tokens of text, by the model's own tokenizer."""
    tokenizer = work.loaded.tokenizer
    ids = tokenizer(text * 4, add_special_tokens=False).input_ids
    return tokenizer.decode(ids[:SHARED_TOKENS])


def _stored_vectors(
    work: Workload, selection: dict[str, Any], shares_prefix: bool
) -> tuple[np.ndarray, int]:
    """The vectors of a job, and the tokens that it ran."""
    with work.fresh_root() as root:
        tokens = work.run_job(root, **selection, shares_prefix=shares_prefix).tokens
        found = query(connect(root), "select vector from activations order by prompt_id, layer")
    return vectors(found["vector"]), tokens
