"""How alike aligned directions would be anyway, and how firmly the rows hold the shared axis.

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
from jaxtyping import Bool, Float, Int

from axes.analysis.blocks import mean, take
from axes.analysis.methods.affine_map import Alignment
from axes.analysis.methods.directions import fit_direction
from axes.analysis.methods.nulls import class_means, refitted, shuffled_labellings
from axes.analysis.methods.universal import universal_axis
from axes.analysis.stats.bootstrap import draw_counts
from axes.warehouse.scratch import Rows

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
