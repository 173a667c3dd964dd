"""Rows of `evaluations`: estimates with the model, axis and prompts that they describe.

A step of a study has a key, a hash of exactly what its rows rest on: a study with another seed, or
another prompt set, computes again what depends on that and reads the rest. A step is written as
soon as it is done, so a study that was killed goes on from there. What is fitted (axes, alignments,
projections) has content keys of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from axes.analysis.registry import Axis
from axes.analysis.stats.auroc import Estimate, Labels
from axes.analysis.stats.multiple_testing import adjusted
from axes.analysis.study.fit import Member
from axes.warehouse.connection import Connection, rows
from axes.warehouse.handle import Warehouse
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key, rows_table

# Raised whenever the rows of unchanged inputs would change.
STEP_VERSION = 8


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A row of the table `evaluations`; the study, its definition and its run come with writing."""

    scorer: str
    metric: str
    estimate: float
    lower: float | None = None
    upper: float | None = None
    p_value: float | None = None
    p_value_adjusted: float | None = None
    model: str | None = None
    model_id: str | None = None
    layer: int | None = None
    prompt_set: str | None = None
    fitted_on: str | None = None
    judged_on: str | None = None
    component: int | None = None
    axis_id: str | None = None
    positive_count: int | None = None
    negative_count: int | None = None
    is_in_sample: bool | None = None

    @classmethod
    def of(
        cls,
        scorer: str,
        metric: str,
        estimate: Estimate,
        *,
        member: Member | None = None,
        axis: Axis | None = None,
        labels: Labels | None = None,
        **columns: Any,
    ) -> Evaluation:
        """One estimate; a model, an axis and labels fill the columns that describe them."""
        if member is not None:
            space = member.space
            columns |= {"model": space.model, "model_id": space.model_id, "layer": space.layer}
        if axis is not None:
            columns["axis_id"] = axis.axis_id
        if labels is not None:
            columns["positive_count"] = int(labels.sum())
            columns["negative_count"] = int((~labels).sum())
        return cls(scorer=scorer, metric=metric, **vars(estimate), **columns)

    @classmethod
    def of_scorers(
        cls,
        metrics: Mapping[str, Mapping[str, Estimate]],
        *,
        axes: Mapping[str, Axis] = MappingProxyType({}),
        **columns: Any,
    ) -> list[Evaluation]:
        """A row for every metric of every scorer; `columns` as for `of`, the same for all."""
        return [
            cls.of(scorer, metric, estimate, axis=axes.get(scorer), **columns)
            for scorer, estimates in metrics.items()
            for metric, estimate in estimates.items()
        ]


def corrected(
    rows: Sequence[Evaluation], by: Sequence[str] = ("metric",), correction: str = "holm"
) -> list[Evaluation]:
    """The rows, the p-values of those that are alike in the columns `by` adjusted together."""
    keys = [tuple(getattr(row, column) for column in by) for row in rows]
    values = np.array([row.p_value for row in rows], dtype=np.float64)
    for key in set(keys):
        of_key = [other == key for other in keys]
        values[of_key] = adjusted(values[of_key], correction)
    return [
        row if np.isnan(value) else replace(row, p_value_adjusted=float(value))
        for row, value in zip(rows, values, strict=True)
    ]


def evaluate_once(
    warehouse: Warehouse,
    command: str,
    study_id: str,
    definition: Mapping[str, Any],
    compute: Callable[[Run], Iterable[Evaluation]],
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Compute and write the rows of a study (or an evaluation) unless they are stored.

    They are one file: stored all or not at all. `parameters` go into the run with the definition.
    """
    if warehouse.has("evaluations", study_id):
        return
    with warehouse.run(command, {**parameters, **definition}, seed=definition["seed"]) as run:
        rows = list(compute(run))
        write_evaluations(warehouse, run, study_id, definition, rows, name=study_id)


def stored_parameters(connection: Connection, study_id: str) -> dict[str, Any]:
    """The definition of a study (or an evaluation) that has been run, as its rows state it."""
    sql = "select parameters from evaluations where study_id = ? limit 1"
    return json.loads(rows(connection, sql, [study_id])[0]["parameters"])


def write_evaluations(
    warehouse: Warehouse,
    run: Run,
    study_id: str,
    definition: Mapping[str, Any],
    rows: Sequence[Evaluation],
    *,
    name: str,
) -> None:
    """Write rows of a study as the file `name`."""
    common = {
        "study_id": study_id,
        "parameters": json.dumps(definition, sort_keys=True),
        "run_id": run.run_id,
    }
    table = rows_table("evaluations", [{**vars(row), **common} for row in rows])
    warehouse.write("evaluations", table, name=name)
    run.rows += len(rows)


class Steps:
    """The steps of a study that a warehouse stores; one that is missing is computed and written."""

    def __init__(self, warehouse: Warehouse, run: Run) -> None:
        self.warehouse, self._run = warehouse, run

    def compute(
        self,
        step: str,
        inputs: Sequence[Any],
        compute: Callable[[], list[Evaluation]],
        *,
        member: Member | None = None,
        prompt_set: str | None = None,
    ) -> list[Evaluation]:
        """The rows that `compute` gives; `inputs` is all that they depend on, as JSON values."""
        step_id = content_key(STEP_VERSION, step, list(inputs))
        if self.warehouse.has("steps", step_id):
            sql = "select figures from steps where step_id = ?"
            return [
                Evaluation(**row) for row in json.loads(self.warehouse.column(sql, [step_id])[0])
            ]
        evaluations = compute()
        row = {
            "step_id": step_id,
            "step": step,
            "model": member.name if member else None,
            "model_id": member.space.model_id if member else None,
            "prompt_set": prompt_set,
            "inputs": json.dumps(list(inputs)),
            "figures": json.dumps([vars(evaluation) for evaluation in evaluations]),
            "run_id": self._run.run_id,
        }
        self.warehouse.write("steps", rows_table("steps", [row]), name=step_id)
        self._run.rows += 1
        return evaluations
