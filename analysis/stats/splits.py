"""Rows to fit on and rows to judge on, parted before anything is centred or selected.

scikit-learn and scipy are imported where they are used: a fit under a memory limit needs neither.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from axes.warehouse.errors import LabelError

_TOO_FEW = (
    "a class lies in a single group of pairs, sources or near duplicates: nothing can be held out "
    "(texts made from one template count as near duplicates: --least-overlap 1)"
)


def grouped_folds(
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    fold_count: int = 5,
    seed: int = 0,
) -> Int[np.ndarray, " row"]:
    """The fold of every row: whole groups stay together, classes are balanced between folds.

    There are fewer folds where a class lies in fewer groups than `fold_count`, so that every fold
    can hold it; raises `LabelError` where one lies in a single group.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    least = min(len(np.unique(groups[labels == kind])) for kind in np.unique(labels))
    if least < 2:
        raise LabelError(_TOO_FEW)
    fold_count = min(fold_count, least)
    folds = np.zeros(len(labels), dtype=np.int64)
    splitter = StratifiedGroupKFold(n_splits=fold_count, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
        folds[held_out] = fold
    return folds


def joined_groups(*groupings: Int[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
    """Groups that keep together whatever any of the groupings keeps together.

    >>> joined_groups(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])).tolist()
    [0, 0, 0, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = np.arange(len(groupings[0]))
    result = np.zeros(len(rows), dtype=np.int64)
    for index, grouping in enumerate(groupings):
        numbers = np.unique(grouping, return_inverse=True)[1]
        if index == 0:
            result = numbers
            continue
        size = max(result.max(), numbers.max()) + 1
        links = coo_array((np.ones(len(rows)), (result, size + numbers)), shape=(2 * size,) * 2)
        components = connected_components(links, directed=False)[1]
        result = np.unique(components[result], return_inverse=True)[1]
    return result


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
    seed: int | tuple[int, ...],
) -> Bool[np.ndarray, " row"]:
    """True for the rows of a random `fraction` of the groups, drawn among those of like classes.

    Groups of positive rows only, of negative rows only and of both are drawn apart, at least one
    of each kind and never all where there are two. Raises `LabelError` where, of two classes, one
    lies in so few groups that one of the parts goes without.

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
    drawn = is_drawn[numbers]
    class_count = len(np.unique(labels))
    parts = (labels[drawn], labels[~drawn])
    if class_count == 2 and any(len(np.unique(part)) < class_count for part in parts):
        raise LabelError(_TOO_FEW)
    return drawn
