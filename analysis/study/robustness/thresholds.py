"""Threshold transfer: does a threshold fitted on one model hold on another (`axes transfer`)?

A threshold is chosen on the calibration rows of one model and applied to the evaluation rows of
another, uncalibrated and after each calibration; both parts are the same prompts for every model.
How few labelled prompts of a model restore its threshold is the same question with a small draw of
its calibration rows. The matrix and the curve of one axis go into `evaluations`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from axes.analysis.stats.splits import LEAST_OVERLAP, held_out_groups, unsplit_groups
from axes.analysis.study.evaluations import Evaluation, corrected, evaluate_once
from axes.analysis.study.fit import on_shared_prompts
from axes.warehouse.errors import CoverageError, ModelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.writer import content_key

UNCALIBRATED = "uncalibrated"
LABELLED_COUNTS = (10, 20, 50, 100, 200, 500)
# Raised whenever the metrics of an unchanged definition would change.
_VERSION = 1
_TESTED = ("false_positive_shift", "accuracy_loss")


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
    groups = unsplit_groups(
        first.groups, first.texts.to_pylist(), least_overlap=definition.least_overlap
    )
    is_calibration = held_out_groups(
        labels, groups, fraction=definition.fraction, seed=definition.seed
    )
    values = {each.model: each.values for each in scores}
    split, target, seed = (labels, groups, is_calibration), definition.target, definition.seed
    rows = [
        *transfer_matrix(values, *split, target=target, seed=seed),
        *labelled_curve(values, *split, target=target, seed=seed),
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


def transfer_matrix(
    scores: Mapping[str, Scores],
    labels: Labels,
    groups: Groups,
    is_calibration: Labels,
    *,
    target: str = BALANCED_ACCURACY,
    resample_count: int = 500,
    seed: int = 0,
) -> list[Evaluation]:
    """Every model's threshold on every model, uncalibrated and after each calibration.

    `scores` are the models' projections of the same prompts. A row says what the threshold of
    `fitted_on` does on the evaluation rows of `model`, and how that compares with the model's, on
    the same resamples of both parts (docs/methods.md, Threshold transfer). p-values are adjusted
    (Holm) over the pairs of a method.
    """
    # The rows of either part, and how often each resample draws them, [resample, row of the part].
    parts = [np.flatnonzero(is_calibration), np.flatnonzero(~is_calibration)]
    drawn = []
    for index, rows in enumerate(parts):
        kinds = {"strata": labels[rows], "groups": groups[rows]}
        drawn.append(draw_counts(len(rows), **kinds, count=resample_count, seed=seed + index))
    values = np.stack(list(scores.values()))
    once = tuple(np.ones(len(rows), dtype=np.int64) for rows in parts)
    evaluations = []
    for method in (UNCALIBRATED, *CALIBRATIONS):
        # [resample, rate, fitted on, judged on], all rows first; rates of true and false positives.
        rates = np.stack(
            [
                _rates(values, labels, parts, counts, method, target)
                for counts in (once, *zip(*drawn, strict=True))
            ]
        )
        evaluations += [
            Evaluation.of(
                method,
                metric,
                percentile_interval(
                    float(by_resample[0, i, j]),
                    by_resample[1:, i, j],
                    # A model's threshold on the model itself is no test of transfer.
                    is_tested=metric in _TESTED and i != j,
                ),
                model=judged_on,
                fitted_on=fitted_on,
            )
            for metric, by_resample in _metrics(rates).items()
            for i, fitted_on in enumerate(scores)
            for j, judged_on in enumerate(scores)
        ]
    return corrected(evaluations, by=("scorer", "metric"))


def _metrics(
    rates: Float[np.ndarray, "resample 2 fitted judged"],
) -> dict[str, Float[np.ndarray, "resample fitted judged"]]:
    """What true and false positive rates come to, also compared with each model's threshold."""
    false_rate = rates[:, 1]
    accuracy = (rates[:, 0] + 1 - false_rate) / 2
    # A model's threshold on itself, the diagonal, as [resample, 1, judged on].
    own = np.arange(rates.shape[-1])
    return {
        "balanced_accuracy": accuracy,
        "false_positive_rate": false_rate,
        "false_positive_shift": false_rate - false_rate[:, own, own][:, None, :],
        "accuracy_loss": accuracy[:, own, own][:, None, :] - accuracy,
    }


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


def labelled_curve(
    scores: Mapping[str, Scores],
    labels: Labels,
    groups: Groups,
    is_calibration: Labels,
    *,
    target: str = BALANCED_ACCURACY,
    draw_count: int = 200,
    seed: int = 0,
) -> list[Evaluation]:
    """How a model's own threshold does by how many labelled prompts (`component`) it is chosen on.

    The ends of an estimate are the 2.5th and 97.5th percentile of the draws.

    `threshold`: chosen on the draw alone. `z_score`: on the other models' calibration rows, on the
    scale that the draw's mean and deviation give, which takes no labels of this model. Draws are of
    whole groups within the calibration rows, as many of each class as may be; counts above the
    number of calibration rows are left out.
    """
    pool, evaluated = np.flatnonzero(is_calibration), np.flatnonzero(~is_calibration)
    draws = _labelled_draws(labels, groups, pool, draw_count, seed)
    points = []
    for model, projections in scores.items():
        # Of the other models: one threshold for their calibration rows, each on its z-scale.
        others = [values[pool] for other, values in scores.items() if other != model]
        borrowed = None
        if others:
            pooled = np.concatenate([_standardised(values, values) for values in others])
            borrowed = choose_threshold(pooled, np.tile(labels[pool], len(others)), target)
        values, truth = projections[evaluated], labels[evaluated]
        for count, drawn in draws.items():
            called = {
                "threshold": [
                    values >= choose_threshold(projections[rows], labels[rows], target)
                    for rows in drawn
                ]
            }
            if borrowed is not None:
                called["z_score"] = [
                    _standardised(values, projections[rows]) >= borrowed for rows in drawn
                ]
            points += [
                Evaluation.of(
                    method,
                    "balanced_accuracy_by_labelled",
                    _accuracy_over_draws(calls, truth),
                    model=model,
                    fitted_on=f"{count} prompts",
                    component=count,
                )
                for method, calls in called.items()
            ]
    return points


def _labelled_draws(
    labels: Labels, groups: Groups, pool: Int[np.ndarray, " part"], draw_count: int, seed: int
) -> dict[int, list[Int[np.ndarray, " drawn"]]]:
    """For each count of labelled prompts the rows of every draw, out of the rows of `pool`."""
    return {
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
        for count in LABELLED_COUNTS
        if count <= len(pool)
    }


def _standardised(values: Scores, fitted_on: Float[np.ndarray, " fitted"]) -> Scores:
    return (values - fitted_on.mean()) / fitted_on.std(ddof=1)


def _accuracy_over_draws(calls: Sequence[Labels], truth: Labels) -> Estimate:
    """Balanced accuracy: the mean of the draws, and their 2.5th and 97.5th percentile."""
    values = [float((called[truth].mean() + 1 - called[~truth].mean()) / 2) for called in calls]
    lower, upper = np.quantile(values, [0.025, 0.975])
    return Estimate(float(np.mean(values)), float(lower), float(upper))
