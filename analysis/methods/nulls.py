"""Nulls of a direction and of a shared axis: what the same numbers come to without the concept.

docs/methods.md says which null asks what; maps are held fixed in all of them. A difference in means
is a weighting of rows, so directions fitted on any parts of them, under any labels, are one product
with the matrix, and the scores of all rows a second one; the other methods are fitted once for each
labelling. Of a shuffled alignment only the axis pulled back through it is needed, which is a
regression of one number a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Shaped

from axes.analysis.activations import blocks, mean, project_centred, take
from axes.analysis.methods.directions import direction_fitter, fit_direction
from axes.analysis.methods.maps.affine_map import Alignment
from axes.analysis.methods.maps.ridge import RidgeFitter
from axes.analysis.methods.universal import universal_axis
from axes.analysis.stats.auroc import Groups, Labels, Scores, aurocs
from axes.analysis.stats.bootstrap import draw_counts
from axes.analysis.stats.splits import grouped_folds, out_of_fold
from axes.analysis.token_rows import TokenRows
from axes.warehouse.layers import Rows

# Scores of as many shuffled labellings at a time as take this much memory.
_SCORES_BYTES = 32 << 20


@dataclass(frozen=True)
class ShuffledLabels:
    """AUROCs of directions fitted on shuffled labels, in sample and on rows not seen."""

    in_sample: Float[np.ndarray, " shuffle"]
    held_out: Float[np.ndarray, " shuffle"]


def cross_validated_scores(
    x: Rows, labels: Labels, groups: Groups, *, method: str = "mean_diff", seed: int = 0
) -> Scores:
    """Out-of-fold projections on directions of a method, five folds of whole groups.

    Each fold is projected about the midpoint of its training classes, so that folds compare.
    """
    return out_of_fold(
        lambda seen: fitted_scores(x, labels, seen, method, groups)[0],
        grouped_folds(labels, groups, seed=seed),
    )


def shuffled_labels(
    x: Rows,
    labels: Labels,
    groups: Groups,
    *,
    count: int = 200,
    method: str = "mean_diff",
    seed: int = 0,
) -> ShuffledLabels:
    """The null of a direction, by refitting it on shuffled labels.

    In many dimensions a direction fitted to noise separates the rows it was fitted on well above
    0.5, so compare an in-sample AUROC with `in_sample`, not with 0.5, and a cross-validated one
    with `held_out`, which lies about 0.5 and is the sharper test. Where every group holds both
    classes (matched pairs), labels are shuffled within groups: what the members of a pair share
    cancels in the true difference, and must cancel in its null.
    """
    drawn = shuffled_labellings(labels, groups, count, np.random.default_rng(seed))
    return _refits(x, drawn, grouped_folds(labels, groups, seed=seed), method, groups)


def control_tasks(
    x: Rows,
    types: Sequence[str],
    labels: Labels,
    groups: Groups,
    *,
    count: int = 200,
    method: str = "mean_diff",
    seed: int = 0,
) -> Float[np.ndarray, " task"]:
    """Out-of-fold AUROCs on control tasks (Hewitt and Liang 2019): what memorising types gives.

    A control task gives each type of prompt (its first word, say) one class, so that about half of
    the rows are of either. A direction that also separates such classes says little by separating
    `labels`, which only determine the folds here. Tasks that a fold would leave with one class are
    left out: with a single type, all.
    """
    random = np.random.default_rng(seed)
    type_of_row, sizes = np.unique(types, return_inverse=True, return_counts=True)[1:]
    order = random.permuted(np.tile(np.arange(len(sizes)), (count, 1)), axis=1)
    # Types in random order are positive while their middles lie in the first half of the rows.
    middles = np.cumsum(sizes[order], axis=1) - sizes[order] / 2
    is_positive = np.take_along_axis(middles, np.argsort(order, axis=1), axis=1) < len(x) / 2
    tasks = is_positive[:, type_of_row]
    folds = grouped_folds(labels, groups, seed=seed)
    for fold in np.unique(folds):
        shares = tasks[:, folds != fold].mean(axis=1)
        tasks = tasks[(shares > 0) & (shares < 1)]
    return _refits(x, tasks, folds, method, groups).held_out


def _refits(
    x: Rows, labellings: Bool[np.ndarray, "fit row"], folds: Groups, method: str, groups: Groups
) -> ShuffledLabels:
    """Directions fitted on each labelling, in sample and out of fold."""
    # A labelling needs the scores of every row by one fit a fold and one on all rows, in float64.
    step = max(_SCORES_BYTES // (8 * len(folds) * (folds.max() + 2)), 1)
    in_sample, held_out = np.empty((2, len(labellings)))
    for start in range(0, len(labellings), step):
        part = slice(start, start + step)
        fit = partial(fitted_scores, x, labellings[part], method=method, groups=groups)
        in_sample[part] = aurocs(fit(np.ones(len(folds), dtype=bool)), labellings[part])
        held_out[part] = aurocs(out_of_fold(fit, folds), labellings[part])
    return ShuffledLabels(in_sample, held_out)


def random_directions(
    x: Rows, labels: Labels, *, count: int = 200, seed: int = 0
) -> Float[np.ndarray, " direction"]:
    """AUROC of directions uniform on the sphere: how far no data at all gets.

    Their mean is 0.5; their standard deviation says how few dimensions activations vary along.
    """
    drawn = np.random.default_rng(seed).standard_normal((x.shape[1], count))
    return _aurocs_of(x, labels, drawn)


def shuffled_alignments(
    benign: Rows,
    target: Rows,
    axis: Float[np.ndarray, " d_reference"],
    ridge_lambda: float,
    x: Rows,
    labels: Labels,
    *,
    count: int = 200,
    seed: int = 0,
) -> Float[np.ndarray, " shuffle"]:
    """AUROC of an axis pulled back through alignments fitted on rows paired at random.

    `benign` and `target` are the alignment prompts in the model and in the reference. What is left
    of an AUROC here comes from the model's covariance, not from the correspondence.
    """
    random = np.random.default_rng(seed)
    along = np.concatenate([block @ axis for (block,) in blocks(target)])
    shuffled = np.stack([random.permutation(along) for _ in range(count)], axis=1)
    # `count` targets of one number a row: weights [d_model, count] are the pulled-back axes.
    fitter = RidgeFitter(benign.shape[1], count).update_all(benign, shuffled)
    return _aurocs_of(x, labels, fitter.solve(ridge_lambda).weights)


def _aurocs_of(
    x: Rows, labels: Labels, directions: Float[np.ndarray, "d_model direction"]
) -> Float[np.ndarray, " direction"]:
    # About the mean: activations share a large one, which costs digits and ranks nothing.
    return aurocs(project_centred(x, directions, mean(x)).T, labels[None])


def fitted_scores(
    x: Rows,
    labels: Bool[np.ndarray, "*#fit row"],
    seen: Bool[np.ndarray, "*#fit row"],
    method: str = "mean_diff",
    groups: Groups | None = None,
) -> Float[np.ndarray, "fit row"]:
    """All rows on each unit direction fitted on those seen, about the midpoint of its classes.

    `labels` and `seen` differ from fit to fit, or are one for all fits. Twice through the rows for
    any number of differences in means; the other methods are fitted one after the other. `groups`
    numbers pairs, for `pair_pca`.
    """
    labels, seen = np.broadcast_arrays(np.atleast_2d(labels), seen)
    centre = mean(x)
    above, below = _class_means(x, centre, seen & labels, seen & ~labels)
    directions, middles = above - below, (above + below) / 2
    if method != "mean_diff":
        directions = refitted(x, labels, seen, method, groups)
    # Shuffled classes may have the very same mean: no direction, and every row a tie.
    units = unit_rows(directions)
    scores = project_centred(x, units.T, centre).T
    if isinstance(x, TokenRows):  # The score of a mean token is not the mean of the scores.
        kinds = np.stack([seen & labels, seen & ~labels])
        middle = ((kinds * scores).sum(axis=2) / kinds.sum(axis=2)).mean(axis=0)
        return scores - middle[:, None]
    return scores - (middles * units).sum(axis=1)[:, None]


def _class_means(
    x: Rows,
    centre: Float[np.ndarray, " d_model"],
    positive: Shaped[np.ndarray, "fit row"],
    negative: Shaped[np.ndarray, "fit row"],
) -> tuple[Float[np.ndarray, "fit d_model"], Float[np.ndarray, "fit d_model"]]:
    """Means of the rows about `centre`, weighted by each row of `positive` and of `negative`."""
    # [fit, row] @ [row, d_model]: the weights pick each fit's rows, a block of rows at a time.
    sums = np.zeros((2, len(positive), x.shape[1]))
    for block, of_positive, of_negative in blocks(x, positive.T, negative.T):
        centred = block - centre
        sums += of_positive.T @ centred, of_negative.T @ centred
    counts = np.stack([positive.sum(axis=1), negative.sum(axis=1)])
    above, below = sums / counts[:, :, None]
    return above, below


def refitted(
    x: Rows,
    labels: Bool[np.ndarray, "fit row"],
    seen: Bool[np.ndarray, "fit row"],
    method: str,
    groups: Groups | None,
) -> Float[np.ndarray, "fit d_model"]:
    """The direction of a method under each labelling, on the rows seen by each."""
    if method == "mean_diff":
        return _differences(x, seen & labels, seen & ~labels)
    groups = np.arange(len(x)) if groups is None else groups
    directions = np.empty((len(labels), x.shape[1]))
    # Fits that see the same rows share what their fitter prepares on them.
    parts, part_of_fit = np.unique(seen, axis=0, return_inverse=True)
    for index, part in enumerate(parts):
        fitter = direction_fitter(method, x, groups, part)
        for fit in np.flatnonzero(part_of_fit == index):
            directions[fit] = fitter(labels[fit])
    return directions


def shuffled_labellings(
    labels: Labels, groups: Groups, count: int, random: np.random.Generator
) -> Bool[np.ndarray, "shuffle row"]:
    """The labels in random order; within groups where every group holds both classes."""
    both = [np.bincount(groups[labels == kind], minlength=groups.max() + 1) for kind in (0, 1)]
    is_matched = bool((np.minimum(*both)[np.unique(groups)] > 0).all())
    within = groups if is_matched else np.zeros_like(groups)
    return np.stack([_shuffle_within(within, labels, random) for _ in range(count)])


def _shuffle_within(blocks: Groups, labels: Labels, random: np.random.Generator) -> Labels:
    """The labels, each moved to a random row of its block."""
    # Both orders list the rows block by block; within a block one as they were, one at random.
    in_blocks = np.argsort(blocks, kind="stable")
    at_random = np.lexsort((random.random(len(labels)), blocks))
    shuffled = np.empty_like(labels)
    shuffled[at_random] = labels[in_blocks]
    return shuffled


Singular = Float[np.ndarray, "draw component"]


@dataclass(frozen=True)
class Mapped:
    """A model's labelled rows and its map into the reference; rows are the same in all models."""

    x: Rows
    alignment: Alignment


def random_singular_values(
    models: Sequence[Mapped], *, count: int = 200, seed: int = 0
) -> Singular:
    """Singular values of directions drawn uniformly in each model and mapped."""
    random = np.random.default_rng(seed)
    return singular_values(
        [
            mapped_directions(model, random.standard_normal((count, model.x.shape[1])))
            for model in models
        ]
    )


def shuffled_directions(
    models: Sequence[Mapped],
    labels: Labels,
    groups: Groups,
    *,
    method: str = "mean_diff",
    count: int = 200,
    seed: int = 0,
) -> Float[np.ndarray, "model shuffle d_reference"]:
    """Unit directions fitted on shuffled labels, alike in all models, as their maps show them.

    Their lengths are the gains of the maps; `singular_values` compares what they have in common.
    """
    shuffled = shuffled_labellings(labels, groups, count, np.random.default_rng(seed))
    fit = partial(refitted, labels=shuffled, seen=np.ones_like(shuffled), method=method)
    return np.stack(
        [unit_rows(fit(each.x, groups=groups)) @ each.alignment.jacobian for each in models]
    )


def bootstrap_angles(
    models: Sequence[Mapped],
    labels: Labels,
    groups: Groups,
    axis: Float[np.ndarray, " d_reference"],
    *,
    method: str = "mean_diff",
    shared: str = "svd",
    count: int = 200,
    seed: int = 0,
) -> Float[np.ndarray, " resample"]:
    """Degrees between the axis and that of resampled prompts, drawn in whole groups by class.

    Every model sees the same resample, as all are fitted on the same prompts.
    """
    counts = draw_counts(len(labels), strata=labels, groups=groups, count=count, seed=seed)

    def directions(x: Rows) -> Float[np.ndarray, "resample d_model"]:
        if method == "mean_diff":
            return _differences(x, counts * labels, counts * ~labels)
        return np.stack([_resampled(x, labels, groups, drawn, method) for drawn in counts])

    mapped = [mapped_directions(model, directions(model.x)) for model in models]
    # [model, resample, d_reference] -> for each resample the axis of its [model, d_reference].
    axes = universal_axis(np.stack(mapped, axis=1), shared).vector
    return np.degrees(np.arccos(np.clip(axes @ axis, -1.0, 1.0)))


def _differences(
    x: Rows, positive: Shaped[np.ndarray, "fit row"], negative: Shaped[np.ndarray, "fit row"]
) -> Float[np.ndarray, "fit d_model"]:
    above, below = _class_means(x, mean(x), positive, negative)
    return above - below


def _resampled(
    x: Rows, labels: Labels, groups: Groups, drawn: Groups, method: str
) -> Float[np.ndarray, " d_model"]:
    """A direction fitted on rows as often as each was drawn; a pair drawn twice is two pairs."""
    # Row i comes drawn[i] times; its copies are numbered from 0, and (group, copy) is a new group.
    index = np.repeat(np.arange(len(drawn)), drawn)
    copies = np.arange(len(index)) - np.repeat(np.cumsum(drawn) - drawn, drawn)
    copied_groups = groups[index] * (int(drawn.max()) + 1) + copies
    return fit_direction(method, take(x, index), labels[index], copied_groups).vector


def mapped_directions(
    model: Mapped, directions: Float[np.ndarray, "draw d_model"]
) -> Float[np.ndarray, "draw d_reference"]:
    """Unit directions in the reference's space."""
    return unit_rows(directions @ model.alignment.jacobian)


def unit_rows(directions: Float[np.ndarray, "fit width"]) -> Float[np.ndarray, "fit width"]:
    """Each row scaled to unit length; one that is zero stays zero."""
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    return np.divide(directions, norms, where=norms > 0, out=np.zeros_like(directions))


def singular_values(mapped: Sequence[Float[np.ndarray, "draw d_reference"]]) -> Singular:
    """Singular values of each draw's directions, one of each model, scaled to unit length."""
    # [draw, model, d_reference]; the products of a few models, [draw, model, model], instead of a
    # decomposition of their wide directions. Eigenvalues ascend, singular values descend.
    stacked = np.stack([unit_rows(each) for each in mapped], axis=1)
    values = np.linalg.eigvalsh(stacked @ stacked.swapaxes(1, 2))
    return np.sqrt(values[:, ::-1].clip(min=0.0))
