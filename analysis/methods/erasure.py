"""Erase a concept with one affine map, and measure what a newly trained probe can still separate.

LEACE (Belrose et al. 2023, arXiv 2306.03819): of all affine maps after which no linear predictor
does better than a constant one on the fitted rows, the one that changes them least. With two
classes it removes one direction, obliquely: `x -> x - d (d' C^-1 (x - m)) / (d' C^-1 d)`, with
`d` the difference in means, `C` the covariance and `m` the mean. Any functional in the place of
`d' C^-1` makes the class means equal; this one moves the rows least on average. Removing
a direction `u` alone, `x -> x - u (u' (x - m))`, makes the means equal too where `u` is their
difference; of any other direction it leaves the rest of what separates the classes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import mean, project
from axes.analysis.methods.covariance import shrunk_covariance
from axes.analysis.methods.directions import difference_in_means, fit_direction
from axes.analysis.methods.logistic import logistic_fitter
from axes.analysis.stats.auroc import Groups, Labels, Scores
from axes.analysis.stats.splits import grouped_folds
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


def removal(direction: Float[np.ndarray, " d_model"], mean: np.ndarray) -> Eraser:
    """Removes the component along one unit direction."""
    return Eraser(direction, direction, mean)


@dataclass(frozen=True)
class ErasureScores:
    """Out-of-fold scores of linear probes on rows as they are, without the direction, and erased.

    The probes are trained on the rows that the eraser was fitted on, or on new ones (`_fresh`).
    """

    before: Scores
    direction_removed: Scores
    erased: Scores
    before_fresh: Scores
    direction_removed_fresh: Scores
    erased_fresh: Scores


def can_evaluate_erasure(labels: Labels, groups: Groups) -> bool:
    """Whether each class lies in as many groups as there are folds."""
    return min(len(np.unique(groups[labels == kind])) for kind in (True, False)) >= _FOLDS


def erasure_scores(
    x: Rows, labels: Labels, groups: Groups, *, method: str = "mean_diff", seed: int = 0
) -> ErasureScores:
    """Evaluate each of four folds of whole groups by probes that have not seen it.

    Raises `LabelError` where a class lies in fewer than four groups.

    A probe on the rows that the eraser was fitted on separates nothing there by construction, and
    little on other rows. The fresh probe is trained on two of the other folds, the direction and
    the eraser are fitted on the third: what it separates is what the eraser missed. `before_fresh`
    is trained on the same two folds, to compare with. Every row is scored about the middle of its
    probe's classes in standard deviations of its training rows, so that folds compare.
    """
    if not can_evaluate_erasure(labels, groups):
        raise LabelError(f"erasure is evaluated on {_FOLDS} folds, and a class has fewer groups")
    folds = grouped_folds(labels, groups, fold_count=_FOLDS, seed=seed)
    names = np.unique(folds)
    scores = {field.name: np.zeros(len(labels)) for field in fields(ErasureScores)}
    for turn, name in enumerate(names):
        evaluated, third = folds == name, folds == names[(turn + 1) % len(names)]
        for suffix, fitted, trained in (
            ("", ~evaluated, ~evaluated),
            ("_fresh", third, ~evaluated & ~third),
        ):
            direction = fit_direction(method, x, labels, groups, fitted).vector
            states = {
                "before": None,
                "direction_removed": removal(direction, mean(x, fitted)),
                "erased": leace(x, labels, fitted),
            }
            for state, eraser in states.items():
                rows = _Erased(x, eraser)
                scores[state + suffix][evaluated] = _probe(rows, labels, trained, evaluated)
    return ErasureScores(**scores)


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


def _probe(x: Any, labels: Labels, trained: Labels, evaluated: Labels) -> Scores:
    """Scores of the evaluated rows by a logistic regression on the trained ones."""
    scores = project(x, logistic_fitter(x, trained)(labels))
    middle = (scores[trained & labels].mean() + scores[trained & ~labels].mean()) / 2
    return (scores[evaluated] - middle) / (scores[trained].std() or 1.0)
