"""Which of several concepts differs between two prompts: axes, k-way predictions, overlap.

An item is a positive prompt of a concept less its negative counterpart, so that what all prompts of
a set share (topic, form, length) cancels, and sets of other sentences cannot be told by that. The
axis of a concept is the mean of its items; the prediction is the axis along which an item lies
farthest, in units of all items' root mean square along it. Every item is predicted by axes of the
other folds. The null deals the concepts out again among the items of a fold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from axes.analysis.methods.universal import universal_axis
from axes.analysis.stats.auroc import Estimate, Groups, Labels, share_estimate

Items = Float[np.ndarray, "item d"]
Concepts = Int[np.ndarray, " item"]
Weights = Float[np.ndarray, "*draw concept item"]

# Nulls are drawn so many at a time: one product for all of them, of bounded memory.
_DRAWS = 50


@dataclass(frozen=True)
class Counterparts:
    """The rows of positive prompts, and the rows whose mean is taken off each.

    Those are the negative prompts of the same group, or of the same fold where some group has none:
    never a row of another fold, which may be fitted on.
    """

    positives: Int[np.ndarray, " item"]
    negatives: Int[np.ndarray, " negative"]
    of_item: Int[np.ndarray, " item"]
    of_negative: Int[np.ndarray, " negative"]

    @classmethod
    def of(cls, labels: Labels, groups: Groups, folds: Groups) -> Counterparts:
        positives, negatives = np.flatnonzero(labels), np.flatnonzero(~labels)
        is_matched = np.isin(groups[positives], groups[negatives]).all()
        shared = np.unique(groups if is_matched else folds, return_inverse=True)[1]
        return cls(positives, negatives, shared[positives], shared[negatives])

    def differences(self, x: Float[np.ndarray, "row d"]) -> Items:
        """Each positive row less the mean of its counterparts, in float64."""
        sums = np.zeros((max(self.of_item.max(), self.of_negative.max()) + 1, x.shape[1]))
        np.add.at(sums, self.of_negative, x[self.negatives])
        counts = np.bincount(self.of_negative, minlength=len(sums))
        return x[self.positives] - (sums / np.maximum(counts, 1)[:, None])[self.of_item]


def concept_axes(
    sources: Sequence[Items], weights: Weights, universal: str = "svd"
) -> Float[np.ndarray, "*draw concept d"]:
    """One unit axis per concept: its weighted sum of items, shared by several models' items.

    `sources` are the same items in one space, of each model; `universal` makes one axis of many.
    """
    by_model = [_units(np.tensordot(weights, items, axes=1)) for items in sources]
    if len(by_model) == 1:
        return by_model[0]
    return _units(universal_axis(np.stack(by_model, axis=-2), universal).vector)


def class_weights(concepts: Int[np.ndarray, "*draw item"], count: int) -> Weights:
    """Weights that take the mean of each concept's items; zero for one without items."""
    hot = np.arange(count)[:, None] == concepts[..., None, :]
    return hot / np.maximum(hot.sum(axis=-1, keepdims=True), 1)


def predict_concepts(
    items: Items,
    concepts: Int[np.ndarray, "*draw item"],
    folds: Groups,
    *,
    sources: Sequence[Items] = (),
    universal: str = "svd",
) -> Int[np.ndarray, "*draw item"]:
    """The concept predicted for every item by axes of the other folds, for each draw of concepts.

    `sources` are the same items in other models, if their shared axes are to predict and not those
    of `items` itself; all in one space.
    """
    count = int(concepts.max()) + 1
    predicted = np.empty_like(concepts)
    for fold in np.unique(folds):
        seen = folds != fold
        weights = class_weights(np.where(seen, concepts, -1), count)
        axes = concept_axes(sources or [items], weights, universal)
        scores = np.tensordot(axes, items.T, axes=1)
        sizes = np.sqrt(np.square(scores[..., seen]).mean(axis=-1, keepdims=True))
        unseen = scores[..., ~seen]
        unseen = np.divide(unseen, sizes, out=np.zeros_like(unseen), where=sizes > 0)
        predicted[..., ~seen] = unseen.argmax(axis=-2)
    return predicted


def balanced_accuracy(predicted: Concepts, concepts: Concepts) -> Estimate:
    """The mean over concepts of the share predicted right, which is 1/k by chance, with interval.

    The interval is exact for a share of as many items as its variance, the concepts apart, is worth
    (Korn and Graubard 1998).

    >>> balanced_accuracy(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])).estimate
    0.8333333333333333
    """
    right = np.bincount(concepts, weights=predicted == concepts)
    counts = np.bincount(concepts)
    kept = counts > 0
    right, counts = right[kept], counts[kept]
    share = float((right / counts).mean())
    # Of a share of 0 or 1 the variance would be 0, whatever the count.
    smoothed = (right + 0.5) / (counts + 1)
    variance = (smoothed * (1 - smoothed) / counts).sum() / len(counts) ** 2
    middle = float(smoothed.mean())
    worth = middle * (1 - middle) / variance
    return replace(share_estimate(share * worth, worth), estimate=share)


def permuted_accuracies(
    predict: Callable[[Concepts], Concepts],
    concepts: Concepts,
    folds: Groups,
    *,
    count: int = 200,
    seed: int = 0,
) -> Float[np.ndarray, " shuffle"]:
    """Accuracies of what `predict`, fitted on them, gives for draws of concepts dealt again."""
    random = np.random.default_rng(seed)
    dealt = np.stack([_dealt_again(concepts, folds, random) for _ in range(count)])
    parts = np.split(dealt, range(_DRAWS, count, _DRAWS))
    predicted = np.concatenate([predict(part) for part in parts])
    pairs = zip(predicted, dealt, strict=True)
    return np.array([balanced_accuracy(each, truth).estimate for each, truth in pairs])


def permutation_p_value(estimate: float, null: Float[np.ndarray, " shuffle"]) -> float:
    """The share of shuffles at least as large, the value itself counted as one."""
    return float((1 + (null >= estimate - 1e-12).sum()) / (1 + len(null)))


def axis_cosines(
    sources: Sequence[Items],
    concepts: Concepts,
    *,
    universal: str = "svd",
    count: int = 1000,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "concept concept"], Float[np.ndarray, "draw concept concept"]]:
    """Cosines between the axes of every two concepts, and between axes of nothing.

    The null has the items without their concept's mean, each with a sign drawn at random, the same
    in every model: directions in which pairs differ anyway, which are few of all dimensions.
    """
    random = np.random.default_rng(seed)
    weights = class_weights(concepts, int(concepts.max()) + 1)
    axes = concept_axes(sources, weights, universal)
    residuals = [items - (weights @ items)[concepts] for items in sources]
    null = []
    for start in range(0, count, _DRAWS):
        size = (min(_DRAWS, count - start), 1, len(concepts))
        signed = weights * random.choice([-1.0, 1.0], size=size)
        drawn = concept_axes(residuals, signed, universal)
        null.append(drawn @ drawn.swapaxes(1, 2))
    return axes @ axes.T, np.concatenate(null)


def _units(vectors: Float[np.ndarray, "*many d"]) -> Float[np.ndarray, "*many d"]:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def _dealt_again(concepts: Concepts, folds: Groups, random: np.random.Generator) -> Concepts:
    """The concepts shuffled among the items of each fold."""
    shuffled = concepts.copy()
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        shuffled[rows] = concepts[random.permutation(rows)]
    return shuffled
