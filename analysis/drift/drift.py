"""Does one class's projection drift while the model speaks? Figures, controls and curves as rows.

Everything is written to `trajectories` (a row per completion) and `drift_figures`, and is read back
from there: what `axes drift` prints can be had again with SQL (`v_drift`, `v_drift_controls`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

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
from axes.analysis.methods.directions import cosine
from axes.analysis.registry import store_rows
from axes.analysis.stats.bootstrap import RESAMPLE_COUNT, Curve, draw_counts, mean_difference
from axes.warehouse.axes import AxisReadout
from axes.warehouse.connection import vectors
from axes.warehouse.handle import Warehouse
from axes.warehouse.render import finite
from axes.warehouse.writer import content_key

# Part of the key: figures of an earlier way to compute them are not taken for these.
METHOD_VERSION = 3


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
    """Analyse one model's completions on one axis unless that is stored; returns the drift's id.

    The completions must be projected (`project_completions`). Raises as `read_trajectories` does.
    """
    trajectories = read_trajectories(warehouse, readout, definition.selection)
    other = read_other_texts(warehouse, readout, trajectories)
    drift_id = content_key(
        METHOD_VERSION,
        asdict(definition),
        (readout.axis_id, readout.model_id, readout.layer, readout.alignment_id),
        trajectories.row_set_hash,
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
        "lasting_steps": definition.least_steps or _typical_steps(trajectories),
        "sampling": trajectories.sampling,
        "unlabelled_count": trajectories.unlabelled_count,
    }
    del parameters["selection"]
    with warehouse.run("drift", {"drift_id": drift_id, **parameters}, seed=definition.seed) as run:
        shared: dict[str, object] = {
            "drift_id": drift_id,
            "model_id": readout.model_id,
            "axis_id": readout.axis_id,
            "layer": readout.layer,
        }
        events = event_steps(trajectories.texts, definition.event, trajectories.is_positive)
        completions = (shared | row for row in _completions(trajectories, events, definition))
        store_rows(warehouse, run, "trajectories", drift_id, completions, partition=readout.model)
        shared |= {
            "model": readout.model,
            "prompt_set": trajectories.prompt_set,
            "labeler": definition.selection.labeler,
            "parameters": json.dumps(parameters, sort_keys=True),
        }
        metrics = _metrics(warehouse, readout, trajectories, other, events, definition)
        rows = (shared | vars(metric) for metric in metrics)
        store_rows(warehouse, run, "drift_figures", drift_id, rows)
    return drift_id


def _typical_steps(trajectories: Trajectories) -> int:
    """The median length of the class with the shorter completions."""
    lengths, is_positive = trajectories.lengths, trajectories.is_positive
    return max(int(min(np.median(lengths[is_positive]), np.median(lengths[~is_positive]))), 2)


@dataclass(frozen=True, kw_only=True)
class _Metric:
    """A row of `drift_figures`, without the columns that all rows of a drift share."""

    metric: str
    control: str = "none"
    step: int | None = None
    estimate: float
    lower: float | None = None
    upper: float | None = None
    p_value: float | None = None
    band_lower: float | None = None
    band_upper: float | None = None
    positive_count: int
    negative_count: int


def _metrics(
    warehouse: Warehouse,
    readout: AxisReadout,
    trajectories: Trajectories,
    other: Trajectories | None,
    events: Float[np.ndarray, " row"],
    definition: DriftDefinition,
) -> Iterator[_Metric]:
    seed, is_positive = definition.seed, trajectories.is_positive
    of_all = partial(
        _Metric,
        positive_count=int(is_positive.sum()),
        negative_count=int((~is_positive).sum()),
    )
    counts = _draws(trajectories, definition)
    terms = slope_terms(trajectories.values)
    names = ("positive_slope", "negative_slope", "slope_difference")
    slopes = slope_estimates(terms, is_positive, counts)
    for metric, estimate in zip(names, slopes, strict=True):
        yield of_all(metric=metric, **asdict(estimate))
    min_steps = definition.least_steps or _typical_steps(trajectories)
    controls = [
        matched_prompt(trajectories, counts),
        matched_length(trajectories, counts),
        lasting(trajectories, min_steps, counts),
        shuffled_tokens(trajectories, seed=seed),
        None if other is None else other_text(other, _draws(other, definition)),
    ]
    rises = _vector_rises(warehouse, readout, trajectories)
    if rises is not None:
        controls.append(
            random_axes(rises, terms.spread, readout.vector, is_positive, counts, seed=seed)
        )
        drift_cosine = _drift_cosine(rises, terms.spread, readout.vector, is_positive)
        yield of_all(metric="drift_cosine", estimate=drift_cosine)
    for control in controls:
        if control is not None:
            yield from _control_metrics(control)
    differences = mean_difference(trajectories.values, is_positive, counts)
    yield from _curve_metrics("mean_difference", differences)
    lasts = trajectories.take(np.flatnonzero(trajectories.lengths >= min_steps))
    survivors = mean_difference(
        lasts.values[:, :min_steps], lasts.is_positive, _draws(lasts, definition)
    )
    yield from _curve_metrics("mean_difference", survivors, "lasting")
    curve, resampled = running_aurocs(trajectories.values, is_positive, counts)
    yield from _curve_metrics("running_auroc", curve)
    bound = definition.bound
    for metric, warning in (
        ("decided_step", decided_step(curve, resampled, bound=bound)),
        ("lead", lead(events, curve, resampled, counts, bound=bound)),
    ):
        if warning is not None:
            yield of_all(metric=metric, **asdict(warning))


def _draws(
    trajectories: Trajectories, definition: DriftDefinition
) -> Int[np.ndarray, "resample row"]:
    """How often each completion is drawn by each resample of the bootstrap."""
    return draw_counts(
        len(trajectories.is_positive),
        strata=trajectories.is_positive,
        groups=trajectories.groups,
        count=definition.resample_count,
        seed=definition.seed,
    )


def _vector_rises(
    warehouse: Warehouse, readout: AxisReadout, trajectories: Trajectories
) -> Float[np.ndarray, "row d_model"] | None:
    """`SlopeTerms.rise` of the vectors themselves; None where not all of them are stored."""
    centred = centred_steps(trajectories.values)
    row_of = {name: row for row, name in enumerate(trajectories.generation_ids)}
    rises, token_count = np.zeros((len(row_of), len(readout.vector))), 0
    for batch in warehouse.stream(
        """
        select generation_id, step, vector
        from generation_tokens
        where
            model = ? and layer = ? and step >= 0 and vector is not null
            and list_contains(?, generation_id)
        """,
        [readout.model, readout.layer, list(trajectories.generation_ids)],
    ):
        at = np.array([row_of[name] for name in batch.column("generation_id").to_pylist()])
        weights = centred[at, batch.column("step").to_numpy()]
        matrix = vectors(batch.column("vector")).astype(np.float64)
        for row in np.unique(at):
            rises[row] += weights[at == row] @ matrix[at == row]
        token_count += len(at)
    return rises if token_count == trajectories.lengths.sum() else None


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
    return cosine(positive - negative, vector)


def _control_metrics(control: Control) -> Iterator[_Metric]:
    of_control = partial(
        _Metric,
        control=control.name,
        positive_count=control.positive_count,
        negative_count=control.negative_count,
    )
    yield of_control(metric="slope_difference", **asdict(control.estimate))
    if control.change is not None:
        yield of_control(metric="slope_change", **asdict(control.change))
    names = ("imbalance_before", "imbalance_after")
    for metric, value in zip(names, control.imbalance or (), strict=False):
        yield of_control(metric=metric, estimate=value)


# The fields of a `Curve`, as columns.
_CURVE = (
    *("step", "estimate", "lower", "upper", "band_lower", "band_upper"),
    *("positive_count", "negative_count"),
)


def _curve_metrics(metric: str, curve: Curve, control: str = "none") -> Iterator[_Metric]:
    for row in zip(*(values.tolist() for values in vars(curve).values()), strict=True):
        yield _Metric(metric=metric, control=control, **dict(zip(_CURVE, row, strict=True)))


def _completions(
    trajectories: Trajectories, events: Float[np.ndarray, " row"], definition: DriftDefinition
) -> Iterator[dict[str, str | float | None]]:
    """Rows of `trajectories`, without the columns that all rows of a drift share."""
    slopes = slope_terms(trajectories.values).slopes
    running = running_means(trajectories.values)
    for row, generation_id in enumerate(trajectories.generation_ids):
        values = trajectories.values[row, : trajectories.lengths[row]]
        change = change_point(values, seed=definition.seed)
        yield {
            "generation_id": generation_id,
            "prompt_id": trajectories.prompt_ids[row],
            "is_positive": bool(trajectories.is_positive[row]),
            "step_count": len(values),
            "prompt_projection": finite(float(trajectories.start[row])),
            "mean_projection": float(values.mean()),
            "slope": finite(float(slopes[row])),
            "change_step": None if change is None else change.step,
            "change_size": None if change is None else change.size,
            "change_p_value": None if change is None else change.p_value,
            **_crossings(values, running[row, : len(values)], definition.threshold),
            "event_step": None if np.isnan(events[row]) else int(events[row]),
        }


def _crossings(
    values: Float[np.ndarray, " step"],
    running: Float[np.ndarray, " step"],
    threshold: float | None,
) -> dict[str, float | int | None]:
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


_CONTROLS = {
    "matched_prompt": "matched on the prompt's projection",
    "matched_length": "matched on length",
    "lasting": "completions that last, cut to one length",
}
_HOLDS = {True: "holds", False: "explains the difference", None: "cannot tell"}
_NULLS = {"random_axes": "random axes", "shuffled_tokens": "shuffled steps"}

# A row of `v_drift` or `v_drift_controls`.
_Row = dict[str, Any]


def verdict(warehouse: Warehouse, drift_id: str) -> str:
    """Whether the positive class drifts up, with the metrics and what each control says."""
    (drift,) = warehouse.query("from v_drift where drift_id = ?", [drift_id]).to_pylist()
    rows = warehouse.query("from v_drift_controls where drift_id = ?", [drift_id]).to_pylist()
    controls = {row["control"]: row for row in rows}
    slopes = (f"{name.removesuffix('_slope')} {_interval(drift, name)}" for name in _SLOPES)
    lines = [
        _answer(drift),
        f"slope per token: {', '.join(slopes)}, "
        f"difference {_interval(drift, 'slope_difference', '')}, p {drift['p_value']:.3f}, "
        f"on {drift['positive_count']} and {drift['negative_count']} completions, of which "
        f"{drift['positive_empty_count']} and {drift['negative_empty_count']} end at their first "
        "token",
    ]
    for name, words in _CONTROLS.items():
        if (row := controls.get(name)) is not None:
            holds = _HOLDS[row["holds"]]
            lines.append(
                f"{words}: {_interval(row, 'difference', '')} on {row['positive_count']} and "
                f"{row['negative_count']}; {holds}"
            )
    for name, words in _NULLS.items():
        if (row := controls.get(name)) is not None:
            difference = _interval(row, "difference", "")
            lines.append(f"{words} give {difference}, p {row['p_value']:.3f}")
    if "other_text" in controls:
        lines.append(_other_text(drift, controls["other_text"]))
    lines.append(_early_warning(drift))
    if drift["controls_missing"]:
        lines.append(f"not computed: {', '.join(drift['controls_missing'])}")
    return "\n".join(lines)


_SLOPES = ("positive_slope", "negative_slope")


def _answer(drift: _Row) -> str:
    names = ("model", "axis_name", "prompt_set", "template", "labeler")
    subject = ", ".join(drift[name] for name in names if drift[name] is not None)
    if drift["is_drift"] or drift["upper"] < 0:
        seems = "it seems to" if drift["is_drift"] else "it seems to drift down instead"
        if drift["is_controlled"]:
            shown = "yes" if drift["is_drift"] else "no, it drifts down against the negative class"
            answer = f"{shown}, and every control agrees"
        elif failed := ", ".join(drift["controls_failed"]):
            answer = f"{seems}, but these controls explain the difference: {failed}"
        else:
            answer = f"{seems}, but not every control could be computed or can tell"
    elif drift["lower"] > 0:
        answer = "no, though it falls less than the negative class, or its own slope is unclear"
    else:
        answer = "not shown, the classes' slopes do not differ beyond chance"
    return f"does the positive class drift up ({subject})? {answer}"


def _other_text(drift: _Row, control: _Row) -> str:
    if control["lower"] <= 0 <= control["upper"]:
        meaning = "neither the prompt nor the text alone makes a difference"
    elif (control["difference"] > 0) == (drift["slope_difference"] > 0):
        meaning = "the difference follows the prompt"
    else:
        meaning = "the difference follows the text"
    return f"reading the other class's text: {_interval(control, 'difference', '')}; {meaning}"


def _early_warning(drift: _Row) -> str:
    bound = json.loads(drift["parameters"])["bound"]
    area = f"AUROC of the mean over whole completions is {_interval(drift, 'final_auroc')}"
    if drift["decided_step"] is None:
        return f"{area}: below {bound:g} at the end"
    step = _interval(drift, "decided_step")
    late = "no event" if drift["lead"] is None else _interval(drift, "lead")
    stays = f"it stays at {bound:g} or above from step {step} on"
    return f"{area}; {stays}, {late} tokens before the event"


def _interval(row: _Row, name: str, prefix: str | None = None) -> str:
    """An estimate with its ends, in columns that begin with its name or with `prefix`."""
    prefix = f"{name}_" if prefix is None else prefix
    lower, upper = (
        "no end" if row[f"{prefix}{end}"] is None else f"{row[f'{prefix}{end}']:.3g}"
        for end in ("lower", "upper")
    )
    return f"{row[name]:.3g} ({lower} to {upper})"
