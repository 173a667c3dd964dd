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


def held_out_groups(
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    fraction: float,
    seed: int,
) -> Bool[np.ndarray, " row"]:
    """True for the rows of a random `fraction` of the groups, drawn among those of like classes.

    Groups of positive rows only, of negative rows only and of both are drawn apart, at least one
    of each kind and never all where there are two.

    >>> drawn = held_out_groups(np.arange(8) % 2 == 0, np.arange(8) // 2, fraction=0.5, seed=0)
    >>> int(drawn.sum()), bool((drawn[::2] == drawn[1::2]).all())
    (4, True)
    """
    random = np.random.default_rng(seed)
    numbers = np.unique(groups, return_inverse=True)[1]
    kinds = np.zeros(numbers.max() + 1, dtype=np.int64)
    kinds[numbers[labels]] |= 1
    kinds[numbers[~labels]] |= 2
    is_drawn = np.zeros(len(kinds), dtype=bool)
    for kind in np.unique(kinds):
        members = random.permutation(np.flatnonzero(kinds == kind))
        count = min(max(round(fraction * len(members)), 1), max(len(members) - 1, 1))
        is_drawn[members[:count]] = True
    return is_drawn[numbers]
