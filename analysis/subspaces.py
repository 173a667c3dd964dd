"""The subspace of a concept that has several directions, and how many of them it needs.

Positive prompts may lie in several directions from the negative ones, to either side, so that their
mean says little (arXiv 2602.02132, 2507.21141). The second moment of the positive rows about the
mean of the negative ones, less the negative rows' covariance, is the concept's alone if both
classes vary alike besides: its leading eigenvectors are the basis. The score is a logistic
regression on the coordinates and their squares, which ranks by direction and by distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float

from axes.analysis.methods.erasure import probe_scores
from axes.analysis.methods.nulls import shuffled_labellings
from axes.analysis.stats.auroc import Groups, Labels, Scores, aurocs
from axes.analysis.stats.splits import grouped_folds, out_of_fold
from axes.warehouse.layers import Rows

_SHUFFLES = 20


@dataclass(frozen=True)
class Subspace:
    """Orthonormal directions about the mean of the negative class, the strongest first."""

    basis: Float[np.ndarray, "d_model rank"]
    centre: Float[np.ndarray, " d_model"]

    def project(self, x: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, "row rank"]:
        """Coordinates of rows; their norm is the distance from the negative mean within it."""
        return (x - self.centre) @ self.basis

    def cut(self, rank: int) -> Subspace:
        """The first directions alone."""
        return Subspace(self.basis[:, :rank], self.centre)

    def angles(self, other: Subspace) -> Float[np.ndarray, " rank"]:
        """Principal angles in degrees, the largest first (Bjorck and Golub 1973)."""
        return np.degrees(scipy.linalg.subspace_angles(self.basis, other.basis))


@dataclass(frozen=True)
class RankCurve:
    """Out-of-fold scores by rank from 1, AUROCs of shuffled labels, and angles between halves.

    `angles` is the largest principal angle between the subspaces of two halves of the groups.
    """

    scores: Float[np.ndarray, "rank row"]
    shuffled: Float[np.ndarray, "shuffle rank"]
    angles: Float[np.ndarray, " rank"]


def fit_subspace(x: Float[np.ndarray, "row d_model"], labels: Labels, rank: int) -> Subspace:
    """The subspace of a labelled set's concept; two rows or more of each class."""
    centre, width = x[~labels].mean(axis=0, dtype=np.float64), x.shape[1]
    moments = [(part - centre).T @ (part - centre) for part in (x[labels], x[~labels])]
    excess = moments[0] / labels.sum() - moments[1] / ((~labels).sum() - 1)
    _, vectors = scipy.linalg.eigh(excess, subset_by_index=[max(width - rank, 0), width - 1])
    return Subspace(vectors[:, ::-1], centre)


def rank_curve(
    x: Rows, labels: Labels, groups: Groups, *, max_rank: int, seed: int = 0
) -> RankCurve:
    """Evaluate subspaces of rank 1 to `max_rank` on rows that neither they nor the score saw."""
    values = np.asarray(x[:], dtype=np.float64)
    values -= values.mean(axis=0)
    if len(values) < values.shape[1]:
        # Coordinates in the span of the rows: distances and angles stay, products are small.
        values = scipy.linalg.qr(values.T, mode="economic")[1].T
    max_rank = min(max_rank, values.shape[1])
    folds, random = grouped_folds(labels, groups, seed=seed), np.random.default_rng(seed)

    def scores_of(kinds: Labels) -> Float[np.ndarray, "rank row"]:
        def fit(seen: Labels) -> Float[np.ndarray, "rank row"]:
            along = fit_subspace(values[seen], kinds[seen], max_rank).project(values)
            return np.stack(
                [_combined(along[:, :rank], kinds, seen) for rank in range(1, max_rank + 1)]
            )

        return out_of_fold(fit, folds)

    half = grouped_folds(labels, groups, fold_count=2, seed=seed) == 0
    halves = [fit_subspace(values[part], labels[part], max_rank) for part in (half, ~half)]
    angles = [halves[0].cut(rank).angles(halves[1].cut(rank))[0] for rank in range(1, max_rank + 1)]
    shuffled = shuffled_labellings(labels, groups, _SHUFFLES, random)
    nulls = np.stack([aurocs(scores_of(kinds), kinds) for kinds in shuffled])
    return RankCurve(scores_of(labels), nulls, np.array(angles))


def _combined(along: Float[np.ndarray, "row rank"], labels: Labels, seen: Labels) -> Scores:
    return probe_scores(np.hstack([along, np.square(along)]), labels, seen)
