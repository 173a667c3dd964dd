"""The card of an axis: what it was made from, how well it ranks, and what does not follow from it.

A card goes with every file that an axis is written to, so that a vector found on a disk can be
traced to its model, rows and run, and is not taken for more than was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from axes.analysis.projections import read_scores
from axes.analysis.stats.auroc import auroc_interval
from axes.warehouse.axes import Axis
from axes.warehouse.connection import Connection, rows
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
    "attn_out": "zero-based block index; the vector lies in what that block's attention adds to "
    "the residual stream",
    "mlp_out": "zero-based block index; the vector lies in what that block's MLP adds to the "
    "residual stream",
}

# Of several studies that judged an axis in the same way, the last.
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
order by model, prompt_set nulls first, scorer, metric, judged_on nulls first
"""
_SCORED = """
select model, model_id, prompt_set
from v_projections
where axis_id = ? and is_positive is not null
group by all
having bool_or(is_positive) and not bool_and(is_positive)
order by all
"""
_CALIBRATIONS = """
select
    calibration_id, model, model_id, method, target, threshold, parameters, prompt_set,
    positive_count, negative_count, row_set_hash
from calibrations
where axis_id = ?
order by model, method, target, calibration_id
"""


def axis_card(warehouse: Warehouse, axis: Axis) -> dict[str, Any]:
    """Everything that is stored of an axis but the vector; JSON types only.

    `evaluation` are the stored figures of the axis, and AUROC with DeLong's interval for every
    model and labelled set that is projected on it and that no study judged.
    """
    connection = warehouse.connection
    space = rows(
        connection,
        "select source, revision, architecture, d_model, layer_count, dtype, weights_hash, license "
        "from models where model_id = ?",
        [axis.space.model_id],
    )
    card = {
        "card_version": VERSION,
        **axis.columns,
        "parameters": json.loads(axis.parameters),
        "layer_convention": _CONVENTIONS.get(axis.space.site, LAYER_CONVENTION),
        "is_unit_norm": True,
        "is_centred": False,
        "space": space[0] if space else None,
        "evaluation": _evaluation(connection, axis.axis_id),
        "calibration": [
            {**found, "parameters": json.loads(found["parameters"])}
            for found in rows(connection, _CALIBRATIONS, [axis.axis_id])
        ],
        "license": _license(connection, axis.prompt_set, space),
    }
    return {**card, "limits": list(_limits(card))}


def _evaluation(connection: Connection, axis_id: str) -> list[dict[str, Any]]:
    stored = rows(connection, _EVALUATIONS, [axis_id])
    judged = {
        (row["model_id"], row["prompt_set"])
        for row in stored
        if row["metric"] == "auroc" and row["judged_on"] is None
    }
    scored = rows(connection, _SCORED, [axis_id])
    unjudged = [row for row in scored if (row["model_id"], row["prompt_set"]) not in judged]
    return stored + [_judged(connection, axis_id, **row) for row in unjudged]


def _judged(
    connection: Connection, axis_id: str, *, model: str, model_id: str, prompt_set: str
) -> dict[str, Any]:
    scores = read_scores(connection, axis_id, model_id, prompt_set, allow_missing=True)
    figure = auroc_interval(scores.values, scores.labels, groups=scores.groups)
    positive_count = int(scores.labels.sum())
    return {
        "model": model,
        "model_id": model_id,
        "prompt_set": prompt_set,
        "scorer": "axis",
        "metric": "auroc",
        "fitted_on": None,
        "judged_on": None,
        "layer": None,
        "estimate": figure.estimate,
        "lower": figure.lower,
        "upper": figure.upper,
        "positive_count": positive_count,
        "negative_count": len(scores.labels) - positive_count,
        "is_in_sample": bool(scores.is_in_sample.any()),
        "study_id": None,
    }


def _license(
    connection: Connection, prompt_set: str, space: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the axis was derived from, and under which terms that came."""
    prompts = rows(
        connection,
        "select distinct license from prompts where prompt_set = ? and license is not null "
        "order by license",
        [prompt_set],
    )
    return {
        "weights": space[0]["license"] if space else None,
        "prompts": [row["license"] for row in prompts],
    }


def _limits(card: dict[str, Any]) -> Iterator[str]:
    """What does not follow from the axis, in sentences."""
    if card["positive_count"]:
        yield (
            f"Made from {card['positive_count']} positive and {card['negative_count']} negative "
            f"prompts of {card['prompt_set']} ({card['method']}). What it says of other prompts "
            "is what the evaluation shows, and no more."
        )
    else:
        yield "What it was fitted on is not known, so nothing can be marked as in sample."
    if card["kind"] == "imported":
        yield f"Imported from {card['parameters'].get('file')}: it was not fitted here."
    aurocs = [row for row in card["evaluation"] if row["metric"] == "auroc"]
    if not aurocs:
        yield "No evaluation is stored: it is not known to rank any prompts."
    if any(row["is_in_sample"] for row in aurocs):
        yield (
            "Figures marked is_in_sample are of prompts that it was fitted on: higher than on new "
            "prompts, and in many dimensions high even for shuffled labels."
        )
    yield (
        f"It lies in the space of {card['space_model']} at layer {card['layer']} ({card['site']}, "
        f"{card['pooling']}, {card['template']}). Another model, layer, site or pooling needs a "
        "map or a fit of its own."
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
        "That it tells prompts apart does not show that steering along it changes what the model "
        "does; hold that against random directions of the same length."
    )
