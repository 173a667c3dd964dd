"""Does a threshold found on one model hold on another, before and after calibration?

A threshold is chosen on the calibration rows of one model and applied to the judged rows of
another: to its projections as they are, and to the calibrated ones, each model's calibration fitted
on its own calibration rows. Calibration and judged rows share no prompt and no group, and are the
same prompts for every model. How few labelled prompts of a model restore its own threshold is the
same question with a small draw of its calibration rows.

`axes transfer`: the threshold-transfer matrix and the curve of one axis, into `evaluations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.projections import LabelledScores, read_scores
from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import draw_counts, percentile_interval
from axes.analysis.stats.calibration import (
    BALANCED_ACCURACY,
    METHODS,
    choose_threshold,
    fit_calibration,
)
from axes.analysis.stats.multiple_testing import adjusted
from axes.analysis.stats.splits import (
    LEAST_OVERLAP,
    held_out_groups,
    joined_groups,
    near_duplicate_clusters,
)
from axes.analysis.study.figures import write_figures
from axes.warehouse.connection import Connection
from axes.warehouse.errors import CoverageError, ModelError
from axes.warehouse.runs import record_run
from axes.warehouse.writer import content_key, data_file

UNCALIBRATED = "uncalibrated"
LABELLED_COUNTS = (10, 20, 50, 100, 200, 500)


@dataclass(frozen=True)
class ModelScores:
    """One model's projections of the prompts that all models share."""

    model: str
    values: Float[np.ndarray, " row"]


@dataclass(frozen=True)
class Transfer:
    """What the threshold of `fitted_on` does on `judged_on`.

    `false_positive_shift` and `accuracy_loss` are against the threshold that the judged model's own
    calibration rows give, on the same resamples: rate there minus own rate, own balanced accuracy
    minus the one there.
    """

    method: str
    fitted_on: str
    judged_on: str
    balanced_accuracy: Estimate
    false_positive_rate: Estimate
    false_positive_shift: Estimate
    accuracy_loss: Estimate


@dataclass(frozen=True)
class CurvePoint:
    """Balanced accuracy of thresholds from `labelled_count` prompts, over seeded draws.

    The ends are the 2.5th and 97.5th percentile of the draws.
    """

    method: str
    judged_on: str
    labelled_count: int
    balanced_accuracy: Estimate


def transfer_matrix(
    scores: Sequence[ModelScores],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    is_calibration: Bool[np.ndarray, " row"],
    *,
    target: str = BALANCED_ACCURACY,
    resample_count: int = 500,
    seed: int = 0,
) -> list[Transfer]:
    """Every model's threshold on every model, uncalibrated and after each calibration.

    Intervals are of a bootstrap of both parts: calibrations and thresholds are fitted again on
    every resample of the calibration rows. With thresholds held fixed, the luck of the rows that
    they were chosen on would pass for a difference between models.
    """
    parts = [np.flatnonzero(is_calibration), np.flatnonzero(~is_calibration)]
    drawn = [
        draw_counts(
            len(rows),
            strata=labels[rows],
            groups=groups[rows],
            count=resample_count,
            seed=seed + index,
        )
        for index, rows in enumerate(parts)
    ]
    values = np.stack([of.values for of in scores])
    whole = [np.ones(len(rows), dtype=np.int64) for rows in parts]
    found = []
    for method in (UNCALIBRATED, *METHODS):
        # [resample, rate, fitted on, judged on]; the rates are of true and of false positives.
        rates = np.stack(
            [
                _rates(values, labels, parts, counts, method, target)
                for counts in ((whole[0], whole[1]), *zip(*drawn, strict=True))
            ]
        )
        true_rate, false_rate = rates[:, 0], rates[:, 1]
        accuracy = (true_rate + 1 - false_rate) / 2
        own = np.arange(len(scores))
        shift = false_rate - false_rate[:, own, own][:, None, :]
        loss = accuracy[:, own, own][:, None, :] - accuracy
        found += [
            Transfer(
                method,
                fitted_on.model,
                judged_on.model,
                _estimate(accuracy[:, i, j]),
                _estimate(false_rate[:, i, j]),
                _estimate(shift[:, i, j], is_tested=True),
                _estimate(loss[:, i, j], is_tested=True),
            )
            for i, fitted_on in enumerate(scores)
            for j, judged_on in enumerate(scores)
        ]
    return found


def labelled_curve(
    scores: Sequence[ModelScores],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    is_calibration: Bool[np.ndarray, " row"],
    *,
    target: str = BALANCED_ACCURACY,
    labelled_counts: Sequence[int] = LABELLED_COUNTS,
    draw_count: int = 200,
    seed: int = 0,
) -> list[CurvePoint]:
    """How a model's own threshold does by how many labelled prompts it is chosen on.

    `threshold`: chosen on the draw alone. `z_score`: on the other models' calibration rows, on the
    scale that the draw's mean and deviation give, which takes no labels of this model. Draws are of
    whole groups within the calibration rows, as many of each class as may be; counts that there are
    not enough rows for are left out.
    """
    pool, judged = np.flatnonzero(is_calibration), np.flatnonzero(~is_calibration)
    draws = {
        count: _draws(pool, labels, groups, count, draw_count, seed)
        for count in labelled_counts
        if count <= len(pool)
    }
    found = []
    for own in scores:
        others = [of for of in scores if of is not own]
        borrowed = _borrowed_threshold(others, labels, is_calibration, target) if others else None
        for count, drawn in draws.items():
            accuracies = [
                _own_threshold_accuracy(own.values, labels, rows, judged, target) for rows in drawn
            ]
            found.append(CurvePoint("threshold", own.model, count, _over_draws(accuracies)))
            if borrowed is not None:
                accuracies = [
                    _balanced_accuracy(
                        _standardised(own.values[judged], own.values[rows]) >= borrowed,
                        labels[judged],
                    )
                    for rows in drawn
                ]
                found.append(CurvePoint("z_score", own.model, count, _over_draws(accuracies)))
    return found


def _rates(
    values: Float[np.ndarray, "model row"],
    labels: Bool[np.ndarray, " row"],
    parts: Sequence[Int[np.ndarray, " part"]],
    counts: Sequence[Int[np.ndarray, " part"]],
    method: str,
    target: str,
) -> Float[np.ndarray, "2 fitted judged"]:
    """True and false positive rates of every threshold on every model, in one resample."""
    seen = np.repeat(parts[0], counts[0])
    truth = labels[parts[1]]
    scales, thresholds = [], []
    for of_model in values:
        scale = of_model[parts[1]]
        fitted_on = of_model[seen]
        if method != UNCALIBRATED:
            fitted = fit_calibration(fitted_on, labels[seen], method)
            scale, fitted_on = fitted.probability(scale), fitted.probability(fitted_on)
        scales.append(scale)
        thresholds.append(choose_threshold(fitted_on, labels[seen], target))
    called = np.stack(scales)[None] >= np.array(thresholds)[:, None, None]
    weights = np.stack([counts[1] * truth, counts[1] * ~truth])
    rates = called @ weights.T / weights.sum(axis=1)
    return np.moveaxis(rates, -1, 0)


def _estimate(drawn: Float[np.ndarray, " resample"], *, is_tested: bool = False) -> Estimate:
    """The first value is that of all rows, the others those of the resamples."""
    return percentile_interval(float(drawn[0]), drawn[1:], is_tested=is_tested)


def _draws(
    pool: Int[np.ndarray, " row"],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    count: int,
    draw_count: int,
    seed: int,
) -> list[Int[np.ndarray, " drawn"]]:
    """Seeded draws of about `count` rows of `pool` in whole groups, both classes in every one."""
    return [
        pool[
            held_out_groups(
                labels[pool],
                groups[pool],
                fraction=count / len(pool),
                seed=(seed, count, draw),
            )
        ]
        for draw in range(draw_count)
    ]


def _own_threshold_accuracy(
    values: Float[np.ndarray, " row"],
    labels: Bool[np.ndarray, " row"],
    rows: Int[np.ndarray, " drawn"],
    judged: Int[np.ndarray, " judged"],
    target: str,
) -> float:
    threshold = choose_threshold(values[rows], labels[rows], target)
    return _balanced_accuracy(values[judged] >= threshold, labels[judged])


def _borrowed_threshold(
    others: Sequence[ModelScores],
    labels: Bool[np.ndarray, " row"],
    is_calibration: Bool[np.ndarray, " row"],
    target: str,
) -> float:
    """One threshold for all other models' calibration rows, each on its own z-scale."""
    pooled = [_standardised(of.values[is_calibration], of.values[is_calibration]) for of in others]
    return choose_threshold(
        np.concatenate(pooled), np.tile(labels[is_calibration], len(others)), target
    )


def _standardised(
    values: Float[np.ndarray, " row"], fitted_on: Float[np.ndarray, " fitted"]
) -> Float[np.ndarray, " row"]:
    return (values - fitted_on.mean()) / fitted_on.std(ddof=1)


def _balanced_accuracy(called: Bool[np.ndarray, " row"], truth: Bool[np.ndarray, " row"]) -> float:
    return float((called[truth].mean() + 1 - called[~truth].mean()) / 2)


def _over_draws(values: Sequence[float]) -> Estimate:
    lower, upper = np.quantile(values, [0.025, 0.975])
    return Estimate(float(np.mean(values)), float(lower), float(upper))


# Raised whenever the figures of an unchanged definition would change.
_VERSION = 1

_METRICS = ("balanced_accuracy", "false_positive_rate", "false_positive_shift", "accuracy_loss")


@dataclass(frozen=True)
class TransferDefinition:
    """What is asked; `fraction` of the prompt groups are calibration rows, the rest is judged."""

    axis_id: str
    model_ids: tuple[str, ...]
    prompt_set: str
    target: str = BALANCED_ACCURACY
    fraction: float = 0.5
    least_overlap: float = LEAST_OVERLAP
    seed: int = 0
    allow_missing: bool = False


def run_transfer(root: Path, connection: Connection, definition: TransferDefinition) -> str:
    """Judge every model's threshold on every model; the id that the figures are stored under.

    Prompts that are nearly the same text, or of one pair, are all calibration rows or all judged.
    Nothing is computed again that is there. Raises `CoverageError` where projections are missing,
    or where there are not two models.
    """
    scores = [
        read_scores(
            connection,
            definition.axis_id,
            model_id,
            definition.prompt_set,
            allow_missing=definition.allow_missing,
        )
        for model_id in definition.model_ids
    ]
    if len(scores) < 2:
        raise CoverageError("a threshold is transferred between models: two are the least")
    names = [of.model for of in scores]
    if len(set(names)) < len(names):
        raise ModelError(
            f"two versions of one model among {', '.join(names)}: say which with --model NAME@ID"
        )
    scores = _on_shared_prompts(scores)
    study_id = content_key(
        "transfer", _VERSION, asdict(definition), [of.row_set_hash for of in scores]
    )
    if data_file(root, "evaluations", study_id).exists():
        return study_id
    with record_run(root, "transfer", asdict(definition), seed=definition.seed) as run:
        first = scores[0]
        labels = first.labels
        clusters = near_duplicate_clusters(
            first.texts.to_pylist(), least_overlap=definition.least_overlap
        )
        groups = joined_groups(first.groups, clusters)
        is_calibration = held_out_groups(
            labels, groups, fraction=definition.fraction, seed=definition.seed
        )
        named = [ModelScores(of.model, of.values) for of in scores]
        options: dict[str, Any] = {"target": definition.target, "seed": definition.seed}
        cells = transfer_matrix(named, labels, groups, is_calibration, **options)
        points = labelled_curve(named, labels, groups, is_calibration, **options)
        figures = [
            *_matrix_rows(cells),
            *(
                _row(
                    point.method,
                    "balanced_accuracy_by_labelled",
                    point.balanced_accuracy,
                    point.judged_on,
                    fitted_on=f"{point.labelled_count} prompts",
                    component=point.labelled_count,
                )
                for point in points
            ),
        ]
        judged = labels[~is_calibration]
        by_model = {of.model: of for of in scores}
        common = {
            "prompt_set": definition.prompt_set,
            "axis_id": definition.axis_id,
            "positive_count": int(judged.sum()),
            "negative_count": int((~judged).sum()),
            # Whether the axis was fitted on them: the thresholds never were.
            "is_in_sample": bool(first.is_in_sample[~is_calibration].any()),
        }
        described = [
            {**row, **common, "model_id": by_model[row["model"]].model_id} for row in figures
        ]
        write_figures(root, run, study_id, described, asdict(definition))
    return study_id


def _on_shared_prompts(scores: Sequence[LabelledScores]) -> list[LabelledScores]:
    """Every model's rows of the prompts that all have, in one order."""
    shared = set.intersection(*(set(of.prompt_ids) for of in scores))
    order = [prompt_id for prompt_id in scores[0].prompt_ids if prompt_id in shared]
    taken = []
    for of in scores:
        place = {prompt_id: index for index, prompt_id in enumerate(of.prompt_ids)}
        taken.append(of.take(np.array([place[prompt_id] for prompt_id in order])))
    return taken


def _matrix_rows(cells: Sequence[Transfer]) -> list[dict[str, Any]]:
    """A row for each metric of each cell; p-values adjusted (Holm) over the pairs of a method."""
    found = []
    for method in dict.fromkeys(cell.method for cell in cells):
        of_method = [cell for cell in cells if cell.method == method]
        for metric in _METRICS:
            estimates: list[Estimate] = [getattr(cell, metric) for cell in of_method]
            # A model's threshold on the model itself is no test of transfer.
            p_values = np.array(
                [
                    np.nan
                    if estimate.p_value is None or cell.fitted_on == cell.judged_on
                    else estimate.p_value
                    for cell, estimate in zip(of_method, estimates, strict=True)
                ]
            )
            for cell, estimate, p_value, corrected in zip(
                of_method, estimates, p_values, adjusted(p_values), strict=True
            ):
                is_test = not np.isnan(p_value)
                row = _row(method, metric, estimate, cell.judged_on, fitted_on=cell.fitted_on)
                row |= {
                    "p_value": float(p_value) if is_test else None,
                    "p_value_adjusted": float(corrected) if is_test else None,
                }
                found.append(row)
    return found


def _row(
    scorer: str, metric: str, estimate: Estimate, model: str, **columns: Any
) -> dict[str, Any]:
    return {"scorer": scorer, "metric": metric, "model": model, **asdict(estimate), **columns}
