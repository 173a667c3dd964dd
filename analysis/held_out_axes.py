"""The universal axis on prompts that no direction behind it was fitted on.

A universal axis is made of directions, and each of them was fitted on the labelled prompts: judged
on those it is in sample, whichever model is left out. Here the whole chain from the labels on
(directions, carrying over, decomposition) is made anew without each fold, and the fold is judged on
the axis made without it. Alignments are fitted on other prompts, without labels, and stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from analysis.alignment import Alignment
from analysis.blocks import mean, project
from analysis.directions import unit
from analysis.splits import grouped_folds
from analysis.universal import universal_axis
from warehouse.scratch import Rows


@dataclass(frozen=True)
class HeldOutScores:
    """One row a model: out-of-fold scores on its own direction and on the shared axes.

    `leave_one_out` is None in a group of one model.
    """

    native: Float[np.ndarray, "model row"]
    universal: Float[np.ndarray, "model row"]
    leave_one_out: Float[np.ndarray, "model row"] | None


def held_out_scores(
    matrices: Sequence[Rows],
    alignments: Sequence[Alignment],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    seed: int = 0,
) -> HeldOutScores:
    """Out-of-fold projections of every model's rows, five folds of whole groups.

    All matrices hold the same prompts in the same order. Each fold is projected about the middle of
    its training classes, so that folds compare.
    """
    folds = grouped_folds(labels, groups, seed=seed)
    shape = (3, len(matrices), len(labels))
    scores = np.zeros(shape)
    for fold in np.unique(folds):
        seen = folds != fold
        means = [(mean(x, labels & seen), mean(x, ~labels & seen)) for x in matrices]
        natives = [unit(above - below).vector for above, below in means]
        aligned = np.stack(
            [
                unit(alignment.carry(native)).vector
                for alignment, native in zip(alignments, natives, strict=True)
            ]
        )
        shared = universal_axis(aligned).vector
        for index, (x, alignment) in enumerate(zip(matrices, alignments, strict=True)):
            vectors = [natives[index], alignment.pull_back(shared)[0]]
            if len(matrices) > 1:
                others = universal_axis(np.delete(aligned, index, axis=0)).vector
                vectors.append(alignment.pull_back(others)[0])
            middle = (means[index][0] + means[index][1]) / 2
            for kind, vector in enumerate(vectors):
                along = project(x, vector, -float(middle @ vector))
                scores[kind, index, ~seen] = along[~seen]
    return HeldOutScores(scores[0], scores[1], scores[2] if len(matrices) > 1 else None)
