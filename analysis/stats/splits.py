"""Splits of rows: folds and held-out parts, clusters of near duplicates, matched pairs.

Rows to fit on and rows to evaluate on are split before anything is centred or selected, and no copy
of an evaluated prompt is fitted on: two texts are near duplicates where their sets of character
five-grams overlap by at least half (Jaccard; Broder 1997), and clusters are the connected
components. The overlap is exact, not sketched: prompt sets are thousands of rows, and a missed copy
is a leak.

scikit-learn and scipy are imported where they are used: a fit under a memory limit needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from axes.analysis.stats.auroc import Groups, Labels, Scores
from axes.warehouse.errors import LabelError

# Two texts are near duplicates where their five-grams overlap by as much.
LEAST_OVERLAP = 0.5
_TOO_FEW = (
    "a class lies in a single group of pairs, sources or near duplicates: nothing can be held out "
    "(texts made from one template count as near duplicates: --min-overlap 1)"
)


def grouped_folds(labels: Labels, groups: Groups, *, fold_count: int = 5, seed: int = 0) -> Groups:
    """The fold of every row: whole groups stay together, classes are balanced between folds.

    Groups are dealt to folds in random order, those of one class first, then those of both, then
    those of the other, large ones first. There are fewer folds where a class lies in fewer groups
    than `fold_count`, so that every fold holds it; raises `LabelError` where one lies in a single
    group.

    >>> folds = grouped_folds(np.arange(20) % 2 == 0, np.arange(20) // 2)
    >>> np.bincount(folds).tolist(), bool((folds[::2] == folds[1::2]).all())
    ([4, 4, 4, 4, 4], True)
    """
    group = np.unique(groups, return_inverse=True)[1]
    counts = (np.bincount(group, weights=kind) for kind in (labels, ~labels))
    sizes = np.stack(list(counts))
    holds = sizes > 0
    least = min(int(each.sum()) for each in holds if each.any())
    if least < 2:
        raise LabelError(_TOO_FEW)
    count = min(fold_count, least)
    random = np.random.default_rng(seed)
    # The last key counts first. Groups of a class are neighbours, so each fold is dealt one.
    order = np.lexsort((random.random(len(holds.T)), -sizes.sum(axis=0), *holds * [[-1], [1]]))
    dealt = np.empty(len(order), dtype=np.int64)
    dealt[order] = random.permutation(count)[np.arange(len(order)) % count]
    return dealt[group]


def out_of_fold(
    fit: Callable[[Labels], Float[np.ndarray, "*scorer row"]], folds: Groups
) -> Float[np.ndarray, "*scorer row"]:
    """Each row's scores by what `fit` fits on the rows of the other folds.

    `fit` gets the mask of the rows to fit on, and gives the scores of all rows: of one scorer or,
    in leading dimensions, of several. All that depends on labels (a fit, a choice, centring)
    belongs into it.

    >>> out_of_fold(lambda seen: np.full(len(seen), seen.sum()), np.array([0, 0, 1])).tolist()
    [1, 1, 2]
    """
    names = np.unique(folds)
    by_fold = np.stack([fit(folds != name) for name in names])
    # [fold, *scorer, row]: a row keeps the scores of the fit without its fold.
    held_out = by_fold[np.searchsorted(names, folds), ..., np.arange(len(folds))]
    return np.moveaxis(held_out, 0, -1)


def joined_groups(first: Groups, second: Groups) -> Groups:
    """Groups that keep together whatever either of the groupings keeps together.

    >>> joined_groups(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])).tolist()
    [0, 0, 0, 1]
    """
    first, second = (np.unique(each, return_inverse=True)[1] for each in (first, second))
    # The groups of both are the nodes, a row is an edge between its two groups.
    size = first.max() + 1
    components = _components(first, size + second, size + second.max() + 1)
    return np.unique(components[first], return_inverse=True)[1]


def unsplit_groups(
    groups: Groups, texts: Sequence[str], *, least_overlap: float = LEAST_OVERLAP
) -> Groups:
    """Groups that keep near duplicates among the texts together, too."""
    return joined_groups(groups, near_duplicate_clusters(texts, least_overlap=least_overlap))


def held_out_mask(row_count: int, *, fraction: float, seed: int) -> Labels:
    """True for a random `fraction` of the rows (at least one, and never all)."""
    count = min(max(round(fraction * row_count), 1), row_count - 1)
    mask = np.zeros(row_count, dtype=bool)
    mask[np.random.default_rng(seed).permutation(row_count)[:count]] = True
    return mask


def held_out_groups(
    labels: Labels, groups: Groups, *, fraction: float, seed: int | tuple[int, ...]
) -> Labels:
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


_SHINGLE = 5
_BLOCK_ROWS = 512


def near_duplicate_clusters(
    texts: Sequence[str], *, least_overlap: float = LEAST_OVERLAP
) -> Groups:
    """The cluster of every text, numbered in the order of their first texts.

    Case and runs of white space make no difference.

    >>> near_duplicate_clusters(["How do I bake bread?", "Why?", "How do I bake  bread"]).tolist()
    [0, 1, 0]
    """
    from sklearn.feature_extraction.text import CountVectorizer

    shingles = CountVectorizer(analyzer=_shingles).fit_transform(texts).astype(np.int32)
    first, second = _close(shingles, shingles, least_overlap)
    return _components(first, second, len(texts)).astype(np.int64)


def has_near_duplicate(
    texts: Sequence[str], others: Sequence[str], *, least_overlap: float = LEAST_OVERLAP
) -> Labels:
    """For each text, whether one of the others is nearly the same.

    >>> has_near_duplicate(["How do I bake bread?", "Why?"], ["how do I bake bread"]).tolist()
    [True, False]
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer=_shingles).fit([*texts, *others])
    own, other = (counter.transform(each).astype(np.int32) for each in (texts, others))
    found = np.zeros(len(texts), dtype=bool)
    found[_close(own, other, least_overlap)[0]] = True
    return found


def _close(own: Any, other: Any, least_overlap: float) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of two texts each that are near duplicates; sparse counts `[text, shingle]`."""
    sizes = [np.asarray(each.sum(axis=1)).ravel() for each in (own, other)]
    # Shared shingles of a block of texts with all others, [block, text] sparse.
    ends: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, own.shape[0], _BLOCK_ROWS):
        shared = (own[start : start + _BLOCK_ROWS] @ other.T).tocoo()
        rows = shared.row + start
        union = sizes[0][rows] + sizes[1][shared.col] - shared.data
        is_close = shared.data >= least_overlap * union
        ends.append((rows[is_close], shared.col[is_close]))
    first, second = (np.concatenate(side) for side in zip(*ends, strict=True))
    return first, second


def _components(first: np.ndarray, second: np.ndarray, node_count: int) -> np.ndarray:
    """The component of every node of an undirected graph, given the ends of its edges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first)), (first, second)), shape=(node_count, node_count))
    return connected_components(graph, directed=False)[1]


def _shingles(text: str) -> set[str]:
    plain = " ".join(text.lower().split())
    return {plain[start : start + _SHINGLE] for start in range(max(len(plain) - _SHINGLE + 1, 1))}


CALIPER = 0.2


def match(
    values: Scores, is_positive: Labels, *, caliper: float = CALIPER
) -> Int[np.ndarray, "pair 2"]:
    """Pairs of a positive and a negative row alike in one number, the positive one first.

    Optimal matching without replacement: as many pairs as the caliper allows, of least total
    distance (Rosenbaum 1989). `caliper` is in standard deviations within classes (Rosenbaum and
    Rubin 1985, Austin 2011).

    >>> match(np.array([0.0, 5.0, 5.1, 9.0]), np.array([True, True, False, False])).tolist()
    [[1, 2]]
    """
    from scipy.optimize import linear_sum_assignment

    positive, negative = np.flatnonzero(is_positive), np.flatnonzero(~is_positive)
    if not len(positive) or not len(negative):
        return np.empty((0, 2), dtype=np.int64)
    reach = caliper * _within_deviation(values[positive], values[negative])
    distances = np.abs(values[positive][:, None] - values[negative])
    # Farther than all allowed distances together, so that the most pairs come first.
    too_far = (reach + 1) * (min(len(positive), len(negative)) + 1)
    first, second = linear_sum_assignment(np.where(distances <= reach, distances, too_far))
    near = distances[first, second] <= reach
    return np.stack([positive[first[near]], negative[second[near]]], axis=1)


def standardised_difference(values: Scores, is_positive: Labels) -> float:
    """Mean of the positive rows less that of the others, in standard deviations within classes."""
    positive, negative = values[is_positive], values[~is_positive]
    width = _within_deviation(positive, negative)
    return float((positive.mean() - negative.mean()) / width) if width > 0 else 0.0


def _within_deviation(positive: Scores, negative: Scores) -> float:
    return float(np.sqrt((positive.var() + negative.var()) / 2))
