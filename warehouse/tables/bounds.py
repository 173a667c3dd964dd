"""Files of others that would fill the memory: refused by what they say of themselves, unread."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from axes.warehouse.errors import ImportFileError

# Numbers of a model's activations, and texts, compress by less; zeros by 1,000 and more.
_MAX_RATIO, _SMALL = 200, 100_000_000


def read_npz_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Name -> shape and type of each array of an npz file.

    Raises `ImportFileError` where the arrays are far larger than the file.
    """
    headers, size = {}, 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                form = np.lib.format
                is_first = form.read_magic(file) == (1, 0)
                read = form.read_array_header_1_0 if is_first else form.read_array_header_2_0
                shape, _, dtype = read(file)
            headers[member.filename.removesuffix(".npy")] = shape, dtype
            size += math.prod(shape) * dtype.itemsize
    require_bounded(path, size)
    return headers


def require_bounded_parquet(path: Path) -> None:
    """Raise `ImportFileError` where the columns of a Parquet file are far larger than the file."""
    footer = pq.read_metadata(path)
    groups = map(footer.row_group, range(footer.num_row_groups))
    require_bounded(path, sum(group.total_byte_size for group in groups))


def require_own_files(data_set: Path | str, names: Iterable[str]) -> None:
    """Raise `ImportFileError` where a data set of HF names files of others as its own.

    `data_set` is a folder, or OWNER/NAME of the hub; what it names may be links, `..` or addresses.
    """
    is_folder, home = Path(data_set).is_dir(), Path(data_set).resolve()
    for name in names:
        is_hub, is_local = name.startswith(f"hf://datasets/{data_set}@"), "://" not in name
        is_inside = is_local and (home / name).resolve().is_relative_to(home)
        if not (is_inside if is_folder else is_hub):
            raise ImportFileError(
                f"{data_set} names {name}, which is outside of it: copy the file into the data set "
                "if you mean to read it"
            )


def require_bounded(path: Path, size: int) -> None:
    """Raise `ImportFileError` where a file holds `size` bytes that are far more than its own."""
    stored = path.stat().st_size
    if size > _SMALL and size > _MAX_RATIO * stored:
        raise ImportFileError(
            f"{path} has {stored:,} bytes and says that it holds {size:,}: it would fill the "
            "memory. Write it again without compression if it is yours"
        )
