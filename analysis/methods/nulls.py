"""What a direction's AUROC has to be held against: itself on rows not seen, and directions that
know nothing: of shuffled labels, of no data at all, through alignments of shuffled rows.

A difference in means is a weighting of rows, so directions fitted on any parts of them, under any
labels, are one product with the matrix, and the scores of all rows a second one; the other methods
are fitted anew each time. Of a shuffled alignment only the axis pulled back through it is needed,
which is a regression of one number a row.

How alike aligned directions would be anyway, and how firmly the rows hold the shared axis.

Alignments bring any directions of the models into one space, where activations spread along few
dimensions, so directions that mean nothing have singular values above those of the sphere. Two
nulls: a random direction in each model, and the direction of shuffled labels, the same shuffled
labelling in every model. The second is the sharper one: it asks whether the concept is more alike
across models than any other way to part the same prompts in two. The maps are held fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from axes.analysis.activations import blocks, mean, take
from axes.analysis.methods.affine_map import Alignment
from axes.analysis.methods.directions import direction_fitter, fit_direction
from axes.analysis.methods.ridge import RidgeFitter
from axes.analysis.methods.universal import universal_axis
from axes.analysis.stats.auroc import aurocs
from axes.analysis.stats.bootstrap import draw_counts
from axes.analysis.stats.splits import grouped_folds
from axes.warehouse.layers import Rows

# Scores of as many shuffled labellings at a time as take this much memory.
_SCORES_BYTES = 32 << 20
# Draws of a null or resamples; the methods that are fitted anew each time take fewer.
_DRAWS, _DRAWS_OF_SLOW = 200, 40


def draw_count(direction: str) -> int:
    """How many shufflings or resamples a direction's nulls rest on."""
    return _DRAWS if direction in ("mean_diff", "whitened") else _DRAWS_OF_SLOW


@dataclass(frozen=True)
class ShuffledLabels:
    """AUROCs of directions fitted on shuffled labels: on their own rows, and on rows not seen."""

    in_sample: Float[np.ndarray, " shuffle"]
    held_out: Float[np.ndarray, " shuffle"]


def cross_validated_scores(
    x: Rows,
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    method: str = "mean_diff",
    seed: int = 0,
) -> Float[np.ndarray, " row"]:
    """Out-of-fold projections on directions of a method, five folds of whole groups.

    Each fold is projected about the midpoint of its training classes, so that folds compare.
    """
    folds = grouped_folds(labels, groups, seed=seed)
    return _out_of_fold(x, labels[None], folds, method, groups)[0]


def shuffled_labels(
    x: Rows,
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    count: int = 200,
    method: str = "mean_diff",
    seed: int = 0,
) -> ShuffledLabels:
    """The null of a direction, by refitting it on shuffled labels.

    In many dimensions a direction fitted to noise tells its own rows apart well above 0.5, so an
    in-sample AUROC has to be held against `in_sample`, not against 0.5. The cross-validated one is
    held against `held_out`, which lies about 0.5 and is the sharper test. Where every group holds
    both classes (matched pairs), labels are shuffled within groups: what the members of a pair
    share cancels in the true difference, and must cancel in its null.
    """
    random = np.random.default_rng(seed)
    folds = grouped_folds(labels, groups, seed=seed)
    step = max(_SCORES_BYTES // (8 * len(labels) * (folds.max() + 2)), 1)
    in_sample, held_out = np.empty(count), np.empty(count)
    for start in range(0, count, step):
        some = range(start, min(start + step, count))
        shuffled = shuffled_labellings(labels, groups, len(some), random)
        apparent = fitted_scores(x, shuffled, np.ones_like(shuffled), method, groups)
        out_of_fold = _out_of_fold(x, shuffled, folds, method, groups)
        part = slice(some.start, some.stop)
        in_sample[part], held_out[part] = aurocs(apparent, shuffled), aurocs(out_of_fold, shuffled)
    return ShuffledLabels(in_sample, held_out)


def random_directions(
    x: Rows, labels: Bool[np.ndarray, " row"], *, count: int = 200, seed: int = 0
) -> Float[np.ndarray, " direction"]:
    """AUROC of directions drawn evenly from the sphere: how far none at all gets.

    Their mean is 0.5; their spread says how far activations spread along few dimensions.
    """
    drawn = np.random.default_rng(seed).standard_normal((x.shape[1], count))
    return _aurocs_of(x, labels, drawn)


def shuffled_alignments(
    benign: Rows,
    target: Rows,
    axis: Float[np.ndarray, " d_reference"],
    ridge_lambda: float,
    x: Rows,
    labels: Bool[np.ndarray, " row"],
    *,
    count: int = 200,
    seed: int = 0,
) -> Float[np.ndarray, " shuffle"]:
    """AUROC of an axis pulled back through alignments fitted on rows paired at random.

    `benign` and `target` are the alignment prompts in the model and in the reference. What is left
    of an AUROC here comes from the model's own covariance, not from the correspondence.
    """
    random = np.random.default_rng(seed)
    along = np.concatenate([block @ axis for (block,) in blocks(target)])
    shuffled = np.stack([random.permutation(along) for _ in range(count)], axis=1)
    fitter = RidgeFitter(benign.shape[1], count)
    for pair in blocks(benign, shuffled):
        fitter.update(*pair)
    return _aurocs_of(x, labels, fitter.solve(ridge_lambda).weights)


def _aurocs_of(
    x: Rows, labels: Bool[np.ndarray, " row"], directions: Float[np.ndarray, "d_model direction"]
) -> Float[np.ndarray, " direction"]:
    # About the mean: activations share a large one, which costs digits and ranks nothing.
    centre = mean(x)
    scores = np.concatenate([(block - centre) @ directions for (block,) in blocks(x)])
    return aurocs(scores.T, labels[None])


def _out_of_fold(
    x: Rows,
    labels: Bool[np.ndarray, "fit row"],
    folds: Int[np.ndarray, " row"],
    method: str,
    groups: Int[np.ndarray, " row"],
) -> Float[np.ndarray, "fit row"]:
    """Each row under each labelling, scored by the direction fitted without the row's fold."""
    names = np.unique(folds)
    seen = np.concatenate([np.broadcast_to(folds != name, labels.shape) for name in names])
    scores = fitted_scores(x, np.tile(labels, (len(names), 1)), seen, method, groups)
    fitted_without = scores.reshape(len(names), *labels.shape)
    return np.take_along_axis(fitted_without, np.searchsorted(names, folds)[None, None], axis=0)[0]


def fitted_scores(
    x: Rows,
    labels: Bool[np.ndarray, "fit row"],
    seen: Bool[np.ndarray, "fit row"],
    method: str = "mean_diff",
    groups: Int[np.ndarray, " row"] | None = None,
) -> Float[np.ndarray, "fit row"]:
    """All rows on each unit direction fitted on those seen, about the midpoint of its classes.

    Twice through the rows for any number of differences in means; the other methods are fitted one
    after the other. `groups` numbers pairs, for `pair_pca`.
    """
    centre = mean(x)
    above, below = class_means(x, centre, seen & labels, seen & ~labels)
    directions, middles = above - below, (above + below) / 2
    if method != "mean_diff":
        directions = refitted(x, labels, seen, method, groups)
    norms = np.linalg.norm(directions, axis=1)
    # Shuffled classes may have the very same mean: no direction, and every row a tie.
    units = np.divide(directions, norms[:, None], where=norms[:, None] > 0, out=directions * 0)
    projected = [(block - centre) @ units.T for (block,) in blocks(x)]
    return np.concatenate(projected).T - (middles * units).sum(axis=1)[:, None]


def class_means(
    x: Rows,
    centre: Float[np.ndarray, " d_model"],
    positive: Shaped[np.ndarray, "fit row"],
    negative: Shaped[np.ndarray, "fit row"],
) -> tuple[Float[np.ndarray, "fit d_model"], Float[np.ndarray, "fit d_model"]]:
    """Means of the rows about `centre`, weighted by each row of `positive` and of `negative`."""
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
    groups: Int[np.ndarray, " row"] | None = None,
) -> Float[np.ndarray, "fit d_model"]:
    """The direction of a method under each labelling, on the rows seen by each."""
    groups = np.arange(len(x)) if groups is None else groups
    found = np.empty((len(labels), x.shape[1]))
    parts, part_of_fit = np.unique(seen, axis=0, return_inverse=True)
    for index, part in enumerate(parts):
        fitter = direction_fitter(method, x, groups, part)
        for fit in np.flatnonzero(part_of_fit == index):
            found[fit] = fitter(labels[fit])
    return found


def shuffled_labellings(
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    count: int,
    random: np.random.Generator,
) -> Bool[np.ndarray, "shuffle row"]:
    """The labels in random order; within groups where every group holds both classes."""
    both = [np.bincount(groups[labels == kind], minlength=groups.max() + 1) for kind in (0, 1)]
    is_matched = bool((np.minimum(*both)[np.unique(groups)] > 0).all())
    within = groups if is_matched else np.zeros_like(groups)
    return np.stack([_shuffle_within(within, labels, random) for _ in range(count)])


def _shuffle_within(
    blocks: Int[np.ndarray, " row"], labels: Bool[np.ndarray, " row"], random: np.random.Generator
) -> Bool[np.ndarray, " row"]:
    """The labels, each moved to a random row of its own block."""
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
    """Singular values of directions drawn evenly in each model and carried over."""
    random = np.random.default_rng(seed)
    return _singular_values(
        [_carried(model, random.standard_normal((count, model.x.shape[1]))) for model in models]
    )


def shuffled_singular_values(
    models: Sequence[Mapped],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    method: str = "mean_diff",
    count: int = 200,
    seed: int = 0,
) -> Singular:
    """Singular values of directions fitted on shuffled labels, alike in all models."""
    shuffled = shuffled_labellings(labels, groups, count, np.random.default_rng(seed))
    carried = []
    for model in models:
        if method == "mean_diff":
            above, below = class_means(model.x, mean(model.x), shuffled, ~shuffled)
            directions = above - below
        else:
            directions = refitted(model.x, shuffled, np.ones_like(shuffled), method, groups)
        carried.append(_carried(model, directions))
    return _singular_values(carried)


def bootstrap_angles(
    models: Sequence[Mapped],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
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
    carried = []
    for model in models:
        if method == "mean_diff":
            positive, negative = counts * labels, counts * ~labels
            above, below = class_means(model.x, mean(model.x), positive, negative)
            directions = above - below
        else:
            directions = np.stack(
                [_of_resample(model.x, labels, groups, drawn, method) for drawn in counts]
            )
        carried.append(_carried(model, directions))
    axes = [universal_axis(stacked, shared).vector for stacked in np.stack(carried, axis=1)]
    return np.degrees(np.arccos(np.clip(np.stack(axes) @ axis, -1.0, 1.0)))


def _of_resample(
    x: Rows,
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    drawn: Int[np.ndarray, " row"],
    method: str,
) -> Float[np.ndarray, " d_model"]:
    """A direction fitted on rows drawn so many times each; a pair drawn twice is two pairs."""
    index = np.repeat(np.arange(len(drawn)), drawn)
    copies = np.arange(len(index)) - np.repeat(np.cumsum(drawn) - drawn, drawn)
    apart = groups[index] * (int(drawn.max()) + 1) + copies
    return fit_direction(method, take(x, index), labels[index], apart).vector


def _carried(
    model: Mapped, directions: Float[np.ndarray, "draw d_model"]
) -> Float[np.ndarray, "draw d_reference"]:
    """Unit directions in the reference; one that is zero stays so."""
    found = directions @ model.alignment.jacobian
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    return np.divide(found, norms, where=norms > 0, out=np.zeros_like(found))


def _singular_values(carried: Sequence[Float[np.ndarray, "draw d_reference"]]) -> Singular:
    stacked = np.stack(carried, axis=1)
    # The products of a few models instead of a decomposition of their wide directions.
    values = np.linalg.eigvalsh(stacked @ stacked.swapaxes(1, 2))
    return np.sqrt(values[:, ::-1].clip(min=0.0))
