"""What runs in a child: a command, or a question about a warehouse. Importing it takes seconds."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import axes.analysis.drift.drift
import axes.analysis.exchange.export_axes
import axes.analysis.exchange.import_axes
import axes.analysis.report.report
import axes.analysis.routing.routing
import axes.analysis.study.run
import axes.cli.catalog
import axes.cli.evaluate
import axes.cli.exchange
import axes.cli.generation.drift
import axes.cli.generation.intervene
import axes.cli.generation.label
import axes.cli.generation.route
import axes.cli.ingest
import axes.cli.study
import axes.cli.warehouse
import axes.ingest.activation_writer
import axes.ingest.activations
import axes.ingest.external.activations
import axes.ingest.generation.interventions
import axes.ingest.generation.traces
import axes.ingest.labels.labeling
import axes.ingest.prompts
import axes.warehouse.maintenance.merge
import axes.warehouse.maintenance.migration
import axes.warehouse.maintenance.repair
import axes.warehouse.maintenance.standalone
import axes.warehouse.maintenance.subset
import axes.warehouse.maintenance.vacuum
from axes.cli.main import cli, main
from axes.warehouse.errors import AxesError
from axes.warehouse.maintenance.check import FILE_CHECKS, check, inspect_files
from axes.warehouse.storage.layout import MARKER, require_root
from axes.warehouse.storage.store import data_files
from axes.warehouse.tables.columns import TIME, VECTOR
from axes.warehouse.tables.schemas import TABLES
from tests.tiny_models import save_tiny

__all__ = ["Seen", "build", "inspect", "main", "prepare", "save_models"]

Rows = dict[tuple, tuple]
# Columns that say which job wrote a row, and when.
_OF_THE_JOB = ("run_id",)


class Seen(NamedTuple):
    """A warehouse as it is: rows by table and key, output files by digest, what `check` finds.

    `doubled` are tables with two rows of one key; `findings` are about files, `rules` about rows,
    None where they were not run.
    """

    rows: dict[str, Rows]
    doubled: list[str]
    outputs: dict[str, str]
    findings: list[str]
    rules: list[str] | None


def prepare(cache: Path) -> None:
    """One thread, a cache and temporary files of its own, and a commit for every batch."""
    torch.set_num_threads(1)
    cache.mkdir(exist_ok=True)
    tempfile.tempdir = str(cache)
    os.environ["AXES_CACHE"] = str(cache)
    os.environ["XDG_CONFIG_HOME"] = str(cache)
    axes.ingest.activation_writer._FLUSH_BYTES = 1


def build(cache: Path, commands: list[list[str]]) -> None:
    """Run commands one after the other, without a word; raises for one that fails."""
    prepare(cache)
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        for words in commands:
            cli.main(words, standalone_mode=False)


def save_models(folder: Path) -> None:
    """Two tiny random models of one width."""
    torch.set_num_threads(1)
    save_tiny(folder / "small", "llama", seed=1)
    save_tiny(folder / "large", "qwen2", seed=2)


def inspect(root: Path, outputs: Path, is_complete: bool) -> Seen:
    """Everything in a warehouse and among the files written elsewhere.

    `is_complete` runs the rules over rows, too, which takes ten times as long.
    """
    torch.set_num_threads(1)
    # What is hidden is half of something, and no output yet.
    shown = [
        path
        for path in sorted(outputs.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(outputs).parts)
    ]
    roots = [path for path in (root, *shown) if (path / MARKER).exists()]
    seen = Seen({}, [], {}, [], [] if is_complete else None)
    for place in roots:
        _add(seen, place, "" if place == root else f"{place.name}/")
    for path in shown:
        if path.is_file() and not any(place in path.parents for place in roots):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            seen.outputs[path.relative_to(outputs).as_posix()] = digest
    return seen


def _add(seen: Seen, root: Path, prefix: str) -> None:
    """Add a warehouse to what is seen; table names get the prefix."""
    try:
        require_root(root)
        seen.findings.extend(f"{found.check} {found.path}" for found in inspect_files(root))
        if seen.rules is not None:
            broken = [row for row in check(root).to_pylist() if row["row_count"]]
            seen.rules.extend(row["check"] for row in broken if row["check"] not in FILE_CHECKS)
    except AxesError as error:
        seen.findings.append(f"root: {error}")
        return
    for name, table in TABLES.items():
        held: Rows = {}
        for path in data_files(root, table):
            try:
                stored = pq.ParquetFile(path).read()
                rows = _rows(stored, path, name)
            except (OSError, ValueError, KeyError, pa.ArrowException) as error:
                seen.findings.append(f"{path.relative_to(root)}: {error}")
                continue
            if held.keys() & rows.keys() or len(rows) < len(stored):
                seen.doubled.append(prefix + name)
            held |= rows
        # Jobs that were killed are there, too.
        if name != "runs":
            seen.rows[prefix + name] = held


def _rows(stored: pa.Table, path: Path, name: str) -> Rows:
    """Key -> the other columns, a vector as its bytes; the partition is part of the key."""
    table = TABLES[name]
    partition = path.parent.name if table.partition else ""
    columns: dict[str, list] = {}
    for field in stored.schema:
        column = stored.column(field.name)
        if field.type == VECTOR:
            columns[field.name] = [
                None if value is None else np.asarray(value, dtype=np.float32).tobytes()
                for value in column.to_pylist()
            ]
        elif field.name not in _OF_THE_JOB and field.type != TIME:
            columns[field.name] = [_plain(value) for value in column.to_pylist()]
    key = [column for column in table.key if column in columns]
    others = [column for column in columns if column not in key]
    held: Rows = {}
    for row in range(len(stored)):
        values = tuple(columns[column][row] for column in key)
        if name == "runs":
            values = (stored.column("run_id")[row].as_py(),)
        held[partition, *values] = tuple(columns[column][row] for column in others)
    return held


def _plain(value: object) -> object:
    """The value as numbers, texts and tuples, which need no library to be read."""
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _plain(item)) for name, item in value.items())
    return value if isinstance(value, int | float | str | bool | type(None)) else repr(value)
