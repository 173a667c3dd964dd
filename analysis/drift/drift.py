"""Does one class's projection drift while the model speaks? Figures, controls and curves as rows.

Everything is written to `trajectories` (a row per completion) and `drift_figures`, and is read back
from there: what `axes drift` prints can be had again with SQL.

A drift analysis in words, every number as `v_drift` and `v_drift_controls` hold it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from axes.analysis.drift.drift_controls import (
    Control,
    lasting,
    matched_length,
    matched_prompt,
    other_text,
    random_axes,
    shuffled_tokens,
)
from axes.analysis.drift.drift_statistics import (
    BOUND,
    centred_steps,
    change_point,
    decided_step,
    event_steps,
    lead,
    running_aurocs,
    running_means,
    slope_estimates,
    slope_terms,
)
from axes.analysis.drift.trajectories import (
    Selection,
    Trajectories,
    read_other_texts,
    read_trajectories,
)
from axes.analysis.stats.bootstrap import RESAMPLE_COUNT, Curve, draw_counts, mean_difference
from axes.warehouse.axes import AxisReadout
from axes.warehouse.connection import vectors
from axes.warehouse.handle import Warehouse
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key, rows_table

# Part of the key: figures of an earlier way to compute them are not taken for these.
METHOD_VERSION = 1


@dataclass(frozen=True)
class DriftDefinition:
    """How drift is asked for; with the completions it determines every number.

    `least_steps` None: the median length of the class with the shorter completions. `event` is a
    regular expression; None: the end of a completion of the positive class. `threshold` is in units
    of the projection, None where the axis is not calibrated.
    """

    selection: Selection = field(default_factory=Selection)
    least_steps: int | None = None
    bound: float = BOUND
    event: str | None = None
    threshold: float | None = None
    resample_count: int = RESAMPLE_COUNT
    seed: int = 0


def run_drift(warehouse: Warehouse, readout: AxisReadout, definition: DriftDefinition) -> str:
    """Analyse one model's completions on one axis unless that is done; returns the drift's id.

    The completions must be projected (`project_completions`). Raises as `read_trajectories` does.
    """
    found = read_trajectories(warehouse, readout, definition.selection)
    other = read_other_texts(warehouse, readout, found)
    drift_id = content_key(
        METHOD_VERSION,
        asdict(definition),
        (readout.axis_id, readout.model_id, readout.layer, readout.alignment_id),
        found.row_set_hash,
        None if other is None else other.row_set_hash,
    )
    if warehouse.has("drift_figures", drift_id):
        return drift_id
    parameters = {
        **asdict(definition),
        **asdict(definition.selection),
        "axis_id": readout.axis_id,
        "model": readout.model,
        "model_id": readout.model_id,
        "lasting_steps": definition.least_steps or _least_steps(found),
        "sampling": found.sampling,
        "unlabelled_count": found.unlabelled_count,
    }
    del parameters["selection"]
    with warehouse.run("drift", {"drift_id": drift_id, **parameters}, seed=definition.seed) as run:
        common = {
            "drift_id": drift_id,
            "model_id": readout.model_id,
            "axis_id": readout.axis_id,
            "layer": readout.layer,
            "run_id": run.run_id,
        }
        events = event_steps(found.texts, definition.event, found.is_positive)
        _write_trajectories(warehouse, run, readout, found, events, definition, common)
        figures = [
            {
                "control": "none",
                **common,
                **row,
                "model": readout.model,
                "prompt_set": found.prompt_set,
                "labeler": definition.selection.labeler,
                "parameters": json.dumps(parameters, sort_keys=True),
            }
            for row in _figures(warehouse, readout, found, other, events, definition)
        ]
        warehouse.write("drift_figures", rows_table("drift_figures", figures), name=drift_id)
        run.rows += len(figures)
    return drift_id


def _least_steps(found: Trajectories) -> int:
    """The most steps that half of either class last."""
    halves = [np.median(found.lengths[found.is_positive == of_class]) for of_class in (True, False)]
    return max(int(min(halves)), 2)


def _figures(
    warehouse: Warehouse,
    readout: AxisReadout,
    found: Trajectories,
    other: Trajectories | None,
    events: Float[np.ndarray, " row"],
    definition: DriftDefinition,
) -> Iterator[dict[str, Any]]:
    """Rows of `drift_figures`, without what all of them share."""
    seed, is_positive = definition.seed, found.is_positive
    sizes = {
        "positive_count": int(is_positive.sum()),
        "negative_count": int((~is_positive).sum()),
    }
    counts = draw_counts(
        len(is_positive),
        strata=is_positive,
        groups=found.groups,
        count=definition.resample_count,
        seed=seed,
    )
    names = ("positive_slope", "negative_slope", "slope_difference")
    terms = slope_terms(found.values)
    slopes = slope_estimates(terms, is_positive, counts)
    for metric, estimate in zip(names, slopes, strict=True):
        yield {"metric": metric, **asdict(estimate), **sizes}
    least_steps = definition.least_steps or _least_steps(found)
    controls = [
        matched_prompt(found, seed=seed),
        matched_length(found, seed=seed),
        lasting(found, least_steps, seed=seed),
        shuffled_tokens(found, seed=seed),
        None if other is None else other_text(other, seed=seed),
    ]
    rises = _vector_rises(warehouse, readout, found)
    if rises is not None:
        controls.append(
            random_axes(rises, terms.spread, readout.vector, is_positive, counts, seed=seed)
        )
        cosine = _drift_cosine(rises, terms.spread, readout.vector, is_positive)
        yield {"metric": "drift_cosine", "estimate": cosine, **sizes}
    for control in controls:
        if control is not None:
            yield from _control_rows(control)
    yield from _curve_rows("mean_difference", mean_difference(found.values, is_positive, counts))
    lasts = found.take(np.flatnonzero(found.lengths >= least_steps))
    kept = draw_counts(
        len(lasts.is_positive),
        strata=lasts.is_positive,
        groups=lasts.groups,
        count=definition.resample_count,
        seed=seed,
    )
    survivors = mean_difference(lasts.values[:, :least_steps], lasts.is_positive, kept)
    yield from _curve_rows("mean_difference", survivors, "lasting")
    curve, resampled = running_aurocs(found.values, is_positive, counts)
    yield from _curve_rows("running_auroc", curve)
    bound = definition.bound
    for metric, warning in (
        ("decided_step", decided_step(curve, resampled, bound=bound)),
        ("lead", lead(events, curve, resampled, counts, bound=bound)),
    ):
        if warning is not None:
            yield {"metric": metric, **asdict(warning), **sizes}


def _vector_rises(
    warehouse: Warehouse, readout: AxisReadout, found: Trajectories
) -> Float[np.ndarray, "row d_model"] | None:
    """`SlopeTerms.rise` of the vectors themselves; None where not all of them are stored."""
    centred = centred_steps(found.values)
    row_of = {name: row for row, name in enumerate(found.generation_ids)}
    rises, token_count = np.zeros((len(row_of), len(readout.vector))), 0
    for batch in warehouse.stream(
        """
        select generation_id, step, vector
        from generation_tokens
        where
            model = ? and layer = ? and step >= 0 and vector is not null
            and list_contains(?, generation_id)
        """,
        [readout.model, readout.layer, list(found.generation_ids)],
    ):
        at = np.array([row_of[name] for name in batch.column("generation_id").to_pylist()])
        weights = centred[at, batch.column("step").to_numpy()]
        matrix = vectors(batch.column("vector")).astype(np.float64)
        for row in np.unique(at):
            rises[row] += weights[at == row] @ matrix[at == row]
        token_count += len(at)
    return rises if token_count == found.lengths.sum() else None


def _drift_cosine(
    rises: Float[np.ndarray, "row d_model"],
    spread: Float[np.ndarray, " row"],
    vector: Float[np.ndarray, " d_model"],
    is_positive: Bool[np.ndarray, " row"],
) -> float:
    """Of the axis with the direction in which the classes' vectors drift apart."""
    positive, negative = (
        rises[of_class].sum(axis=0) / spread[of_class].sum()
        for of_class in (is_positive, ~is_positive)
    )
    apart = positive - negative
    norms = np.linalg.norm(apart) * np.linalg.norm(vector)
    return float(apart @ vector / norms) if norms > 0 else 0.0


def _control_rows(control: Control) -> Iterator[dict[str, Any]]:
    sizes = {"positive_count": control.positive_count, "negative_count": control.negative_count}
    yield {
        "metric": "slope_difference",
        "control": control.name,
        **asdict(control.estimate),
        **sizes,
    }
    if control.imbalance is not None:
        for metric, value in zip(
            ("imbalance_before", "imbalance_after"), control.imbalance, strict=True
        ):
            yield {"metric": metric, "control": control.name, "estimate": value, **sizes}


def _curve_rows(metric: str, curve: Curve, control: str = "none") -> Iterator[dict[str, Any]]:
    columns = {name: values.tolist() for name, values in vars(curve).items()}
    for index, step in enumerate(columns["steps"]):
        yield {
            "metric": metric,
            "control": control,
            "step": step,
            "estimate": columns["estimate"][index],
            "lower": columns["lower"][index],
            "upper": columns["upper"][index],
            "band_lower": columns["band_lower"][index],
            "band_upper": columns["band_upper"][index],
            "positive_count": columns["positive_counts"][index],
            "negative_count": columns["negative_counts"][index],
        }


def _write_trajectories(
    warehouse: Warehouse,
    run: Run,
    readout: AxisReadout,
    found: Trajectories,
    events: Float[np.ndarray, " row"],
    definition: DriftDefinition,
    common: dict[str, Any],
) -> None:
    slopes = slope_terms(found.values).slopes
    running = running_means(found.values)
    described = []
    for row, generation_id in enumerate(found.generation_ids):
        values = found.values[row, : found.lengths[row]]
        change = change_point(values, seed=definition.seed)
        described.append(
            {
                **common,
                "generation_id": generation_id,
                "prompt_id": found.prompt_ids[row],
                "is_positive": bool(found.is_positive[row]),
                "step_count": len(values),
                "prompt_projection": _number(found.start[row]),
                "mean_projection": float(values.mean()),
                "slope": _number(slopes[row]),
                "change_step": None if change is None else change.step,
                "change_size": None if change is None else change.size,
                "change_p_value": None if change is None else change.p_value,
                **_over_threshold(values, running[row, : len(values)], definition.threshold),
                "event_step": None if np.isnan(events[row]) else int(events[row]),
            }
        )
    table = rows_table("trajectories", described)
    name = str(common["drift_id"])
    warehouse.write("trajectories", table, name=name, partition=readout.model)
    run.rows += len(described)


def _over_threshold(
    values: Float[np.ndarray, " step"],
    running: Float[np.ndarray, " step"],
    threshold: float | None,
) -> dict[str, Any]:
    """Area above the threshold, first step there, and when the running mean stays on its side."""
    if threshold is None:
        return {}
    above = values >= threshold
    is_other_side = (running >= threshold) != (running[-1] >= threshold)
    return {
        "area_above": float(np.maximum(values - threshold, 0.0).sum()),
        "first_crossing": int(above.argmax()) if above.any() else None,
        "decided_step": int(np.flatnonzero(is_other_side)[-1]) + 1 if is_other_side.any() else 0,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


_CONTROLS = {
    "matched_prompt": "matched on the prompt's projection",
    "matched_length": "matched on length",
    "lasting": "completions that last, cut to one length",
}
_NULLS = {"random_axes": "random axes", "shuffled_tokens": "shuffled steps"}


def verdict(warehouse: Warehouse, drift_id: str) -> str:
    """Whether the positive class drifts up, with the figures and what each control says."""
    (found,) = warehouse.query("from v_drift where drift_id = ?", [drift_id]).to_pylist()
    controls = {
        row["control"]: row
        for row in warehouse.query(
            "from v_drift_controls where drift_id = ?", [drift_id]
        ).to_pylist()
    }
    lines = [_answer(found), _slopes(found)]
    lines += [
        f"{words}: {_figure(controls[name], 'difference')} on "
        f"{controls[name]['positive_count']} and {controls[name]['negative_count']}; "
        f"{'holds' if controls[name]['holds'] else 'does not hold'}"
        for name, words in _CONTROLS.items()
        if name in controls
    ]
    lines += [
        f"{words} give {_figure(controls[name], 'difference')}, p {controls[name]['p_value']:.3f}"
        for name, words in _NULLS.items()
        if name in controls
    ]
    if "other_text" in controls:
        lines.append(_other_text(found, controls["other_text"]))
    lines.append(_early_warning(found))
    if found["controls_missing"]:
        lines.append(f"not computed: {', '.join(found['controls_missing'])}")
    return "\n".join(lines)


def _answer(found: dict[str, Any]) -> str:
    names = ("model", "axis_name", "prompt_set", "template", "labeler")
    place = ", ".join(found[name] for name in names if found[name] is not None)
    if found["is_drift"] and found["is_controlled"]:
        answer = "yes, and every control agrees"
    elif found["is_drift"] and found["controls_failed"]:
        failed = ", ".join(found["controls_failed"])
        answer = f"it seems to, but these controls do not agree: {failed}"
    elif found["is_drift"]:
        answer = "it seems to, but not every control could be computed"
    elif found["upper"] < 0:
        answer = "no, it drifts down against the negative class"
    elif found["lower"] > 0:
        answer = "no, though it falls less than the negative class, or its own slope is unclear"
    else:
        answer = "not shown, the classes' slopes do not differ beyond chance"
    return f"does the positive class drift up ({place})? {answer}"


def _slopes(found: dict[str, Any]) -> str:
    return (
        f"slope per token: positive {_figure(found, 'positive_slope', 'positive_slope_')}, "
        f"negative {_figure(found, 'negative_slope', 'negative_slope_')}, "
        f"difference {_figure(found, 'slope_difference')}, p {found['p_value']:.3f}, "
        f"on {found['positive_count']} and {found['negative_count']} completions"
    )


def _other_text(found: dict[str, Any], control: dict[str, Any]) -> str:
    figure = _figure(control, "difference")
    if control["lower"] <= 0 <= control["upper"]:
        meaning = "neither the prompt nor the text alone makes a difference"
    elif (control["difference"] > 0) == (found["slope_difference"] > 0):
        meaning = "the difference follows the prompt"
    else:
        meaning = "the difference follows the text"
    return f"reading the other class's text: {figure}; {meaning}"


def _early_warning(found: dict[str, Any]) -> str:
    area = _figure(found, "final_auroc", "final_auroc_")
    bound = json.loads(found["parameters"])["bound"]
    if found["decided_step"] is None:
        return f"AUROC of the mean over whole completions is {area}: below {bound:g} at the end"
    step = _figure(found, "decided_step", "decided_step_")
    late = _figure(found, "lead", "lead_") if found["lead"] is not None else "no event"
    return (
        f"AUROC of the mean over whole completions is {area}; "
        f"it stays at {bound:g} or above from step {step} on, {late} tokens before the event"
    )


def _figure(row: dict[str, Any], name: str, prefix: str = "") -> str:
    lower, upper = (
        "no end" if row[f"{prefix}{end}"] is None else f"{row[f'{prefix}{end}']:.3g}"
        for end in ("lower", "upper")
    )
    return f"{row[name]:.3g} ({lower} to {upper})"
