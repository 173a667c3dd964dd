"""The card of an axis: what it was made from, how well it ranks, and its limits.

Every file of an exported axis has one, so that a vector on a disk can be traced to its model, rows
and run, and nobody takes it for more than was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from axes.analysis.exchange.formats.contents import Card
from axes.analysis.projections import read_scores
from axes.analysis.stats.auroc import auroc_interval
from axes.warehouse.axes import Axis
from axes.warehouse.handle import Warehouse

VERSION = 1

LAYER_CONVENTION = (
    "zero-based block index; the vector lies in that block's output "
    "(HF hidden_states[layer + 1], before any final norm)"
)
_CONVENTIONS = {
    "resid_post": LAYER_CONVENTION,
    "resid_pre": "zero-based block index; the vector lies in that block's input "
    "(HF hidden_states[layer])",
    **{
        site: f"zero-based block index; the vector lies in what that block's {part} adds to the "
        "residual stream"
        for site, part in (("attn_out", "attention"), ("mlp_out", "MLP"))
    },
}

# Of several studies that evaluated an axis in the same way, the last.
_EVALUATIONS = """
select
    model, model_id, prompt_set, scorer, metric, fitted_on, judged_on, layer, estimate, lower,
    upper, positive_count, negative_count, is_in_sample, study_id
from evaluations
left join runs using (run_id)
where axis_id = ?
qualify row_number() over (
    partition by model_id, prompt_set, scorer, metric, component, fitted_on, judged_on, layer
    order by runs.started_at desc nulls last, study_id
) = 1
order by
    model, model_id, prompt_set nulls first, scorer, metric, judged_on nulls first,
    fitted_on nulls first, layer, component
"""
# Model ids and prompt sets of all projections with labels of both classes.
_PROJECTED = """
select model_id, prompt_set
from v_projections
where axis_id = ? and is_positive is not null
group by model, model_id, prompt_set
having bool_or(is_positive) and not bool_and(is_positive)
order by model, model_id, prompt_set
"""
_CALIBRATIONS = """
select
    calibration_id, model, model_id, method, target, threshold, parameters, prompt_set,
    positive_count, negative_count, row_set_hash
from calibrations
where axis_id = ?
order by model, method, target, calibration_id
"""


def axis_card(warehouse: Warehouse, axis: Axis) -> Card:
    """Everything that is stored about an axis but the vector; JSON types only.

    `evaluation` are the stored metrics of the axis, and AUROC with DeLong's interval for every
    model and labelled set that is projected on it and that no study evaluated.
    """
    model = warehouse.query(
        "select source, revision, architecture, d_model, layer_count, dtype, weights_hash, license "
        "from models where model_id = ?",
        [axis.space.model_id],
    ).to_pylist()
    prompt_licenses = warehouse.column(
        "select distinct license from prompts where prompt_set = ? and license is not null "
        "order by license",
        [axis.prompt_set],
    )
    calibrations = warehouse.query(_CALIBRATIONS, [axis.axis_id]).to_pylist()
    evaluations = warehouse.rows(_Evaluation, _EVALUATIONS, [axis.axis_id])
    evaluated = {
        (row.model_id, row.prompt_set)
        for row in evaluations
        if row.metric == "auroc" and row.judged_on is None
    }
    projected = warehouse.query(_PROJECTED, [axis.axis_id]).to_pydict()
    evaluations += [
        _evaluation(warehouse, axis.axis_id, model_id, prompt_set)
        for model_id, prompt_set in zip(*projected.values(), strict=True)
        if (model_id, prompt_set) not in evaluated
    ]
    card = {
        "card_version": VERSION,
        **axis.columns,
        "parameters": json.loads(axis.parameters),
        "layer_convention": _CONVENTIONS.get(axis.space.site, LAYER_CONVENTION),
        "is_unit_norm": True,
        "is_centred": False,
        "space": model[0] if model else None,
        "evaluation": [vars(row) for row in evaluations],
        "calibration": [
            {**row, "parameters": json.loads(row["parameters"])} for row in calibrations
        ],
        "license": {
            "weights": model[0]["license"] if model else None,
            "prompts": prompt_licenses,
        },
    }
    return {**card, "limits": list(_limits(axis, card, evaluations))}


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    """One metric of the axis, with the columns of `evaluations`."""

    model: str | None
    model_id: str | None
    prompt_set: str | None
    scorer: str
    metric: str
    fitted_on: str | None = None
    judged_on: str | None = None
    layer: int | None = None
    estimate: float
    lower: float | None
    upper: float | None
    positive_count: int | None
    negative_count: int | None
    is_in_sample: bool | None
    study_id: str | None = None


def _evaluation(warehouse: Warehouse, axis_id: str, model_id: str, prompt_set: str) -> _Evaluation:
    scores = read_scores(warehouse, axis_id, model_id, prompt_set, allow_missing=True)
    auroc = auroc_interval(scores.values, scores.labels, groups=scores.groups)
    positive_count = int(scores.labels.sum())
    return _Evaluation(
        model=scores.model,
        model_id=model_id,
        prompt_set=prompt_set,
        scorer="axis",
        metric="auroc",
        estimate=auroc.estimate,
        lower=auroc.lower,
        upper=auroc.upper,
        positive_count=positive_count,
        negative_count=len(scores.labels) - positive_count,
        is_in_sample=bool(scores.is_in_sample.any()),
    )


def _limits(axis: Axis, card: Card, evaluations: list[_Evaluation]) -> Iterator[str]:
    """What does not follow from the axis, in sentences."""
    if axis.positive_count:
        yield (
            f"Made from {axis.positive_count} positive and {axis.negative_count} negative "
            f"prompts of {axis.prompt_set} ({axis.method}). What it says of other prompts "
            "is what the evaluation shows, and no more."
        )
    else:
        yield "What it was fitted on is not known, so nothing can be marked as in sample."
    if (file := card["parameters"].get("file")) is not None or axis.kind == "imported":
        yield f"Imported from {file}: it was not fitted here."
    aurocs = [row for row in evaluations if row.metric == "auroc"]
    if not aurocs:
        yield "No evaluation is stored: it is not known to rank any prompts."
    if any(row.is_in_sample for row in aurocs):
        yield (
            "Values marked is_in_sample are of prompts that it was fitted on: higher than on new "
            "prompts, and in many dimensions high even for shuffled labels."
        )
    yield (
        f"It lies in the space of {axis.space.model} at layer {axis.space.layer} "
        f"({axis.space.site}, {axis.space.pooling}, {axis.space.template}). Another model, layer, "
        "site or pooling needs a map or a fit of its own."
    )
    if card["calibration"]:
        yield (
            "Each threshold holds for the model and prompts that it is listed with. None transfers "
            "to another model unless that is calibrated too."
        )
    else:
        yield (
            "No threshold is stored. A projection alone does not say that a prompt is positive: "
            "activations are not centred, and scales differ between models."
        )
    yield "A high cosine with another axis is no evidence that the two rank prompts alike."
    yield (
        "That it separates prompts does not show that steering along it changes what the model "
        "does; compare steering with random directions of the same length."
    )
