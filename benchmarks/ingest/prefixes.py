"""A system prompt of 100 tokens before every prompt: run once, against run with each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from axes.warehouse.connection import connect, query, vectors
from benchmarks.ingest.workload import Workload, workload
from benchmarks.run import Figure, alternate, median_figure, ratios

MODEL = "smollm2-135m"
PROMPT_COUNT = 200
SYSTEM_TOKENS = 100
ROUNDS = 5
GOAL = 0.6
TOLERANCE = 1e-4

_SYSTEM = (
    "You are a careful assistant who answers questions about everyday life. Read the question "
    "twice, say what you know, and say plainly what you do not know. Prefer short sentences and "
    "common words. Where a number matters, give it with its unit and say how sure you are. "
)


def measure() -> Iterator[Figure]:
    """Time with the prefix shared over time without, and how far apart the vectors are."""
    with workload(MODEL, PROMPT_COUNT) as work:
        selection = {"template": "chat", "system": _system_prompt(work)}
        difference = _difference(work, selection)
        shared, whole = alternate(
            ROUNDS,
            lambda: work.job_seconds(**selection),
            lambda: work.job_seconds(**selection, shares_prefix=False),
        )
    conditions = f"{MODEL}, {PROMPT_COUNT} prompts, {SYSTEM_TOKENS} tokens shared"
    times = ratios(shared, whole)
    yield median_figure("shared prefix / recomputed", times, GOAL, "lower", conditions)
    yield Figure(
        "shared prefix: largest difference over norm",
        difference,
        TOLERANCE,
        "lower",
        conditions=conditions,
    )


def _system_prompt(work: Workload) -> str:
    """So many tokens of text, by the model's own tokenizer."""
    tokenizer = work.loaded.tokenizer
    ids = tokenizer(_SYSTEM * 4, add_special_tokens=False).input_ids
    return tokenizer.decode(ids[:SYSTEM_TOKENS])


def _difference(work: Workload, selection: dict[str, Any]) -> float:
    """The largest distance between the two ways' vectors of one prompt and layer, over the norm."""
    shared, whole = (
        _stored_vectors(work, selection, shares_prefix) for shares_prefix in (True, False)
    )
    distances = np.linalg.norm(shared - whole, axis=1) / np.linalg.norm(whole, axis=1)
    return float(distances.max())


def _stored_vectors(work: Workload, selection: dict[str, Any], shares_prefix: bool) -> np.ndarray:
    with work.fresh_root() as root:
        work.run_job(root, **selection, shares_prefix=shares_prefix)
        found = query(connect(root), "select vector from activations order by prompt_id, layer")
    return vectors(found["vector"])
