"""Calibrations into the warehouse and back: `axes calibrate` writes them, any reader applies them.

SQL applies them too: `v_calibrated_projections`, or the macro `calibrated`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from axes.analysis.projections import LabelledScores, read_scores
from axes.analysis.stats.calibration import BALANCED_ACCURACY, Calibration, fit_calibration
from axes.analysis.stats.splits import held_out_groups
from axes.warehouse.connection import Connection, rows
from axes.warehouse.errors import CalibrationError
from axes.warehouse.handle import Warehouse
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key, rows_table


def calibrate(
    warehouse: Warehouse,
    axis_id: str,
    model_ids: Sequence[str],
    prompt_set: str,
    methods: Sequence[str],
    *,
    target: str = BALANCED_ACCURACY,
    fraction: float = 1.0,
    seed: int = 0,
    allow_missing: bool = False,
) -> list[str]:
    """Fit and store calibrations of an axis for models; their ids, new or stored.

    They are fitted on a seeded `fraction` of the groups (pairs) of the labelled set, the same
    prompts for every model; the rest stays to evaluate them on. Raises `CalibrationError` where a
    calibration cannot be fitted, `CoverageError` where projections are missing.
    """
    parameters = {
        "axis_id": axis_id,
        "model_ids": list(model_ids),
        "prompt_set": prompt_set,
        "methods": list(methods),
        "target": target,
        "fraction": fraction,
        "seed": seed,
        "allow_missing": allow_missing,
    }
    with warehouse.run("calibrate", parameters, seed=seed) as run:
        ids = []
        for model_id in model_ids:
            scores = read_scores(
                warehouse, axis_id, model_id, prompt_set, allow_missing=allow_missing
            )
            if fraction < 1:
                drawn = held_out_groups(scores.labels, scores.groups, fraction=fraction, seed=seed)
                scores = scores.take(np.flatnonzero(drawn))
            for method in methods:
                fitted = fit_calibration(scores.values, scores.labels, method, target=target)
                ids.append(_write_calibration(warehouse, run, scores, fitted))
    return ids


def _write_calibration(
    warehouse: Warehouse, run: Run, fitted_on: LabelledScores, calibration: Calibration
) -> str:
    """Store a calibration unless it is stored; its id is a hash of what it was fitted from."""
    calibration_id = content_key(
        fitted_on.axis_id,
        fitted_on.model_id,
        fitted_on.row_set_hash,
        calibration.method,
        calibration.target,
    )
    if warehouse.has("calibrations", calibration_id):
        return calibration_id
    row = {
        **asdict(calibration),
        "parameters": json.dumps(calibration.parameters, sort_keys=True),
        "calibration_id": calibration_id,
        "model": fitted_on.model,
        "model_id": fitted_on.model_id,
        "axis_id": fitted_on.axis_id,
        "prompt_set": fitted_on.prompt_set,
        "prompt_ids": list(fitted_on.prompt_ids),
        "row_set_hash": fitted_on.row_set_hash,
        "run_id": run.run_id,
    }
    warehouse.write("calibrations", rows_table("calibrations", [row]), name=calibration_id)
    run.rows += 1
    return calibration_id


def stored_calibration(
    connection: Connection,
    axis_id: str,
    model_id: str,
    method: str,
    *,
    target: str = BALANCED_ACCURACY,
    prompt_set: str | None = None,
) -> Calibration:
    """The calibration of a model on an axis; of several, the one last written.

    Raises `CalibrationError` where there is none.
    """
    stored = rows(
        connection,
        """
        select
            method,
            target,
            threshold,
            calibrations.parameters,
            positive_count,
            negative_count
        from calibrations
        left join runs on calibrations.run_id = runs.run_id
        where
            axis_id = $axis_id and model_id = $model_id
            and method = $method and target = $target
            and prompt_set = coalesce($prompt_set, prompt_set)
        order by runs.started_at desc nulls last, calibration_id
        limit 1
        """,
        {
            "axis_id": axis_id,
            "model_id": model_id,
            "method": method,
            "target": target,
            "prompt_set": prompt_set,
        },
    )
    if not stored:
        raise CalibrationError(
            f"no {method} calibration of {model_id} on {axis_id} for {target}: run "
            f"`axes calibrate {axis_id} --prompts {prompt_set or 'SET'} --calibration {method} "
            f"--target {target}`"
        )
    return Calibration(**{**stored[0], "parameters": json.loads(stored[0]["parameters"])})
