"""Files of others that would fill the memory: refused by what they say of themselves, unread."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from axes.warehouse.errors import ImportFileError

# Numbers of a model's activations, and texts, compress by less; zeros by 1,000 and more.
_MAX_RATIO, _SMALL = 200, 100_000_000


def require_bounded_npz(path: Path) -> None:
    """Raise `ImportFileError` where the arrays of an npz file are far larger than the file."""
    size = 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                is_first = version == (1, 0)
                form = np.lib.format
                read = form.read_array_header_1_0 if is_first else form.read_array_header_2_0
                shape, _, dtype = read(file)
            size += math.prod(shape) * dtype.itemsize
    _require_bounded(path, size)


def require_bounded_parquet(path: Path) -> None:
    """Raise `ImportFileError` where the columns of a Parquet file are far larger than the file."""
    footer = pq.read_metadata(path)
    groups = map(footer.row_group, range(footer.num_row_groups))
    _require_bounded(path, sum(group.total_byte_size for group in groups))


def _require_bounded(path: Path, size: int) -> None:
    stored = path.stat().st_size
    if size > _SMALL and size > _MAX_RATIO * stored:
        raise ImportFileError(
            f"{path} has {stored:,} bytes and says that it holds {size:,}: it would fill the "
            "memory. Write it again without compression if it is yours"
        )
