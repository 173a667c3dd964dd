"""The keys of all activation files in one small file per model, so that counting opens no vectors.

ROOT/.index/model=smollm2-135m/keys.parquet

Derived and safe to delete: a writer brings it up to date after each file, and whoever opens the
root compares it with the names and sizes of the stored files and reads the keys of those
that a killed writer, or another tool, left out. `v_stored` is the view of it.

Of a root on an object store each machine has its own; a copy on the store, put whenever it has
grown by an eighth and when a job ends, saves a new machine from reading the keys of every file.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from axes.warehouse.errors import RootError
from axes.warehouse.storage.files import TEMPORARY, make_folder, replacing
from axes.warehouse.storage.layout import NO_PARTITION, partition_folder
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
# With no more than this many new files the copy is not looked for.
_FEW = 8
# Files whose keys are read at once: decoding leaves Python free, and a store answers slowly.
_READERS = 8


def stored_keys(root: Path, model: str) -> pa.Table:
    """The keys of a model's activations, in columns as in `v_stored`, of each file.

    Raises `RootError` for a file that cannot be read.
    """
    store, folder = store_at(root), partition_folder(root, _TABLE, model)
    store.refresh(_TABLE.name)
    path = _index_file(store, folder)
    if refresh_index(root, model, is_shared=True) and _covered(path) == _files(store, folder):
        return pq.read_table(path, partitioning=None)
    parts = [_SCHEMA.empty_table()]
    for path in store.files(folder):
        if (keys := _keys_of(store, path)) is None:
            raise RootError(f"{path} cannot be read: run `axes warehouse check`")
        parts.append(keys)
    return pa.concat_tables(parts)


def refresh_index(root: Path, model: str | None = None, *, is_shared: bool = False) -> bool:
    """Bring the index of a model (default: of all) up to date; False where the disk refuses.

    Files that cannot be read have no rows in it; queries of `activations` name them. `is_shared`
    brings the copy on an object store up to date, too.
    """
    store = store_at(root)
    try:
        folders = {partition_folder(root, _TABLE, NO_PARTITION if model is None else model)}
        folders |= {*store.partitions(_TABLE)} if model is None else set()
        for folder in folders:
            _refresh(store, folder)
            _share(store, _index_file(store, folder), is_shared)
        if model is not None:
            return True
        for gone in (store.home / INDEX).iterdir():
            if root / _TABLE.name / gone.name not in folders:
                (gone / "keys.parquet").unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _index_file(store: Store, folder: Path) -> Path:
    return store.home / INDEX / folder.name / "keys.parquet"


def _share(store: Store, path: Path, is_shared: bool) -> None:
    """Put the index on the store where the copy there is behind: by an eighth, or by any file."""
    if store.home == store.root:
        return
    copy, covered = path.with_suffix(".copy"), _covered(path) or {}
    new = covered.items() - (_covered(copy) or {}).items()
    if len(new) > (0 if is_shared else len(covered) // 8):
        shutil.copyfile(path, copy)
        store.share(path)


def _fetch(store: Store, path: Path, files: dict[str, int]) -> None:
    """Take the copy on the store where it has the keys of more of the files."""
    copy = path.with_suffix(".copy")
    if len(files.keys() - (_covered(path) or {}).keys()) > _FEW and store.fetch(path, copy):
        here, there = ((_covered(place) or {}).items() & files.items() for place in (path, copy))
        if len(there) > len(here):
            shutil.copyfile(copy, path)


def _refresh(store: Store, folder: Path) -> None:
    path = _index_file(store, folder)
    files = _files(store, folder)
    _fetch(store, path, files)
    if not files and not path.exists() and NO_PARTITION not in folder.name:
        return
    while (indexed_files := _covered(path)) != files:
        import pyarrow.compute as pc  # Where a file is new: each connection comes by here.

        indexed = pq.read_table(path, partitioning=None) if indexed_files else _SCHEMA.empty_table()
        current = {name for name, size in files.items() if (indexed_files or {}).get(name) == size}
        parts = [indexed.filter(pc.is_in(indexed["file"], pa.array(sorted(current), TEXT)))]
        new = sorted(files.keys() - current)
        with ThreadPoolExecutor(_READERS) as readers:
            keys = readers.map(partial(_keys_of, store), map(folder.joinpath, new))
            found = {name: rows for name, rows in zip(new, keys, strict=True) if rows is not None}
        parts += found.values()
        current |= found.keys()
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
