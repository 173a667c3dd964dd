"""The steps of a study that end in figures: each is computed once for what it depends on.

A step's key is a hash of exactly what its figures rest on, so that a study with another seed, or
another prompt set, computes again what depends on that and finds the rest. A step is written as
soon as it is done: a study that was killed goes on from there. What is fitted (axes, alignments,
projections) needs no entry here, as those rows have content keys of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from axes.analysis.study.definition import Member
from axes.warehouse.connection import Connection, rows
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key, rows_table, write_rows

# Raised whenever the figures of unchanged inputs would change.
STEP_VERSION = 2

Figures = list[dict[str, Any]]


class Steps:
    """The steps that a warehouse has figures of; what is not there is computed and written."""

    def __init__(self, root: Path, connection: Connection, run: Run) -> None:
        self._root, self._connection, self._run = root, connection, run

    def figures(
        self,
        step: str,
        inputs: Sequence[Any],
        compute: Callable[[], Figures],
        *,
        member: Member | None = None,
        prompt_set: str | None = None,
    ) -> Figures:
        """The rows that `compute` gives; `inputs` is all that they depend on, as JSON values."""
        step_id = content_key(STEP_VERSION, step, list(inputs))
        found = rows(self._connection, "select figures from steps where step_id = ?", [step_id])
        if found:
            return json.loads(found[0]["figures"])
        figures = compute()
        row = {
            "step_id": step_id,
            "step": step,
            "model": member.name if member else None,
            "model_id": member.space.model_id if member else None,
            "prompt_set": prompt_set,
            "inputs": json.dumps(list(inputs)),
            "figures": json.dumps(figures),
            "run_id": self._run.run_id,
        }
        write_rows(self._root, "steps", rows_table("steps", [row]), name=step_id)
        self._run.rows += 1
        return figures
