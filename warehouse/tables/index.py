"""The keys of all activation files in one small file per model, so that counting opens no vectors.

ROOT/.index/model=smollm2-135m/keys.parquet

Derived and safe to delete: a writer brings it up to date after each file, and whoever opens the
root compares it with the names and sizes of the stored files and reads the keys of those
that a killed writer, or another tool, left out. `v_stored` is the view of it.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from axes.warehouse.files import TEMPORARY, make_folder, replacing
from axes.warehouse.layout import NO_PARTITION, partition_folder
from axes.warehouse.storage.store import Store, store_at
from axes.warehouse.tables.columns import TEXT
from axes.warehouse.tables.schemas import TABLES

INDEX = ".index"

_TABLE = TABLES["activations"]
_KEYS = ["model_id", "prompt_id", "site", "pooling", "template"]
_SCHEMA = pa.schema(
    [
        pa.field("file", TEXT, nullable=False),
        *(pa.field(name, TEXT, nullable=False) for name in _KEYS),
        pa.field("layers", pa.list_(pa.field("element", pa.int16(), nullable=False))),
    ]
)
# Which files the rows are of, name to size, in the footer, to read them without reading a row.
_FILES = b"safety_axes.files"


def refresh_index(root: Path, model: str | None = None) -> bool:
    """Bring the index of a model (default: of all) up to date; False where the disk refuses.

    Files that cannot be read have no rows in it; queries of `activations` name them.
    """
    store = store_at(root)
    try:
        if model is not None:
            _refresh(store, partition_folder(root, _TABLE, model))
            return True
        folders = {*store.partitions(_TABLE)}
        for folder in folders | {partition_folder(root, _TABLE, NO_PARTITION)}:
            _refresh(store, folder)
        for gone in (store.home / INDEX).iterdir():
            if root / _TABLE.name / gone.name not in folders and NO_PARTITION not in gone.name:
                (gone / "keys.parquet").unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _refresh(store: Store, folder: Path) -> None:
    path = store.home / INDEX / folder.name / "keys.parquet"
    files = _files(store, folder)
    if not files and not path.exists() and NO_PARTITION not in folder.name:
        return
    while (indexed_files := _covered(path)) != files:
        import pyarrow.compute as pc  # Where a file is new: each connection comes by here.

        indexed = pq.read_table(path, partitioning=None) if indexed_files else _SCHEMA.empty_table()
        current = {name for name, size in files.items() if (indexed_files or {}).get(name) == size}
        parts = [indexed.filter(pc.is_in(indexed["file"], pa.array(sorted(current), TEXT)))]
        for name in sorted(files.keys() - current):
            keys = _keys_of(store, folder / name)
            if keys is not None:
                parts.append(keys)
                current.add(name)
        # By file, whatever the order they came in: a rebuilt index has the same bytes.
        table = pa.concat_tables(parts).sort_by("file")
        described = {_FILES: json.dumps({name: files[name] for name in sorted(current)})}
        make_folder(store.home, path.parent)
        with replacing(path, make_folder(store.home, store.home / TEMPORARY)) as temporary:
            pq.write_table(table.replace_schema_metadata(described), temporary, compression="zstd")
        # Another writer may have renamed a file into place since the listing.
        if (again := _files(store, folder)) == files:
            return
        files = again


def _files(store: Store, folder: Path) -> dict[str, int]:
    """Name -> size of the Parquet files; a name is a key of the content."""
    sizes = {}
    for path in store.files(folder):
        with contextlib.suppress(FileNotFoundError):
            sizes[path.name] = store.size(path)
    return sizes


def _covered(path: Path) -> dict[str, int] | None:
    """The files that an index has the keys of; None without a complete index."""
    try:
        return json.loads(pq.read_schema(path).metadata[_FILES])
    except (OSError, pa.ArrowException, TypeError, KeyError, ValueError):
        return None


def _keys_of(store: Store, path: Path) -> pa.Table | None:
    """The keys in a file, the layers of each gathered; None where it cannot be read."""
    try:
        with pq.ParquetFile(store.source(path)) as file:
            read = file.read(columns=[*_KEYS, "layer"])
        # One thread: the order of the rows is then that of the file, and the bytes reproducible.
        grouped = read.group_by(_KEYS, use_threads=False).aggregate([("layer", "list")])
    except (OSError, pa.ArrowException, ValueError):  # A name that is no UTF-8 is a ValueError.
        return None
    names = pa.array([path.name] * len(grouped), TEXT)
    columns = [names, *(grouped[name] for name in _KEYS), grouped["layer_list"]]
    return pa.table(columns, names=_SCHEMA.names).cast(_SCHEMA)
