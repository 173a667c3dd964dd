"""What a direction's AUROC has to be held against: itself on rows not seen, and shuffled labels.

Everything goes through the Gram matrix of the rows: a difference in means is a weighting of rows,
so a direction fitted on any part of them, under any labels, scores all rows in one product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from analysis.scores import auroc
from analysis.splits import grouped_folds


@dataclass(frozen=True)
class ShuffledLabels:
    """AUROCs of directions fitted on shuffled labels: on their own rows, and on rows not seen."""

    in_sample: Float[np.ndarray, " shuffle"]
    held_out: Float[np.ndarray, " shuffle"]


def cross_validated_scores(
    x: Float[np.ndarray, "row d_model"],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    seed: int = 0,
) -> Float[np.ndarray, " row"]:
    """Out-of-fold projections on difference-in-means directions, five folds of whole groups.

    Each fold is projected about the midpoint of its training classes, so that folds compare.
    """
    return _out_of_fold(_gram(x), labels, grouped_folds(labels, groups, seed=seed))


def shuffled_labels(
    x: Float[np.ndarray, "row d_model"],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    count: int = 200,
    seed: int = 0,
) -> ShuffledLabels:
    """The null of a difference-in-means direction, by refitting it on shuffled labels.

    In many dimensions a direction fitted to noise tells its own rows apart well above 0.5, so an
    in-sample AUROC has to be held against `in_sample`, not against 0.5. The cross-validated one is
    held against `held_out`, which lies about 0.5 and is the sharper test. Where every group holds
    both classes (matched pairs), labels are shuffled within groups: what the members of a pair
    share cancels in the true difference, and must cancel in its null.
    """
    random = np.random.default_rng(seed)
    is_matched = all(len(set(labels[groups == group])) == 2 for group in np.unique(groups))
    blocks = groups if is_matched else np.zeros_like(groups)
    folds = grouped_folds(labels, groups, seed=seed)
    gram = _gram(x)
    everything = np.ones(len(labels), dtype=bool)
    in_sample, held_out = np.empty(count), np.empty(count)
    for index in range(count):
        shuffled = _shuffle_within(blocks, labels, random)
        in_sample[index] = auroc(_project(gram, shuffled, everything), shuffled)
        held_out[index] = auroc(_out_of_fold(gram, shuffled, folds), shuffled)
    return ShuffledLabels(in_sample, held_out)


def _gram(x: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, "row row"]:
    centred = x - x.mean(axis=0, dtype=np.float64)
    return centred @ centred.T


def _out_of_fold(
    gram: Float[np.ndarray, "row row"],
    labels: Bool[np.ndarray, " row"],
    folds: Int[np.ndarray, " row"],
) -> Float[np.ndarray, " row"]:
    scores = np.empty(len(labels))
    for fold in np.unique(folds):
        scores[folds == fold] = _project(gram, labels, folds != fold)[folds == fold]
    return scores


def _project(
    gram: Float[np.ndarray, "row row"],
    labels: Bool[np.ndarray, " row"],
    seen: Bool[np.ndarray, " row"],
) -> Float[np.ndarray, " row"]:
    """All rows on the unit direction fitted on those seen, about the midpoint of its classes."""
    positive, negative = seen & labels, seen & ~labels
    weights = positive / positive.sum() - negative / negative.sum()
    projected = gram @ weights
    middle = (projected[positive].mean() + projected[negative].mean()) / 2
    norm = np.sqrt(max(weights @ projected, 0.0))
    # Shuffled classes may have the very same mean: no direction, and every row a tie.
    return (projected - middle) / norm if norm > 0 else np.zeros_like(projected)


def _shuffle_within(
    blocks: Int[np.ndarray, " row"], labels: Bool[np.ndarray, " row"], random: np.random.Generator
) -> Bool[np.ndarray, " row"]:
    """The labels, each moved to a random row of its own block."""
    in_blocks = np.argsort(blocks, kind="stable")
    at_random = np.lexsort((random.random(len(labels)), blocks))
    shuffled = np.empty_like(labels)
    shuffled[at_random] = labels[in_blocks]
    return shuffled
