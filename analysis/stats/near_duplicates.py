"""Prompts that are nearly the same text, so that no copy of a judged prompt is fitted on.

Two texts are near duplicates where their sets of character five-grams overlap by at least half
(Jaccard; Broder 1997). Clusters are the connected components. The overlap is exact, not sketched:
prompt sets are thousands of rows, and a missed copy is a leak.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import CountVectorizer

_SHINGLE = 5
LEAST_OVERLAP = 0.5
_BLOCK_ROWS = 512


def near_duplicate_clusters(
    texts: Sequence[str], *, least_overlap: float = LEAST_OVERLAP
) -> Int[np.ndarray, " row"]:
    """The cluster of every text, numbered in the order of their first texts.

    Case and runs of white space make no difference.

    >>> near_duplicate_clusters(["How do I bake bread?", "Why?", "How do I bake  bread"]).tolist()
    [0, 1, 0]
    """
    counter = CountVectorizer(analyzer=_shingles, binary=True)
    shingles = counter.fit_transform(texts).astype(np.int32)
    sizes = np.asarray(shingles.sum(axis=1)).ravel()
    ends: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, len(texts), _BLOCK_ROWS):
        shared = (shingles[start : start + _BLOCK_ROWS] @ shingles.T).tocoo()
        rows = shared.row + start
        union = sizes[rows] + sizes[shared.col] - shared.data
        is_close = shared.data >= least_overlap * union
        ends.append((rows[is_close], shared.col[is_close]))
    one, other = (np.concatenate(side) for side in zip(*ends, strict=True))
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(texts), len(texts)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _shingles(text: str) -> set[str]:
    plain = " ".join(text.lower().split())
    return {plain[start : start + _SHINGLE] for start in range(max(len(plain) - _SHINGLE + 1, 1))}
