"""Erase a concept with one affine map, and measure what a newly trained probe can still separate.

LEACE (Belrose et al. 2023, arXiv 2306.03819): of all affine maps after which no linear predictor
does better than a constant one on the fitted rows, the one that changes them least. With two
classes it removes one direction, obliquely: `x -> x - d (d' C^-1 (x - m)) / (d' C^-1 d)`, with
`d` the difference in means, `C` the covariance and `m` the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import BLOCK_BYTES, mean, project
from axes.analysis.methods.covariance import shrunk_covariance
from axes.analysis.methods.directions import difference_in_means, fit_direction
from axes.analysis.methods.logistic import logistic_fitter
from axes.analysis.stats.auroc import Groups, Labels, Scores
from axes.analysis.stats.splits import grouped_folds, out_of_fold
from axes.warehouse.errors import LabelError
from axes.warehouse.layers import Rows

_FOLDS = 4


@dataclass(frozen=True)
class Eraser:
    """The map `x -> x - direction (functional . (x - mean))`."""

    direction: Float[np.ndarray, " d_model"]
    functional: Float[np.ndarray, " d_model"]
    mean: Float[np.ndarray, " d_model"]

    def apply(self, x: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, "row d_model"]:
        """The rows with the concept erased."""
        return x - np.outer((x - self.mean) @ self.functional, self.direction)


def leace(x: Rows, labels: Labels, where: Labels | None = None) -> Eraser:
    """The least-squares eraser of two classes, its covariance shrunk (Ledoit and Wolf 2004)."""
    covariance = shrunk_covariance(x, where)
    difference = difference_in_means(x, labels, where).vector
    functional = covariance.solve(difference)
    return Eraser(difference, functional / (functional @ difference), covariance.mean)


# Rows as they are, without the direction, and erased; by probes that are trained on the rows that
# the eraser was fitted on, or (`before_fresh`, ...) on new ones.
_STATES = ("before", "direction_removed", "erased")
STATES = (*_STATES, *(f"{state}_fresh" for state in _STATES))


def can_evaluate_erasure(labels: Labels, groups: Groups) -> bool:
    """Whether each class lies in as many groups as there are folds."""
    return min(len(np.unique(groups[labels == kind])) for kind in (True, False)) >= _FOLDS


def erasure_scores(
    x: Rows, labels: Labels, groups: Groups, *, method: str = "mean_diff", seed: int = 0
) -> dict[str, Scores]:
    """Out-of-fold scores of linear probes on the rows in each of `STATES`, four folds of groups.

    Raises `LabelError` where a class lies in fewer than four groups.

    The fresh probe is trained on two of the other folds, the direction and the eraser are fitted on
    the third: what it separates is what the eraser missed. `before_fresh` is trained on the same
    two folds, to compare with. Every row is scored about the middle of its
    probe's classes in standard deviations of its training rows, so that folds compare.
    """
    if not can_evaluate_erasure(labels, groups):
        raise LabelError(f"erasure is evaluated on {_FOLDS} folds, and a class has fewer groups")
    folds = grouped_folds(labels, groups, fold_count=_FOLDS, seed=seed)
    names = np.unique(folds)
    following = dict(zip(names, np.roll(names, -1), strict=True))

    def fit(seen: Labels) -> Float[np.ndarray, "state row"]:
        third = folds == following[folds[~seen][0]]
        scores = []
        for fitted, trained in ((seen, seen), (third, seen & ~third)):
            direction = fit_direction(method, x, labels, groups, fitted).vector
            removal = Eraser(direction, direction, mean(x, fitted))
            erasers = (None, removal, leace(x, labels, fitted))
            scores += [probe_scores(_Erased(x, eraser), labels, trained) for eraser in erasers]
        return np.stack(scores)

    return dict(zip(STATES, out_of_fold(fit, folds), strict=True))


@dataclass(frozen=True)
class _Erased:
    """Erased rows, computed block by block."""

    x: Rows
    eraser: Eraser | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.x[part] if self.eraser is None else self.eraser.apply(self.x[part])


def probe_scores(x: Any, labels: Labels, trained: Labels) -> Scores:
    """Scores of all rows by a logistic regression on the trained ones."""
    if 4 * len(x) * x.shape[1] <= BLOCK_BYTES:  # Erased once, not each time they are gone through.
        x = x[:]
    scores = project(x, logistic_fitter(x, trained)(labels))
    middle = (scores[trained & labels].mean() + scores[trained & ~labels].mean()) / 2
    return (scores - middle) / (scores[trained].std() or 1.0)
