"""A small study of a planted world, and the rest of what a report can show put beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from axes.analysis.study.run import run_study
from axes.warehouse.connection import connect, rows
from tests.drifting import write_traces
from tests.rows import Row, put
from tests.worlds import define_study, make_world, prompt_ids

WIDTHS = {"alpha": 16, "beta": 20}
PLANTED = {"widths": WIDTHS, "strength": 1.2, "benign_count": 120}
PLANTED |= {"labelled": {"labelled": 150, "other": 100}}
STEPS = 4


def put_studied(root: Path) -> str:
    """A world of two models with a study of it; the study's id."""
    make_world(root, layer_count=2, **PLANTED)
    options = {"evaluate": ("other",), "alignment_shuffles": 2, "label": "greek"}
    return run_study(root, define_study(WIDTHS, **options))


def put_reported(root: Path) -> None:
    """The same, with rows of all else, as the commands write them."""
    study_id = put_studied(root)
    (axis,) = rows(connect(root), "select axis_id, layer from axes where kind = 'universal'")
    common = {"model": "alpha", "model_id": "id-alpha", "layer": axis["layer"], "run_id": "later"}
    on_axis = {**common, "axis_id": axis["axis_id"]}
    judged = {**common, "study_id": study_id, "prompt_set": "other"}
    put(root, "runs", {"run_id": "later", "command": "later", "parameters": "{}"})
    variation = {**judged, "setting": "ridge_lambda"}
    put(
        root,
        "variations",
        *(
            {**variation, "figure": figure, "value": value, "estimate": estimate}
            for figure in ("universal", "cosine_universal")
            for value, estimate in (("0.1", 0.7), ("10", 0.8))
        ),
    )
    finding = {key: value for key, value in judged.items() if key != "layer"}
    finding |= {"axis_id": axis["axis_id"], "check_name": "diagnosis", "figures": "{}"}
    put(root, "diagnostics", {**finding, "verdict": "few_rows: so it seems", "is_fault": True})
    put(root, "evaluations", *_transferred(on_axis))
    put(root, "drift_figures", *_drifted(on_axis))
    _put_traces(root, on_axis)


def _transferred(on_axis: Row) -> list[Row]:
    interval = {"lower": 0.6, "upper": 0.8, "parameters": "{}", "prompt_set": "other"}
    return [
        {
            **on_axis,
            **interval,
            "study_id": "transfer",
            "scorer": "uncalibrated",
            "metric": metric,
            "model": model,
            "fitted_on": fitted_on,
            "estimate": 0.7,
        }
        for metric in ("balanced_accuracy", "accuracy_loss", "false_positive_rate")
        for model in WIDTHS
        for fitted_on in WIDTHS
    ]


def _drifted(on_axis: Row) -> list[Row]:
    sampled = '{"sampling": {"template": "raw", "max_new_tokens": 4}}'
    common = {**on_axis, "drift_id": "d", "prompt_set": "other", "control": "none"}
    curve = {**common, "parameters": sampled, "positive_count": 6, "negative_count": 6}
    band = {"lower": 0.2, "upper": 0.9, "band_lower": 0.1, "band_upper": 1.0}
    slope = {**curve, "metric": "slope_difference", "estimate": 0.1, "lower": 0.0, "upper": 0.2}
    return [
        slope,
        *(
            {**curve, **band, "metric": metric, "step": step, "estimate": 0.5 + step / 10}
            for metric in ("mean_difference", "running_auroc")
            for step in range(STEPS)
        ),
    ]


def _put_traces(root: Path, on_axis: Row) -> None:
    """Six completions of either class."""
    random = np.random.default_rng(0)
    shown = {"layer": on_axis["layer"], "max_new_tokens": STEPS}
    prompts = prompt_ids("other", 12)
    ids = write_traces(root, "alpha", np.zeros((12, STEPS, 16)), prompts, **shown)
    place = {name: on_axis[name] for name in ("model", "axis_id", "layer", "run_id")}
    values = random.standard_normal((12, STEPS)).tolist()
    projections = (
        {**place, "generation_id": generation_id, "step": step, "projection": value}
        for generation_id, row in zip(ids, values, strict=True)
        for step, value in enumerate(row)
    )
    put(root, "token_projections", *projections)
