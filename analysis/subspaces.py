"""The subspace of a concept that has several directions, and how many of them it needs.

Positive prompts may lie in several directions from the negative ones, to either side, so that their
mean says little (arXiv 2602.02132, 2507.21141). The second moment of the positive rows about the
mean of the negative ones, less the negative rows' covariance, is the concept's alone if both
classes vary alike besides: its leading eigenvectors are the basis. The score is a logistic
regression on the coordinates and their squares, which ranks by direction and by distance.

A stored subspace is its basis vectors, each an axis of the kind `subspace` with a projection for
every prompt, and what they share in `parameters`; `v_subspace_scores` computes the scores of that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from jaxtyping import Float

from axes.analysis.activations import Matrix, Space, require_classes
from axes.analysis.methods.directions import Direction
from axes.analysis.methods.erasure import probe_scores
from axes.analysis.methods.logistic import logistic_fitter
from axes.analysis.methods.nulls import shuffled_labellings
from axes.analysis.registry import make_axis
from axes.analysis.stats.auroc import Groups, Labels, aurocs
from axes.analysis.stats.splits import grouped_folds, out_of_fold
from axes.warehouse.axes import Axis, find_axes, read_axes
from axes.warehouse.errors import AxisError
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import Rows
from axes.warehouse.writer import content_key

_SHUFFLES = 20
_RANDOM_COUNT, _SEED = 200, 20_260_202


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

    `norms` are the lengths of the coordinates; `angles` is the largest principal angle between the
    subspaces of two halves of the groups.
    """

    scores: Float[np.ndarray, "rank row"]
    norms: Float[np.ndarray, "rank row"]
    shuffled: Float[np.ndarray, "shuffle rank"]
    angles: Float[np.ndarray, " rank"]


def fit_subspace(x: Float[np.ndarray, "row d_model"], labels: Labels, rank: int) -> Subspace:
    """The subspace of a labelled set's concept; the mean positive coordinates are not negative."""
    centre = x[~labels].mean(axis=0, dtype=np.float64)
    values, span = x - centre, None
    if 2 * len(values) < values.shape[1]:
        # The eigenvectors lie in the span of the rows, where products are small.
        span, small = scipy.linalg.qr(values.T, mode="economic")
        values = small.T
    moments = [part.T @ part for part in (values[labels], values[~labels])]
    excess = moments[0] / labels.sum() - moments[1] / max((~labels).sum() - 1, 1)
    last = len(excess) - 1
    _, vectors = scipy.linalg.eigh(excess, subset_by_index=[max(last + 1 - rank, 0), last])
    vectors = vectors[:, ::-1]
    vectors = np.where(values[labels].mean(axis=0) @ vectors < 0, -vectors, vectors)
    return Subspace(vectors if span is None else span @ vectors, centre)


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

    def scores_of(kinds: Labels) -> Float[np.ndarray, "score rank row"]:
        def fit(seen: Labels) -> Float[np.ndarray, "score rank row"]:
            along = fit_subspace(values[seen], kinds[seen], max_rank).project(values)
            parts = [along[:, :rank] for rank in range(1, max_rank + 1)]
            combined = [probe_scores(_with_squares(part), kinds, seen) for part in parts]
            return np.stack([combined, [np.linalg.norm(part, axis=1) for part in parts]])

        return out_of_fold(fit, folds)

    half = grouped_folds(labels, groups, fold_count=2, seed=seed) == 0
    halves = [fit_subspace(values[part], labels[part], max_rank) for part in (half, ~half)]
    angles = [halves[0].cut(rank).angles(halves[1].cut(rank))[0] for rank in range(1, max_rank + 1)]
    shuffled = shuffled_labellings(labels, groups, _SHUFFLES, random)
    nulls = np.stack([aurocs(scores_of(kinds)[0], kinds) for kinds in shuffled])
    scores, norms = scores_of(labels)
    return RankCurve(scores, norms, nulls, np.array(angles))


def _with_squares(along: Float[np.ndarray, "row rank"]) -> Float[np.ndarray, "row feature"]:
    return np.hstack([along, np.square(along)])


def subspace_axes(
    warehouse: Warehouse, space: Space, matrix: Matrix, prompt_set: str, rank: int
) -> list[Axis]:
    """The basis of the subspace of `rank` dimensions as axes, fitted unless they are registered.

    `raw_norm` is the root mean square of the positive rows' coordinates. Raises `AxisError` for a
    rank above what the rows give.
    """
    require_classes(matrix, prompt_set)
    labels = matrix.labels
    limit = min(space.d_model, int(labels.sum()))
    if rank > limit:
        raise AxisError(
            f"{limit} is the highest rank that {labels.sum()} positive prompts of {prompt_set} "
            f"and {space.d_model} dimensions of {space.model} give, not {rank}"
        )
    shared = make_axis(
        "subspace",
        "second_moment",
        space,
        lambda: Direction(np.zeros(0), 0.0),  # Each vector is set below.
        matrix,
        prompt_set,
        label=space.model,
        variant=(f"rank-{rank}",),
        fitted_model=space.model,
    )
    subspace_id = content_key(shared.axis_id, rank)
    axis_ids = [content_key(subspace_id, place) for place in range(1, rank + 1)]
    if warehouse.column("select 1 from axes where axis_id = ?", axis_ids[:1]):
        return read_axes(warehouse, axis_ids)
    x = np.asarray(matrix.x[:], dtype=np.float64)
    found = fit_subspace(x, labels, rank)
    # As stored, so that scores follow from the stored vectors.
    found = replace(found, basis=found.basis.astype(np.float32).astype(np.float64))
    along = found.project(x)
    features = _with_squares(along)
    weights = logistic_fitter(features)(labels)
    scores = features @ weights
    parameters = {
        "subspace": shared.name,
        "subspace_id": subspace_id,
        "rank": rank,
        "weights": weights.tolist(),
        "intercept": -(scores[labels].mean() + scores[~labels].mean()) / 2,
    }
    offsets, sizes = found.centre @ found.basis, np.square(along[labels]).mean(axis=0)
    return [
        replace(
            shared,
            axis_id=axis_id,
            name=f"{shared.name}/{place + 1}",
            vector=found.basis[:, place],
            raw_norm=float(np.sqrt(sizes[place])),
            parameters=json.dumps({**parameters, "component": place + 1, "offset": offsets[place]}),
        )
        for place, axis_id in enumerate(axis_ids)
    ]


@dataclass(frozen=True)
class PrincipalAngle:
    """A principal angle in degrees; `random_lower`: 5th percentile with random second subspaces."""

    component: int
    angle: float
    random_lower: float


def principal_angles(warehouse: Warehouse, first: str, second: str) -> list[PrincipalAngle]:
    """Angles between two subspaces or axes (names as of `find_axes`), the smallest first.

    Raises `AxisError` unless both lie in one model version's space at one layer and site.
    """
    found = [find_axes(warehouse, name) for name in (first, second)]
    spaces = [axes[0].space for axes in found]
    if len({(space.model_id, space.layer, space.site) for space in spaces}) > 1:
        places = [f"layer {space.layer} of {space.model} ({space.site})" for space in spaces]
        raise AxisError(f"no angle: {first} is in {places[0]}, {second} in {places[1]}")
    basis, other = (np.stack([axis.vector for axis in axes], axis=1) for axes in found)
    random = np.random.default_rng(_SEED).standard_normal((_RANDOM_COUNT, *other.shape))
    angles, *drawn = (
        np.degrees(scipy.linalg.subspace_angles(basis, each))[::-1] for each in (other, *random)
    )
    rows = zip(angles.tolist(), np.quantile(drawn, 0.05, axis=0).tolist(), strict=True)
    return [PrincipalAngle(component, *row) for component, row in enumerate(rows, 1)]
