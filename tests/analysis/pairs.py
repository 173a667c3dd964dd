"""Rows with a planted relation for the tests of alignments, and any scores with labels."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

Pairs = tuple[np.ndarray, np.ndarray]


def pairs(
    count: int = 300,
    *,
    width: int = 20,
    targets: int = 7,
    rank: int | None = None,
    noise: float = 0.1,
    offset: float = 0.0,
    seed: int = 0,
) -> Pairs:
    """`y` is an affine image of `x`, of a rank if one is given, with noise.

    Scales of the dimensions of `x` span two decades, and `offset` moves all of it.
    """
    random = np.random.default_rng(seed)
    x = random.standard_normal((count, width)) * np.logspace(0, 2, width) + offset
    weights = random.standard_normal((width, targets))
    if rank is not None:
        weights = random.standard_normal((width, rank)) @ random.standard_normal((rank, targets))
    return x, x @ weights + 3.0 + noise * random.standard_normal((count, targets))


def labelled_scores(reach: int, max_size: int, *, class_count: int = 1) -> st.SearchStrategy[Pairs]:
    """Scores of a few distinct values, so with many ties, and labels of one class or of both."""
    rows = st.lists(
        st.tuples(st.integers(-reach, reach), st.booleans()), min_size=2, max_size=max_size
    )
    return (
        rows.map(lambda pairs: tuple(map(np.array, zip(*pairs, strict=True))))
        .filter(lambda columns: len(np.unique(columns[1])) >= class_count)
        .map(lambda columns: (columns[0].astype(float), columns[1]))
    )
