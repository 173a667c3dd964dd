"""Choose a layer without the rows it is evaluated on: nested, grouped cross-validation.

The best of many layers, chosen on the prompts that it is evaluated on, is an upper bound. Here
every outer fold is evaluated at the layer that did best in an inner cross-validation of the other
folds, by a direction fitted on those; nothing of the fold is seen before (Varma and Simon 2006).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from axes.analysis.methods.nulls import fitted_scores
from axes.analysis.stats.auroc import Groups, Labels, Scores, auroc
from axes.analysis.stats.splits import grouped_folds
from axes.warehouse.layers import Rows


@dataclass(frozen=True)
class LayerSelection:
    """Scores of every row, and AUROCs by layer.

    `nested`: at the layer chosen without the row's fold. `cross_validated`: at each layer, out of
    fold. Both in standard deviations of the training rows, about the middle of their classes, so
    that folds compare. `in_sample` is the AUROC of a direction on the rows it was fitted on.
    """

    nested: Scores
    chosen_layers: Int[np.ndarray, " fold"]
    cross_validated: Float[np.ndarray, "layer row"]
    in_sample: Float[np.ndarray, " layer"]


def select_layers(
    layers: Iterable[Rows],
    labels: Labels,
    groups: Groups,
    *,
    method: str = "mean_diff",
    seed: int = 0,
) -> LayerSelection:
    """Evaluate every layer's direction of a method, and the choice among them, out of fold.

    `layers` gives one matrix of the same rows a layer, one at a time. Ties between layers go to the
    first.
    """
    folds = grouped_folds(labels, groups, seed=seed)
    names = np.unique(folds)
    # Inner folds within the training part of each outer fold, [outer fold, row]; -1: in the outer.
    inner = np.full((len(names), len(labels)), -1)
    for index, name in enumerate(names):
        seen = folds != name
        inner[index, seen] = grouped_folds(labels[seen], groups[seen], seed=seed + 1)
    # The rows that each fit of a layer sees, [fit, row], in this order: all fits of inner folds
    # (which choose the layer), one without each outer fold (which are evaluated), one on all rows.
    inner_fits = [(i, fold) for i in range(len(names)) for fold in range(inner[i].max() + 1)]
    fits = np.stack(
        [(folds != names[index]) & (inner[index] != fold) for index, fold in inner_fits]
        + [folds != name for name in names]
        + [np.ones(len(labels), dtype=bool)]
    )
    rows, fold_of_row = np.arange(len(labels)), np.searchsorted(names, folds)
    inner_areas, outer_scores, in_sample = [], [], []
    for x in layers:
        scores = fitted_scores(x, labels, fits, method, groups)
        # Each row of a training part by the inner fit that has not seen it: [outer fold, row].
        unseen = np.full(inner.shape, np.nan)
        for (index, fold), fitted in zip(inner_fits, scores, strict=False):
            is_unseen = inner[index] == fold
            unseen[index, is_unseen] = fitted[is_unseen]
        inner_areas.append(
            [
                auroc(scores_of_fold[folds != name], labels[folds != name])
                for scores_of_fold, name in zip(unseen, names, strict=True)
            ]
        )
        outer = scores[len(inner_fits) : -1]
        widths = np.array(
            [fitted[folds != name].std() for fitted, name in zip(outer, names, strict=True)]
        )
        # [outer fold, row] -> [row]: every row from the fit without its fold.
        outer_scores.append((outer / widths[:, None])[fold_of_row, rows])
        in_sample.append(auroc(scores[-1], labels))
    # The best layer of each outer fold by its inner AUROC, [layer, outer fold] -> [outer fold]; a
    # row is then scored at the layer that was chosen without its fold.
    chosen = np.argmax(np.array(inner_areas), axis=0)
    cross_validated = np.stack(outer_scores)
    nested = cross_validated[chosen[fold_of_row], rows]
    return LayerSelection(nested, chosen, cross_validated, np.array(in_sample))
