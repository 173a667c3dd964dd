"""Threshold transfer: does a threshold fitted on one model hold on another (`axes transfer`)?

A threshold is chosen on the calibration rows of one model and applied to the evaluation rows of
another: to its projections as they are, and to calibrated ones, each model's calibration fitted on
its calibration rows. Calibration and evaluation rows share no prompt and no group, and are the same
prompts for every model. How few labelled prompts of a model restore its threshold is the same
question with a small draw of its calibration rows. The matrix and the curve of one axis go into
`evaluations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from axes.analysis.projections import LabelledScores, read_scores
from axes.analysis.stats import CALIBRATIONS
from axes.analysis.stats.auroc import Estimate, Groups, Labels, Scores
from axes.analysis.stats.bootstrap import draw_counts, percentile_interval
from axes.analysis.stats.calibration import (
    BALANCED_ACCURACY,
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
from axes.analysis.study.evaluations import Evaluation, evaluate_once
from axes.analysis.study.fit import on_shared_prompts
from axes.warehouse.errors import CoverageError, ModelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.writer import content_key

UNCALIBRATED = "uncalibrated"
LABELLED_COUNTS = (10, 20, 50, 100, 200, 500)
# Raised whenever the metrics of an unchanged definition would change.
_VERSION = 1
_METRICS = ("balanced_accuracy", "false_positive_rate", "false_positive_shift", "accuracy_loss")


@dataclass(frozen=True)
class TransferDefinition:
    """A request: `fraction` of the prompt groups are calibration rows, the rest evaluates."""

    axis_id: str
    model_ids: tuple[str, ...]
    prompt_set: str
    target: str = BALANCED_ACCURACY
    fraction: float = 0.5
    least_overlap: float = LEAST_OVERLAP
    seed: int = 0
    allow_missing: bool = False


def run_transfer(warehouse: Warehouse, definition: TransferDefinition) -> str:
    """Evaluate every model's threshold on every model; the id that the rows are stored under.

    Prompts that are nearly the same text, or of one pair, are all calibration rows or all
    evaluation rows. Stored rows are not computed again. Raises `CoverageError` where projections
    are missing, or for fewer than two models.
    """
    scores = [
        read_scores(
            warehouse,
            definition.axis_id,
            model_id,
            definition.prompt_set,
            allow_missing=definition.allow_missing,
        )
        for model_id in definition.model_ids
    ]
    if len(scores) < 2:
        raise CoverageError("a threshold is transferred between models: at least two are needed")
    names = [each.model for each in scores]
    if len(set(names)) < len(names):
        raise ModelError(
            f"two versions of one model among {', '.join(names)}: say which with --model NAME@ID"
        )
    scores = on_shared_prompts(scores)
    study_id = content_key(
        "transfer", _VERSION, asdict(definition), [each.row_set_hash for each in scores]
    )
    evaluate_once(
        warehouse, "transfer", study_id, asdict(definition), lambda _: _rows(definition, scores)
    )
    return study_id


def _rows(definition: TransferDefinition, scores: Sequence[LabelledScores]) -> list[Evaluation]:
    """The matrix and the curve, as rows."""
    first, labels = scores[0], scores[0].labels
    clusters = near_duplicate_clusters(
        first.texts.to_pylist(), least_overlap=definition.least_overlap
    )
    groups = joined_groups(first.groups, clusters)
    is_calibration = held_out_groups(
        labels, groups, fraction=definition.fraction, seed=definition.seed
    )
    models = [ModelScores(each.model, each.values) for each in scores]
    split, target, seed = (labels, groups, is_calibration), definition.target, definition.seed
    rows = [
        *_matrix_rows(transfer_matrix(models, *split, target=target, seed=seed)),
        *(
            Evaluation.of(
                point.method,
                "balanced_accuracy_by_labelled",
                point.balanced_accuracy,
                model=point.judged_on,
                fitted_on=f"{point.labelled_count} prompts",
                component=point.labelled_count,
            )
            for point in labelled_curve(models, *split, target=target, seed=seed)
        ),
    ]
    model_ids = {each.model: each.model_id for each in scores}
    return [
        replace(
            row,
            model_id=model_ids[str(row.model)],
            prompt_set=definition.prompt_set,
            axis_id=definition.axis_id,
            positive_count=int(labels[~is_calibration].sum()),
            negative_count=int((~labels[~is_calibration]).sum()),
            # Whether the axis was fitted on them: the thresholds never were.
            is_in_sample=bool(first.is_in_sample[~is_calibration].any()),
        )
        for row in rows
    ]


def _matrix_rows(cells: Sequence[Transfer]) -> list[Evaluation]:
    """A row for each metric of each cell; p-values adjusted (Holm) over the pairs of a method."""
    rows = []
    for method in dict.fromkeys(cell.method for cell in cells):
        for metric in _METRICS:
            tested = [
                Evaluation.of(
                    method,
                    metric,
                    getattr(cell, metric),
                    model=cell.judged_on,
                    fitted_on=cell.fitted_on,
                )
                for cell in cells
                if cell.method == method
            ]
            # A model's threshold on the model itself is no test of transfer.
            p_values = np.array(
                [None if row.model == row.fitted_on else row.p_value for row in tested],
                dtype=np.float64,
            )
            rows += [
                replace(
                    row,
                    p_value=None if np.isnan(p_value) else float(p_value),
                    p_value_adjusted=None if np.isnan(corrected) else float(corrected),
                )
                for row, p_value, corrected in zip(
                    tested, p_values, adjusted(p_values), strict=True
                )
            ]
    return rows


@dataclass(frozen=True)
class ModelScores:
    """One model's projections of the prompts that all models share."""

    model: str
    values: Scores


@dataclass(frozen=True)
class Transfer:
    """What the threshold of `fitted_on` does on the evaluation rows of `judged_on`.

    `false_positive_shift` and `accuracy_loss` compare with the threshold that this model's
    calibration rows give, on the same resamples: rate minus that one's rate, that one's balanced
    accuracy minus this one's.
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
    labels: Labels,
    groups: Groups,
    is_calibration: Labels,
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
    # The rows of either part, and how often each resample draws them, [resample, row of the part].
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
    values = np.stack([each.values for each in scores])
    once = (np.ones(len(parts[0]), dtype=np.int64), np.ones(len(parts[1]), dtype=np.int64))
    cells = []
    for method in (UNCALIBRATED, *CALIBRATIONS):
        # [resample, rate, fitted on, judged on], all rows first; rates of true and false positives.
        rates = np.stack(
            [
                _rates(values, labels, parts, counts, method, target)
                for counts in (once, *zip(*drawn, strict=True))
            ]
        )
        false_rate = rates[:, 1]
        accuracy = (rates[:, 0] + 1 - false_rate) / 2
        # A model's threshold on itself, the diagonal, as [resample, 1, judged on].
        own = np.arange(len(scores))
        shift = false_rate - false_rate[:, own, own][:, None, :]
        loss = accuracy[:, own, own][:, None, :] - accuracy
        cells += [
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
    return cells


def _rates(
    values: Float[np.ndarray, "model row"],
    labels: Labels,
    parts: Sequence[Int[np.ndarray, " part"]],
    counts: Sequence[Int[np.ndarray, " part"]],
    method: str,
    target: str,
) -> Float[np.ndarray, "2 fitted judged"]:
    """True and false positive rates of every threshold on every model, in one resample."""
    seen = np.repeat(parts[0], counts[0])
    truth = labels[parts[1]]
    scales, thresholds = [], []
    for projections in values:
        scale = projections[parts[1]]
        fitted_on = projections[seen]
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


def labelled_curve(
    scores: Sequence[ModelScores],
    labels: Labels,
    groups: Groups,
    is_calibration: Labels,
    *,
    target: str = BALANCED_ACCURACY,
    labelled_counts: Sequence[int] = LABELLED_COUNTS,
    draw_count: int = 200,
    seed: int = 0,
) -> list[CurvePoint]:
    """How a model's own threshold does by how many labelled prompts it is chosen on.

    `threshold`: chosen on the draw alone. `z_score`: on the other models' calibration rows, on the
    scale that the draw's mean and deviation give, which takes no labels of this model. Draws are of
    whole groups within the calibration rows, as many of each class as may be; counts above the
    number of calibration rows are left out.
    """
    pool, evaluated = np.flatnonzero(is_calibration), np.flatnonzero(~is_calibration)
    draws = {
        count: [
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
        for count in labelled_counts
        if count <= len(pool)
    }
    points = []
    for own in scores:
        # Of the other models: one threshold for their calibration rows, each on its z-scale.
        others = [each.values[pool] for each in scores if each is not own]
        borrowed = None
        if others:
            pooled = np.concatenate([_standardised(values, values) for values in others])
            borrowed = choose_threshold(pooled, np.tile(labels[pool], len(others)), target)
        values, truth = own.values[evaluated], labels[evaluated]
        for count, drawn in draws.items():
            called = {
                "threshold": [
                    values >= choose_threshold(own.values[rows], labels[rows], target)
                    for rows in drawn
                ]
            }
            if borrowed is not None:
                called["z_score"] = [
                    _standardised(values, own.values[rows]) >= borrowed for rows in drawn
                ]
            points += [
                CurvePoint(method, own.model, count, _accuracy_over_draws(calls, truth))
                for method, calls in called.items()
            ]
    return points


def _standardised(values: Scores, fitted_on: Float[np.ndarray, " fitted"]) -> Scores:
    return (values - fitted_on.mean()) / fitted_on.std(ddof=1)


def _accuracy_over_draws(calls: Sequence[Labels], truth: Labels) -> Estimate:
    """Balanced accuracy: the mean of the draws, and their 2.5th and 97.5th percentile."""
    values = [float((called[truth].mean() + 1 - called[~truth].mean()) / 2) for called in calls]
    lower, upper = np.quantile(values, [0.025, 0.975])
    return Estimate(float(np.mean(values)), float(lower), float(upper))
