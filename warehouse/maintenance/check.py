"""Is a root sound? Its files against the ledger, the schemas and their bytes; its rows by rules.

The rules (`sql/checks` and the unique keys) ask whether rows agree with each other. Of files it is
asked whether they are those that were written: every file is read once completely, page checksums
included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from axes.warehouse.connection import connect, query
from axes.warehouse.errors import QueryError, RootError
from axes.warehouse.names import ROUTER
from axes.warehouse.storage.layout import empty_file
from axes.warehouse.storage.ledger import Entry, sha256
from axes.warehouse.storage.store import (
    MaintainedStore,
    data_files,
    maintained,
    open_store,
    store_at,
)
from axes.warehouse.tables.catalog import SQL_FOLDER, check_rules
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.comments import without_comments
from axes.warehouse.tables.schemas import TABLES

_REPAIR = "axes warehouse repair sets it aside and says how the rows come back"
_TO_DO = {
    "file_lost": "axes warehouse repair says how the rows come back",
    "file_unlisted": "axes warehouse repair sets it aside, or takes it in with --adopt",
    "file_foreign": "axes warehouse repair sets it aside",
    "file_unreadable": _REPAIR,
    "file_schema": _REPAIR,
    "file_changed": _REPAIR,
    "vector_finite": _REPAIR,
    "vector_width": _REPAIR,
}
FILE_CHECKS = tuple(_TO_DO)

# What reading a broken file raises; a column name that is no UTF-8 is a ValueError.
UNREADABLE = (OSError, MemoryError, pa.ArrowException, ValueError)

# Where the width of a vector column is `models.d_model` of the model that this column names.
_MODEL_OF_VECTOR = {
    "activations": "model_id",
    "prompt_tokens": "model_id",
    "axes": "space_model_id",
}


@dataclass(frozen=True)
class Finding:
    """One thing wrong: the rule, the file below the root, and what is wrong with it.

    `runs` counts the rows that are lost with the file, by the job that wrote them. `is_sound` says
    that the file reads as one of its table, and is no copy of another: the ledger may be wrong.
    """

    check: str
    path: str
    what: str
    table: str
    runs: Mapping[str, int] = field(default_factory=dict)
    is_sound: bool = False


@dataclass(frozen=True)
class _Line:
    """A rule and the rows that break it, 1 for a file."""

    check: str
    row_count: int = 0
    path: str | None = None
    example: str = ""
    to_do: str | None = None


_SCHEMA = pa.schema(
    {
        "check": pa.string(),
        "row_count": pa.int64(),
        "path": pa.string(),
        "example": pa.string(),
        "to_do": pa.string(),
    }
)


def check(root: Path, *, is_quick: bool = False) -> pa.Table:
    """One row per rule that holds, with `row_count` 0, and one per file or rule that does not.

    `row_count` counts the rows that break a rule, 1 for a file; `is_quick` leaves the contents of
    files unread and runs no rule over rows.
    """
    open_store(root, allows_links=True)
    findings = inspect_files(root, is_quick=is_quick)
    broken = {finding.check for finding in findings}
    lines = [_Line(name) for name in FILE_CHECKS if name not in broken]
    lines += [_Line(item.check, 1, item.path, item.what, _TO_DO[item.check]) for item in findings]
    if not is_quick:
        lines += _check_rules(root)
    return pa.Table.from_pylist([asdict(line) for line in lines], schema=_SCHEMA)


def _check_rules(root: Path) -> Iterator[_Line]:
    rules = check_rules()
    try:
        connection = connect(root)
    except RootError as error:
        yield from (_Line(name, 1, None, f"not run: {error}", _REPAIR) for name in rules)
        return
    for name, statement in rules.items():
        try:
            offending = query(connection, statement)
        except QueryError as error:
            yield _Line(name, 1, None, f"not run: {error}", "repair the files first")
            continue
        if not offending.num_rows:
            yield _Line(name)
            continue
        (first,) = offending.slice(0, 1).to_pylist()
        example = ", ".join(f"{column} {value}" for column, value in first.items())
        to_do = f"{_listing(name, statement)} lists the rows"
        yield _Line(name, offending.num_rows, None, example, to_do)


def _listing(name: str, statement: str) -> str:
    """The command that lists the rows which break a rule."""
    if (SQL_FOLDER / "checks" / f"{name}.sql").exists():
        return f"axes sql -f sql/checks/{name}.sql"
    return f'axes sql "{" ".join(without_comments(statement).split())}"'


def require_broken(path: Path, error: Exception) -> None:
    """Raise `RootError` if a file could not be read for the machine's sake: it may be sound."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
        raise RootError(
            f"{path} cannot be read ({_first_line(error)}): no file was moved; free what the "
            "machine is short of, or see to the disk, and try again"
        ) from error


def inspect_files(root: Path, *, is_quick: bool = False) -> list[Finding]:
    """Everything wrong with the files of a root, by table and path.

    `is_quick` compares sizes and footers and leaves the contents unread.
    """
    widths = _model_widths(root)
    findings = []
    for table in TABLES.values():
        found = list(_Inspection(root, table, widths).findings(is_quick))
        if found:
            # A job may have written, replaced or removed files meanwhile: look at those again.
            again = _Inspection(root, table, widths)
            found = [finding for finding in found if again.confirms(finding)]
        findings += found
    return findings


@dataclass(frozen=True)
class _Inspection:
    """The files of one table, compared with the ledger as it is at the first look."""

    root: Path
    table: Table
    widths: Mapping[str, int]

    @cached_property
    def store(self) -> MaintainedStore:
        return maintained(self.root)

    @cached_property
    def stored(self) -> dict[str, int]:
        return self.store.stored(self.table)

    @cached_property
    def entries(self) -> dict[str, Entry]:
        return self.store.entries(self.table.name)

    @cached_property
    def presence(self) -> dict[tuple[str, str], None]:
        """(check, path) of files that are due and absent, or stored and not in the ledger."""
        stored = self.stored.keys()
        empty = self._name(empty_file(self.root, self.table))
        due = {name for name, entry in self.entries.items() if entry.is_due} | {empty}
        unlisted = stored - self.entries.keys() - {empty}
        lost = [("file_lost", name) for name in sorted(due - stored)]
        return dict.fromkeys(lost + [("file_unlisted", name) for name in sorted(unlisted)])

    def findings(self, is_quick: bool) -> Iterator[Finding]:
        for name, what in self.store.foreign(self.table):
            yield Finding("file_foreign", name, what, self.table.name)
        for check, name in self.presence:
            if check == "file_lost":
                entry = self.entries.get(name)
                rows = entry.records[-1].rows if entry else 0
                yield self._finding(check, name, f"is gone; it held {rows} rows")
        digests = {
            record.sha256: name for name, entry in self.entries.items() for record in entry.records
        }
        for name in self.stored:
            path = self.root / name
            try:
                if ("file_unlisted", name) in self.presence:
                    yield self._unlisted(path, digests, is_quick)
                elif found := self.inspect(path, is_quick=is_quick):
                    yield found
            except FileNotFoundError:
                continue  # Removed since it was listed; the ledger is read again at the end.
            except OSError as error:
                require_broken(path, error)

    def confirms(self, finding: Finding) -> bool:
        """Whether the finding of an earlier inspection still holds."""
        if finding.check in ("file_lost", "file_unlisted"):
            return (finding.check, finding.path) in self.presence
        if finding.check == "file_foreign":
            return True
        with suppress(FileNotFoundError):
            return self.inspect(self.root / finding.path) is not None
        return False

    def inspect(self, path: Path, *, is_quick: bool = False) -> Finding | None:
        """What is wrong with a file; raises `FileNotFoundError` where it has gone."""
        if is_quick:
            return self._inspect(path, self.store.source(path), is_quick=True)
        with self.store.local(path) as file:
            return self._inspect(path, file, is_quick=False)

    def _inspect(self, path: Path, source: Path | IO[bytes], *, is_quick: bool) -> Finding | None:
        name = self._name(path)
        try:
            with pq.ParquetFile(source, page_checksum_verification=True) as file:
                if difference := _schema_difference(self.table, file.schema_arrow):
                    return self._finding("file_schema", name, difference)
                if not is_quick and (wrong := _wrong_vectors(file, self.table, self.widths)):
                    check, what = wrong
                    return self._finding(check, name, what)
        except FileNotFoundError:
            raise
        except UNREADABLE as error:
            require_broken(path, error)
            return self._finding("file_unreadable", name, _first_line(error))
        entry = self.entries.get(name)
        if entry is None:
            return None
        size = self.stored.get(name)
        if size not in {record.size for record in entry.records}:
            what = f"has {size} bytes, {entry.records[-1].size} were written"
            return replace(self._finding("file_changed", name, what), is_sound=not is_quick)
        if isinstance(source, Path) and not is_quick and not entry.has(sha256(source)):
            what = "holds other bytes than were written"
            return replace(self._finding("file_changed", name, what), is_sound=True)
        return None

    def _unlisted(self, path: Path, digests: Mapping[str, str], is_quick: bool) -> Finding:
        with self.store.local(path) as file:
            digest = sha256(file)
        original = next((digests[each] for each in (digest, digest[:16]) if each in digests), None)
        what = "was not written by this warehouse, or before it kept a ledger"
        if original is not None:
            what = f"is a copy of {original}"
        is_sound = original is None and self.inspect(path, is_quick=is_quick) is None
        name = self._name(path)
        return Finding("file_unlisted", name, what, self.table.name, is_sound=is_sound)

    def _finding(self, check: str, name: str, what: str) -> Finding:
        return Finding(check, name, what, self.table.name, self._runs(name))

    def _runs(self, name: str) -> Mapping[str, int]:
        entry = self.entries.get(name)
        return entry.runs if entry else {}

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _wrong_vectors(
    file: pq.ParquetFile, table: Table, widths: Mapping[str, int]
) -> tuple[str, str] | None:
    """Read every page; (check, what) of the first vector that is not finite or of another width."""
    model_column = _MODEL_OF_VECTOR.get(table.name)
    for index in range(file.num_row_groups):
        group = file.read_row_group(index)
        for column in table.vector_columns:
            vectors = group.column(column).combine_chunks()
            if not np.isfinite(vectors.flatten().to_numpy(zero_copy_only=False)).all():
                return "vector_finite", f"{column} holds NaN or infinity in row group {index}"
            if model_column is None:
                continue
            models, sites = (group.column(name).to_pylist() for name in (model_column, "site"))
            lengths = np.diff(vectors.offsets.to_numpy()).tolist()
            for model_id, site, length in set(zip(models, sites, lengths, strict=True)):
                if site != ROUTER and length != widths.get(model_id, length):
                    what = (
                        f"{column} of {length} numbers in row group {index}, "
                        f"{widths[model_id]} are d_model of {model_id}"
                    )
                    return "vector_width", what
    return None


def _schema_difference(table: Table, schema: pa.Schema) -> str:
    """How a file's columns differ from the table's; empty where they do not."""
    expected = table.file_schema
    if schema.equals(expected, check_metadata=False):
        return ""
    missing = sorted(set(expected.names) - set(schema.names))
    unknown = sorted(set(schema.names) - set(expected.names))
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has unknown columns {', '.join(unknown)}"] if unknown else []
        return " and ".join(parts)
    other = [field.name for field in expected if not schema.field(field.name).equals(field)]
    return f"has another type or order at {', '.join(other) or 'its columns'}"


def _model_widths(root: Path) -> dict[str, int]:
    """model_id -> d_model, from the files of `models` that can be read."""
    widths: dict[str, int] = {}
    for path in data_files(root, TABLES["models"]):
        try:
            with pq.ParquetFile(store_at(root).source(path)) as file:
                found = file.read(columns=["model_id", "d_model"])
        except UNREADABLE as error:
            require_broken(path, error)
            continue
        for row in found.to_pylist():
            if row.get("model_id") is not None and row.get("d_model") is not None:
                widths[row["model_id"]] = row["d_model"]
    return widths


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
