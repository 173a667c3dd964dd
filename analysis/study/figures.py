"""Estimates as rows of `evaluations`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool

from axes.analysis.registry import Axis
from axes.analysis.stats.auroc import Estimate
from axes.analysis.study.definition import Member
from axes.warehouse.runs import Run
from axes.warehouse.writer import rows_table, write_rows


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
