"""Estimates as rows of `evaluations`.

The steps of a study that end in figures: each is computed once for what it depends on.

A step's key is a hash of exactly what its figures rest on, so that a study with another seed, or
another prompt set, computes again what depends on that and finds the rest. A step is written as
soon as it is done: a study that was killed goes on from there. What is fitted (axes, alignments,
projections) needs no entry here, as those rows have content keys of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool

from axes.analysis.registry import Axis
from axes.analysis.stats.auroc import Estimate
from axes.analysis.study.definition import Member
from axes.warehouse.connection import Connection, rows
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key, rows_table, write_rows


def write_figures(
    root: Path,
    run: Run,
    study_id: str,
    figures: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Any],
) -> None:
    """All figures of one study (or evaluation) as one file: they are there whole or not at all."""
    common = {
        "study_id": study_id,
        "parameters": json.dumps(parameters, sort_keys=True),
        "run_id": run.run_id,
    }
    table = rows_table("evaluations", [{**row, **common} for row in figures])
    write_rows(root, "evaluations", table, name=study_id)
    run.rows += len(figures)


def figure_rows(
    judged: Mapping[str, Mapping[str, Estimate]],
    *,
    axes: Mapping[str, Axis] = MappingProxyType({}),
    **where: Any,
) -> list[dict[str, Any]]:
    """A row for every metric of every scorer; `where` as for `figure_row`, one for all."""
    return [
        figure_row(scorer, metric, estimate, axis=axes.get(scorer), **where)
        for scorer, figures in judged.items()
        for metric, estimate in figures.items()
    ]


def figure_row(
    scorer: str,
    metric: str,
    estimate: Estimate,
    *,
    member: Member | None = None,
    prompt_set: str | None = None,
    component: int | None = None,
    axis: Axis | None = None,
    labels: Bool[np.ndarray, " row"] | None = None,
    is_in_sample: bool | None = None,
) -> dict[str, Any]:
    """One figure with what it is of; the study, its parameters and its run come with writing."""
    counts = {}
    if labels is not None:
        positive_count = int(labels.sum())
        counts = {
            "positive_count": positive_count,
            "negative_count": len(labels) - positive_count,
        }
    return {
        "model": member.name if member else None,
        "model_id": member.space.model_id if member else None,
        "layer": member.space.layer if member else None,
        "prompt_set": prompt_set,
        "scorer": scorer,
        "metric": metric,
        "component": component,
        "axis_id": axis.axis_id if axis else None,
        "is_in_sample": is_in_sample,
        **counts,
        **asdict(estimate),
    }


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
