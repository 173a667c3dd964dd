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
    names, rows = np.unique(folds), np.arange(len(labels))
    fold_of_row, trained = np.searchsorted(names, folds), folds != names[:, None]
    # The rows that each fit of a layer sees, [fit, row]: first, within the training part of each
    # outer fold, all but each inner fold (these fits choose the layer). `unseen_by` is the one of
    # them that has not seen a row, [outer fold, row]; rows of the outer fold itself have none.
    inner_fits: list[Labels] = []
    unseen_by = np.zeros(trained.shape, dtype=np.int64)
    for index, part in enumerate(trained):
        inner = np.full(len(labels), -1)
        inner[part] = grouped_folds(labels[part], groups[part], seed=seed + 1)
        unseen_by[index] = len(inner_fits) + inner
        inner_fits += [part & (inner != fold) for fold in range(inner.max() + 1)]
    # Then all but each outer fold (these fits are evaluated), and at last all rows.
    fits = np.concatenate([inner_fits, trained, np.ones((1, len(labels)), dtype=bool)])
    inner_areas, outer_scores, in_sample = [], [], []
    for x in layers:
        scores = fitted_scores(x, labels, fits, method, groups)
        unseen, outer = scores[unseen_by, rows], scores[len(inner_fits) : -1]
        inner_areas.append(
            [auroc(each[part], labels[part]) for each, part in zip(unseen, trained, strict=True)]
        )
        widths = np.array([each[part].std() for each, part in zip(outer, trained, strict=True)])
        # [outer fold, row] -> [row]: every row from the fit without its fold.
        outer_scores.append((outer / widths[:, None])[fold_of_row, rows])
        in_sample.append(auroc(scores[-1], labels))
    # The best layer of each outer fold by its inner AUROC, [layer, outer fold] -> [outer fold]; a
    # row is then scored at the layer that was chosen without its fold.
    chosen = np.argmax(np.array(inner_areas), axis=0)
    cross_validated = np.stack(outer_scores)
    nested = cross_validated[chosen[fold_of_row], rows]
    return LayerSelection(nested, chosen, cross_validated, np.array(in_sample))
