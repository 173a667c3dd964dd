"""Go through matrices row block by row block: the one way that works for any number of rows.

A block is a few megabytes, so a matrix of a few thousand rows is one block and nothing is lost; one
that lies on disk (`axes.warehouse.scratch`) is never in memory whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.warehouse.scratch import Rows, StoredRows

BLOCK_BYTES = 8 << 20
# A product with one vector is bound by memory: what it converts has to stay in the cache.
_PRODUCT_BYTES = 1 << 20


def blocks(
    *matrices: Any,
    where: Bool[np.ndarray, " row"] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[tuple]:
    """The same rows of every matrix (or vector) at a time, only those `where` is true.

    >>> [len(x) for (x,) in blocks(np.ones((5, 2)), where=np.array([1, 1, 0, 1, 0], dtype=bool))]
    [3]
    """
    widest = max(matrix.shape[-1] if len(matrix.shape) > 1 else 1 for matrix in matrices)
    step = max(block_bytes // (4 * widest), 1)
    for start in range(0, len(matrices[0]), step):
        part = slice(start, start + step)
        if where is None:
            yield tuple(matrix[part] for matrix in matrices)
        elif where[part].any():
            yield tuple(matrix[part][where[part]] for matrix in matrices)


def project(
    x: Rows, vector: Float[np.ndarray, " d_model"], offset: float = 0.0
) -> Float[np.ndarray, " row"]:
    """`x @ vector + offset`."""
    parts = blocks(x, block_bytes=_PRODUCT_BYTES)
    return np.concatenate([block @ vector for (block,) in parts]) + offset


def mean(x: Rows, where: Bool[np.ndarray, " row"] | None = None) -> Float[np.ndarray, " d_model"]:
    """The mean of the rows, in float64."""
    total, count = np.zeros(x.shape[1]), 0
    for (block,) in blocks(x, where=where):
        total += block.sum(axis=0, dtype=np.float64)
        count += len(block)
    return total / count


def take(x: Rows, index: Int[np.ndarray, " part"]) -> Rows:
    """The rows of `index`, in its order; of a matrix on disk, without reading them."""
    return x.take(index) if isinstance(x, StoredRows) else x[index]
