"""Arrays with names, as safetensors, npz and torch files hold them, to vectors by number.

Arrays of one dimension are numbered by the integer in their names, of which a single one needs
none; one array of two dimensions has a direction in every row that is not zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from axes.analysis.exchange.formats.contents import Card, Contents, Vectors
from axes.warehouse.errors import AxisError


def read_arrays(named: Mapping[str, np.ndarray], cards: Sequence[Card] = ()) -> Contents:
    """The contents of a file of arrays, with the cards if it is of this project."""
    vectors, row_count = by_number(named)
    convention = cards[0]["file"]["convention"] if cards else None
    return Contents(vectors=vectors, convention=convention, row_count=row_count, cards=cards)


def by_number(named: Mapping[str, np.ndarray]) -> tuple[Vectors, int | None]:
    """The vectors, float32, and the count of rows where they are those of one matrix.

    Raises `AxisError` for anything else: names, shapes and what is expected.
    """
    numbers = {name: re.findall(r"\d+", name) for name in named}
    if len(named) == 1:
        ((name, array),) = named.items()
        if array.ndim == 2 and len(array) == 1:
            array = array[0]
        if array.ndim == 1:
            number = int(numbers[name][0]) if len(numbers[name]) == 1 else None
            return {number: array.astype(np.float32)}, None
        if array.ndim == 2:
            rows = array.astype(np.float32)
            return {row: rows[row] for row in range(len(rows)) if rows[row].any()}, len(rows)
    is_numbered = all(len(found) == 1 for found in numbers.values())
    if not named or not is_numbered or any(array.ndim != 1 for array in named.values()):
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in named.items())
        raise AxisError(
            "expected one array [d_model], one [layers, d_model], or several [d_model] with a "
            f"layer's number in each name, found {shapes or 'none'}"
        )
    vectors = {int(numbers[name][0]): array.astype(np.float32) for name, array in named.items()}
    if len(vectors) < len(named):
        raise AxisError(f"two arrays have the same number: {', '.join(sorted(named))}")
    return dict(sorted(vectors.items())), None
