"""Rows to fit on and rows to judge on, parted before anything is centred or selected."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int
from sklearn.model_selection import StratifiedGroupKFold


def grouped_folds(
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    fold_count: int = 5,
    seed: int = 0,
) -> Int[np.ndarray, " row"]:
    """The fold of every row: whole groups stay together, classes are balanced between folds.

    There are fewer folds where there are fewer groups than `fold_count`.
    """
    fold_count = min(fold_count, len(np.unique(groups)))
    folds = np.zeros(len(labels), dtype=np.int64)
    splitter = StratifiedGroupKFold(n_splits=fold_count, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
        folds[held_out] = fold
    return folds


def held_out_mask(row_count: int, *, fraction: float, seed: int) -> Bool[np.ndarray, " row"]:
    """True for a random `fraction` of the rows (at least one, and never all)."""
    count = min(max(round(fraction * row_count), 1), row_count - 1)
    mask = np.zeros(row_count, dtype=bool)
    mask[np.random.default_rng(seed).permutation(row_count)[:count]] = True
    return mask
