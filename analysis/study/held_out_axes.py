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

from axes.analysis.blocks import project
from axes.analysis.methods.affine_map import Alignment
from axes.analysis.methods.directions import fit_direction, unit
from axes.analysis.methods.universal import universal_axis
from axes.analysis.stats.splits import grouped_folds
from axes.warehouse.scratch import Rows


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
    method: str = "mean_diff",
    shared: str = "svd",
    seed: int = 0,
) -> HeldOutScores:
    """Out-of-fold projections of every model's rows, five folds of whole groups.

    `method` is that of the directions, `shared` that of the axis made of them.

    All matrices hold the same prompts in the same order. Each fold is projected about the middle of
    its training classes, so that folds compare.
    """
    folds = grouped_folds(labels, groups, seed=seed)
    shape = (3, len(matrices), len(labels))
    scores = np.zeros(shape)
    for fold in np.unique(folds):
        seen = folds != fold
        natives = [fit_direction(method, x, labels, groups, seen).vector for x in matrices]
        aligned = np.stack(
            [
                unit(alignment.carry(native)).vector
                for alignment, native in zip(alignments, natives, strict=True)
            ]
        )
        axis = universal_axis(aligned, shared).vector
        for index, (x, alignment) in enumerate(zip(matrices, alignments, strict=True)):
            projected = [project(x, natives[index]), alignment.project(x, axis)]
            if len(matrices) > 1:
                others = universal_axis(np.delete(aligned, index, axis=0), shared).vector
                projected.append(alignment.project(x, others))
            for kind, along in enumerate(projected):
                middle = (along[labels & seen].mean() + along[~labels & seen].mean()) / 2
                scores[kind, index, ~seen] = along[~seen] - middle
    return HeldOutScores(scores[0], scores[1], scores[2] if len(matrices) > 1 else None)
