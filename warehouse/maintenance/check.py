"""What is wrong with the files of a root: each against the ledger, the schemas and its own bytes.

The rules of `sql/checks` ask whether rows agree with each other; here it is asked whether the files
are those that were written. Every file is read once whole, page checksums included.

Is a root sound? The rules of sql/checks over its rows, and its files against the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from axes.warehouse.connection import SQL_FOLDER, check_rules, connect, query
from axes.warehouse.errors import QueryError, RootError
from axes.warehouse.layout import NO_PARTITION, partition_folder, require_root
from axes.warehouse.ledger import Entry, read_ledger, sha256
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.comments import without_comments
from axes.warehouse.tables.schemas import TABLES

EMPTY_FILE = "schema.parquet"

# Where the width of a vector column is `models.d_model` of the model that this column names.
_MODEL_OF_VECTOR = {
    "activations": "model_id",
    "prompt_tokens": "model_id",
    "axes": "space_model_id",
}


@dataclass(frozen=True)
class Finding:
    """One thing wrong: the rule, the file below the root, and what was found.

    `runs` counts the rows that are lost with the file, by the job that wrote them.
    """

    check: str
    path: str
    what: str
    table: str
    runs: Mapping[str, int]


def inspect_files(root: Path, *, is_quick: bool = False) -> list[Finding]:
    """Everything wrong with the files of a root, by table and path.

    `is_quick` compares sizes and footers and leaves the contents unread.
    """
    widths = _model_widths(root)
    findings = []
    for table in TABLES.values():
        found = list(_inspect_table(root, table, widths, is_quick))
        if found:
            # A job may have written, replaced or removed files meanwhile.
            entries = read_ledger(root, table.name)
            presence = set(_presence(root, table, entries))
            found = [item for item in found if _is_still_so(root, item, presence, entries, widths)]
        findings += found
    return findings


def inspect_file(root: Path, table: Table, path: Path) -> Finding | None:
    """What is wrong with one file itself, whether or not the ledger knows of it."""
    name = path.relative_to(root).as_posix()
    entry = read_ledger(root, table.name).get(name)
    return _inspect_file(path, name, table, entry, _model_widths(root), is_quick=False)


def data_files(root: Path, table: Table) -> list[Path]:
    """The Parquet files that a view over the table reads, in order."""
    folder = root / table.name
    return sorted(folder.glob("*.parquet" if table.partition is None else "*/*.parquet"))


def empty_file(root: Path, table: Table) -> Path:
    """The file without rows that gives an empty table its columns."""
    return partition_folder(root, table, NO_PARTITION) / EMPTY_FILE


def _inspect_table(
    root: Path, table: Table, widths: Mapping[str, int], is_quick: bool
) -> Iterator[Finding]:
    entries = read_ledger(root, table.name)
    yield from _foreign(root, table)
    presence = _presence(root, table, entries)
    digests = {known.sha256: name for name, entry in entries.items() for known in entry.records}
    for check, name in presence:
        if check == "file_lost":
            entry = entries.get(name)
            rows = sum(entry.runs.values()) if entry else 0
            what = f"is gone; it held {rows} rows"
            yield Finding(check, name, what, table.name, entry.runs if entry else {})
    unlisted = {name for check, name in presence if check == "file_unlisted"}
    for path in data_files(root, table):
        name = path.relative_to(root).as_posix()
        try:
            found = None
            if name in unlisted:
                found = Finding("file_unlisted", name, _origin(path, digests), table.name, {})
            else:
                found = _inspect_file(path, name, table, entries.get(name), widths, is_quick)
        except FileNotFoundError:
            continue  # Removed since it was listed; the ledger is asked again at the end.
        if found is not None:
            yield found


def _presence(root: Path, table: Table, entries: Mapping[str, Entry]) -> list[tuple[str, str]]:
    """(check, path) of files that are due and absent, or there and unknown."""
    there = {path.relative_to(root).as_posix() for path in data_files(root, table)}
    empty = empty_file(root, table).relative_to(root).as_posix()
    due = {name for name, entry in entries.items() if entry.is_due} | {empty}
    lost = [("file_lost", name) for name in sorted(due - there)]
    return lost + [("file_unlisted", name) for name in sorted(there - entries.keys() - {empty})]


def _is_still_so(
    root: Path,
    finding: Finding,
    presence: Collection[tuple[str, str]],
    entries: Mapping[str, Entry],
    widths: Mapping[str, int],
) -> bool:
    """Whether a finding holds against the ledger as it is now."""
    if finding.check in ("file_lost", "file_unlisted"):
        return (finding.check, finding.path) in presence
    if finding.check == "file_foreign":
        return True
    path, table = root / finding.path, TABLES[finding.table]
    entry = entries.get(finding.path)
    return (
        path.exists()
        and _inspect_file(path, finding.path, table, entry, widths, is_quick=False) is not None
    )


def _origin(path: Path, digests: Mapping[str, str]) -> str:
    original = digests.get(sha256(path))
    if original is not None:
        return f"is a copy of {original}"
    return "was not written by this warehouse, or before it kept a ledger"


def _foreign(root: Path, table: Table) -> Iterator[Finding]:
    """What lies in a table's folder unread by views, and other Parquet tools stumble over."""
    folder = root / table.name
    if not folder.is_dir():
        yield Finding("file_foreign", table.name, "is no folder", table.name, {})
        return
    known = {*data_files(root, table)}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or path in known:
            continue
        if path.is_dir() and len(relative.parts) == 1 and _is_partition(table, path.name):
            continue
        what = "does not belong into this folder"
        yield Finding("file_foreign", path.relative_to(root).as_posix(), what, table.name, {})


def _is_partition(table: Table, name: str) -> bool:
    column, equals, value = name.partition("=")
    return bool(equals) and column == table.partition and bool(unquote(value))


def _inspect_file(
    path: Path,
    name: str,
    table: Table,
    entry: Entry | None,
    widths: Mapping[str, int],
    is_quick: bool,
) -> Finding | None:
    runs = entry.runs if entry else {}

    def found(check: str, what: str) -> Finding:
        return Finding(check, name, what, table.name, runs)

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if difference := _schema_difference(table, file.schema_arrow):
                return found("file_schema", difference)
            if not is_quick and (wrong := _wrong_vectors(file, table, widths)):
                return found(*wrong)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        return found("file_unreadable", _first_line(error))
    if entry is None:
        return None
    size = path.stat().st_size
    if size not in {known.size for known in entry.records}:
        return found("file_changed", f"has {size} bytes, {entry.records[-1].size} were written")
    if not is_quick and sha256(path) not in {known.sha256 for known in entry.records}:
        return found("file_changed", "holds other bytes than were written")
    return None


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
            models = group.column(model_column).to_pylist()
            lengths = np.diff(vectors.offsets.to_numpy())
            for model_id, length in set(zip(models, lengths.tolist(), strict=True)):
                if length != widths.get(model_id, length):
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
            with pq.ParquetFile(path) as file:
                found = file.read(columns=["model_id", "d_model"])
        except (OSError, pa.ArrowException):
            continue
        for row in found.to_pylist():
            if row.get("model_id") is not None and row.get("d_model") is not None:
                widths[row["model_id"]] = row["d_model"]
    return widths


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


_SCHEMA = pa.schema(
    [
        ("check", pa.string()),
        ("row_count", pa.int64()),
        ("path", pa.string()),
        ("example", pa.string()),
        ("to_do", pa.string()),
    ]
)
FILE_CHECKS = (
    "file_lost",
    "file_unlisted",
    "file_foreign",
    "file_unreadable",
    "file_schema",
    "file_changed",
    "vector_finite",
    "vector_width",
)
_REPAIR = "axes warehouse repair sets it aside and says how the rows come back"
_TO_DO = {
    "file_lost": "axes warehouse repair says how the rows come back",
    "file_unlisted": "axes warehouse repair sets it aside, or with --adopt takes it in",
    "file_foreign": "axes warehouse repair sets it aside",
}


def check(root: Path, *, is_quick: bool = False) -> pa.Table:
    """One row per rule that holds, with `row_count` 0, and one per file or rule that does not.

    `row_count` counts the rows that break a rule, 1 for a file; `is_quick` leaves the contents of
    files unread and runs no rule over rows.
    """
    require_root(root)
    findings = inspect_files(root, is_quick=is_quick)
    broken = {finding.check for finding in findings}
    rows = [_row(name) for name in FILE_CHECKS if name not in broken]
    rows += [
        _row(item.check, 1, item.path, item.what, _TO_DO.get(item.check, _REPAIR))
        for item in findings
    ]
    if not is_quick:
        rows += _check_rules(root)
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _check_rules(root: Path) -> list[dict]:
    rules = check_rules()
    try:
        connection = connect(root)
    except RootError as error:
        return [_row(name, 1, None, f"not run: {error}", _REPAIR) for name in rules]
    rows = []
    for name, statement in rules.items():
        try:
            offending = query(connection, statement)
        except QueryError as error:
            rows.append(_row(name, 1, None, f"not run: {error}", "repair the files first"))
            continue
        first = offending.slice(0, 1).to_pylist()
        fields = ", ".join(f"{key} {value}" for key, value in (first[0] if first else {}).items())
        to_do = f"{_listing(name, statement)} lists the rows" if first else None
        rows.append(_row(name, offending.num_rows, None, fields, to_do))
    return rows


def _listing(name: str, statement: str) -> str:
    """The command that lists the rows which break a rule."""
    if (SQL_FOLDER / "checks" / f"{name}.sql").exists():
        return f"axes sql -f sql/checks/{name}.sql"
    return f'axes sql "{" ".join(without_comments(statement).split())}"'


def _row(
    check: str,
    row_count: int = 0,
    path: str | None = None,
    example: str = "",
    to_do: str | None = None,
) -> dict:
    return {
        "check": check,
        "row_count": row_count,
        "path": path,
        "example": example,
        "to_do": to_do,
    }
