"""Wall time of `axes ingest activations` for one prompt, and where its rows are there already.

Both are processes of their own on a cached model, beside one that only imports torch and
transformers. Of `axes sql "select 1"` on that warehouse it is processor time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from axes.ingest.models.download import fetch
from axes.ingest.models.registry import resolve
from benchmarks.run import Figure, alternate, median_figure, python, ratios, seconds

MODEL = "smollm2-135m"
SET = "demo_safety"
ROUNDS = 5
FIRST_ROW_GOAL = 3.0
NOTHING_TO_DO_GOAL = 1.0
SQL_GOAL = 0.3


def measure() -> Iterator[Figure]:
    """Seconds of both, and how many times the bare imports that is."""
    fetch(resolve(MODEL))
    with tempfile.TemporaryDirectory() as name:
        roots = iter(Path(name) / f"lake{number}" for number in range(ROUNDS))
        there = Path(name) / "there"
        _ingest(there, 100)
        imports, sql, first, again = alternate(
            ROUNDS,
            lambda: seconds(lambda: python("-c", "import torch, transformers")),
            lambda: _processor_seconds("sql", "select 1", "--root", there),
            lambda: seconds(lambda: _ingest(next(roots), 1)),
            lambda: seconds(lambda: _ingest(there, 100)),
        )
    yield median_figure("axes sql, seconds of processor time", sql, SQL_GOAL, "lower")
    for name, spent, goal in (
        ("cached model to first row", first, FIRST_ROW_GOAL),
        ("ingest of rows that are there", again, NOTHING_TO_DO_GOAL),
    ):
        yield median_figure(f"{name}, seconds", spent, goal, "lower", MODEL)
        over_imports = ratios(spent, imports)
        yield median_figure(
            f"{name} / import torch, transformers", over_imports, None, "lower", MODEL
        )


def _ingest(root: Path, limit: int) -> None:
    command = ["ingest", "activations", MODEL, "--prompts", SET, "--limit", limit]
    _command(*command, "--root", root)


def _command(*words: object) -> None:
    python("-c", "from axes.cli.main import main; main()", *words)


def _processor_seconds(*words: object) -> float:
    """Of a command, by the kernel's account of child processes."""
    before = os.times()
    _command(*words)
    after = os.times()
    return (
        after.children_user - before.children_user + after.children_system - before.children_system
    )
