"""AUROCs out of fold with intervals that hold although every row is fitted on as well.

DeLong's variance takes fits as given and rows as independent. Out of fold a row is evaluated by
fits on the others, and moves the fits that evaluate the others: the variance has a second term, the
sum over rows of what a row moves the AUROC by as an evaluated one times what it moves it by as a
fitted one (docs/methods.md, AUROC, derives it). Refits leave out one of 20 blocks of groups, and
Student's quantile with 19 degrees of freedom stands for how few they are. Folds are drawn ten
times, as one draw may move an AUROC by several hundredths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from axes.analysis.stats.auroc import (
    Estimate,
    Groups,
    Labels,
    area_estimate,
    aurocs,
    difference_estimate,
    influences,
)
from axes.analysis.stats.evaluate import point_metrics
from axes.analysis.stats.splits import grouped_folds

REPEATS = 10
BLOCKS = 20
# Fewer groups in a class leave refits without a class.
_MIN_BLOCKS = 10


@dataclass(frozen=True)
class OutOfFold:
    """Scorers evaluated out of fold; `scores` by each draw of folds, the first one of seed 0.

    `moved` and `refitted` are `U` and `T` of the module, summed by block; None with too few groups.
    """

    scores: Float[np.ndarray, "repeat scorer row"]
    areas: Float[np.ndarray, " scorer"]
    group_count: int
    moved: Float[np.ndarray, "group scorer"] | None
    moved_by_block: Float[np.ndarray, "block scorer"] | None
    refitted: Float[np.ndarray, "block scorer"] | None

    def area(self, scorer: int) -> Estimate:
        """AUROC of a scorer, with its 95 % interval."""
        weights = np.zeros(len(self.areas))
        weights[scorer] = 1.0
        variance = self._variance(weights)
        area = float(self.areas[scorer])
        if variance is None:
            return Estimate(area)
        return area_estimate(area, variance, self.group_count, self._df)

    def metrics(self, scorer: int, labels: Labels, groups: Groups) -> dict[str, Estimate]:
        """The area, its range over the draws of folds, and other metrics by the first of these."""
        points = point_metrics(self.scores[0, scorer], labels, groups)
        drawn = aurocs(self.scores[:, scorer], labels)
        ends = Estimate(float(drawn.mean()), float(drawn.min()), float(drawn.max()))
        return {"auroc": self.area(scorer), "auroc_by_fold_draw": ends, **points}

    def difference(self, first: int, second: int) -> Estimate:
        """AUROC of one scorer minus that of another, with its 95 % interval and p-value."""
        weights = np.zeros(len(self.areas))
        weights[first] += 1.0
        weights[second] -= 1.0
        variance = self._variance(weights)
        difference = float(self.areas @ weights)
        if variance is None:
            return Estimate(difference)
        return difference_estimate(difference, variance, self._df)

    @property
    def _df(self) -> float:
        return np.inf if self.refitted is None else len(self.refitted) - 1

    def _variance(self, weights: Float[np.ndarray, " scorer"]) -> float | None:
        """The variance of a weighted sum of AUROCs."""
        if self.moved is None:
            return None
        moved = self.moved @ weights
        evaluated = float(moved @ moved)
        if self.moved_by_block is None or self.refitted is None:
            return 2 * evaluated
        count = len(self.refitted)
        crossed = float((self.moved_by_block @ weights) @ (self.refitted @ weights))
        return evaluated + float(np.clip(crossed * count / (count - 1), 0.0, evaluated))


# Rows of the draws of folds that one call fits: all draws at once of a usual prompt set, and of a
# large one no more scores than memory takes.
_ROWS_AT_ONCE = 100_000

# Masks of the rows to fit on -> the scores of all rows by each of these fits.
Fit = Callable[[Bool[np.ndarray, "fit row"]], Float[np.ndarray, "fit scorer row"]]


def evaluate_out_of_fold(
    fit: Fit,
    labels: Labels,
    groups: Groups,
    *,
    seed: int = 0,
) -> OutOfFold:
    """Evaluate what `fit` fits on masks of rows, giving every row's scores, on rows not seen.

    All that depends on labels belongs into `fit`. There are 150 fits, many in a call: five folds
    drawn ten times, and for the first draw without each of 20 blocks of groups. With fewer than ten
    groups in a class there are no blocks, and the variance is the largest possible, twice DeLong's.
    Raises `LabelError` where a class lies in a single group.
    """
    draws = [grouped_folds(labels, groups, seed=seed + repeat) for repeat in range(REPEATS)]
    scores = _unseen(fit, draws, np.ones((REPEATS, len(labels)), dtype=bool))
    areas = np.stack([aurocs(each, labels) for each in scores])
    parts = [influences(each, labels, groups) for each in scores]
    moved = None if parts[0] is None else np.mean([part for part in parts if part is not None], 0)
    by_block, refitted = None, None
    blocks = grouped_folds(labels, groups, fold_count=BLOCKS, seed=seed + REPEATS)
    count = int(blocks.max()) + 1
    if moved is not None and count >= _MIN_BLOCKS:
        others = blocks != np.arange(count)[:, None]
        refits = _unseen(fit, [draws[0]] * count, others)
        without = np.stack([aurocs(each, labels) for each in refits])
        # What a block of n / count rows adds, by what the rest comes to without it.
        refitted = (without.mean(axis=0) - without) * (count - 1) / count
        first = np.unique(groups, return_index=True)[1]
        by_block = np.zeros((count, scores.shape[1]))
        np.add.at(by_block, blocks[first], moved)
    return OutOfFold(scores, areas.mean(axis=0), len(np.unique(groups)), moved, by_block, refitted)


def _unseen(
    fit: Fit, draws: Sequence[Groups], kept: Bool[np.ndarray, "draw row"]
) -> Float[np.ndarray, "draw scorer row"]:
    """Each row's scores by the fits on the rows kept of the other folds, for each draw of folds."""
    rows = np.arange(kept.shape[1])
    step = max(_ROWS_AT_ONCE // len(rows), 1)
    scores: list[np.ndarray] = []
    for start in range(0, len(draws), step):
        some = draws[start : start + step]
        masks = [
            (folds != np.arange(folds.max() + 1)[:, None]) & each
            for folds, each in zip(some, kept[start : start + step], strict=True)
        ]
        fits = fit(np.concatenate(masks))
        # Each draw's fits lie behind those of the draws before: one a fold.
        firsts = np.cumsum([0, *map(len, masks[:-1])])
        pairs = zip(firsts, some, strict=True)
        scores += [fits[first + folds, :, rows].T for first, folds in pairs]
    return np.stack(scores)
