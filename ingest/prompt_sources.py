"""The sources of prompt sets, and their rows under our column names."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from axes.warehouse.errors import LabelError, PromptError
from axes.warehouse.names import did_you_mean
from axes.warehouse.progress import quiet_hub
from axes.warehouse.tables.bounds import require_bounded_parquet, require_own_files

ENTRIES = Path(__file__).with_name("prompt_sets.toml")
BUILTIN = Path(__file__).with_name("prompt_sets")

OPTIONAL_COLUMNS = ("source", "category", "split", "license", "pair_id")

_KINDS = "a .parquet, .csv, .tsv, .jsonl, .json or .txt file, or hf:OWNER/NAME"

_HUB = re.compile(r"hf:(?P<path>[^:@]+)(?::(?P<config>[^@]+))?(?:@(?P<revision>.+))?")


@dataclass(frozen=True)
class PromptSource:
    """The source of a set, and the names of its columns.

    A concept may come as two files instead of one `source`: line i of both is a matched pair where
    `is_paired`.
    """

    source: str = ""
    positive_file: str | None = None
    negative_file: str | None = None
    is_paired: bool = True
    columns: dict[str, str] = field(default_factory=dict)
    only_if_empty: str | None = None
    per_label: int | None = None
    license: str | None = None
    split: str = "train"

    @property
    def named(self) -> str:
        """What the user called it."""
        return self.source or f"{self.positive_file} and {self.negative_file}"


@cache
def ready_sets() -> dict[str, PromptSource]:
    """The sets that can be imported by name alone."""
    entries = tomllib.loads(ENTRIES.read_text())["sets"]
    return {name: PromptSource(**entry) for name, entry in entries.items()}


def prompt_source(prompt_set: str, source: str | None, **options: Any) -> PromptSource:
    """The source of a set: the one given, or the ready entry of that name."""
    given = {name: value for name, value in options.items() if value not in (None, {}, ())}
    if source is not None or "positive_file" in given:
        return PromptSource(source=source or "", **given)
    if prompt_set not in ready_sets():
        raise PromptError(
            f"{prompt_set} is not a ready set{did_you_mean(prompt_set, ready_sets())}, which are "
            f"{', '.join(ready_sets())}: "
            f"give a source: {_KINDS}, or two files with --positive-file and --negative-file"
        )
    given.pop("is_paired", None)
    return replace(ready_sets()[prompt_set], **given)


def decide_class(labels: Iterable[str], positive: Sequence[str]) -> dict[str, bool]:
    """Label text -> whether it is the positive class: by `positive`, else by well-known labels.

    Raises `LabelError` where neither decides.
    """
    plain = {label: label.strip().lower() for label in labels}
    listed = ", ".join(repr(label) for label in sorted(plain)[:8]) or "absent"
    if positive:
        chosen = {text.strip().lower() for text in positive}
        if chosen.isdisjoint(plain.values()):
            raise LabelError(f"no label is {', '.join(positive)}; labels are {listed}")
    else:
        known = tomllib.loads(ENTRIES.read_text())["labels"]
        chosen = set(known["positive"])
        if not chosen.union(known["negative"]).issuperset(plain.values()):
            raise LabelError(
                f"labels {listed}: say which is the positive class with --positive LABEL"
            )
    return {label: text in chosen for label, text in plain.items()}


def read_source(source: PromptSource) -> pl.DataFrame:
    """The source's rows as they are; raises `PromptError` where it cannot be read."""
    if source.positive_file is not None and source.negative_file is not None:
        return _read_classes(source, source.positive_file, source.negative_file)
    return _read_hub(source) if source.source.startswith("hf:") else read_file(source.source)


def read_file(name: str) -> pl.DataFrame:
    """The rows of a local file, or of `builtin:FILE`; raises `PromptError`."""
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".parquet": pl.read_parquet,
        ".csv": _read_table,
        ".tsv": _read_table,
        ".jsonl": _read_json,
        ".json": _read_json,
        ".txt": _read_lines,
    }
    kind, _, rest = name.partition(":")
    path = BUILTIN / rest if kind == "builtin" else Path(name).expanduser()
    if path.suffix not in readers:
        raise PromptError(f"{name}: {_KINDS} is expected")
    try:
        if path.suffix == ".parquet":
            require_bounded_parquet(path)
        return readers[path.suffix](path)
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise PromptError(f"{path} cannot be read: {error}") from error


def _read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark."""
    data = path.read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeError as error:
        line = data.count(b"\n", 0, getattr(error, "start", 0)) + 1
        fix = 'save it as UTF-8 (in Excel "CSV UTF-8")'
        raise PromptError(f"{path} is not in UTF-8, first at line {line}: {fix}") from error


def _read_table(path: Path) -> pl.DataFrame:
    """Rows of text under a header, separated by what the header has most of; empty is null."""
    text = _read_text(path)
    header = text.partition("\n")[0]
    separator = "\t" if path.suffix == ".tsv" else max(",;\t", key=header.count)
    csv.field_size_limit(len(text) + 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[list[str]] = []
    try:
        for row in filter(None, reader):
            rows.append(row)
            if len(row) != len(rows[0]):
                raise csv.Error(f"{len(row)} fields, the header has {len(rows[0])}")
    except csv.Error as error:
        raise PromptError(
            f"{path}, line {reader.line_num}: {error}; a text with {separator!r}, a quote or a "
            'line break in it needs quotes around it, and "" for each quote'
        ) from error
    if not rows:
        raise PromptError(f"{path} is empty: a header and rows are expected")
    values = [[value or None for value in row] for row in rows[1:]]
    return pl.DataFrame(values, dict.fromkeys(rows[0], pl.String), orient="row")


def _read_json(path: Path) -> pl.DataFrame:
    """The objects of a file, one a line, or in a list."""
    text = _read_text(path)
    # Not splitlines: JSON may hold other line separators in its strings.
    parts = [text] if path.suffix == ".json" else text.split("\n")
    rows: list[Any] = []
    for number, part in enumerate(parts, 1):
        try:
            if part.strip():
                found = json.loads(part)
                rows += found if isinstance(found, list) else [found]
        except ValueError as error:
            raise PromptError(f"{path}, line {number} is not JSON: {error}") from error
    if wrong := [row for row in rows if not isinstance(row, dict)]:
        raise PromptError(f"{path}: objects with a text are expected, found {wrong[0]!r:.40}")
    return pl.DataFrame(rows, infer_schema_length=None)


def _read_lines(path: Path) -> pl.DataFrame:
    """One prompt per line; empty lines at the end are dropped."""
    lines = _read_text(path).replace("\r\n", "\n").rstrip().split("\n")
    return pl.DataFrame({"text": lines if lines != [""] else []}, schema={"text": pl.String})


def class_labels(source: PromptSource) -> tuple[str, str]:
    """The labels of a concept's two files: their names without the suffix, where those differ.

    >>> class_labels(PromptSource(positive_file="a/formal.txt", negative_file="a/informal.txt"))
    ('formal', 'informal')
    """
    files = (source.positive_file or "", source.negative_file or "")
    positive, negative = (Path(file.removeprefix("builtin:")).stem for file in files)
    is_distinct = positive.lower() != negative.lower()
    return (positive, negative) if is_distinct else ("positive", "negative")


def _read_classes(source: PromptSource, *files: str) -> pl.DataFrame:
    """The rows of both files in turn, so that a first part of them has both classes."""
    frames = []
    for file, label in zip(files, class_labels(source), strict=True):
        frame = read_file(file).with_row_index("line", 1).with_columns(label=pl.lit(label))
        if source.is_paired and "pair_id" not in frame.columns:
            frame = frame.with_columns(pair_id=pl.col("line").cast(pl.String))
        frames.append(frame)
    counts = [len(frame) for frame in frames]
    if source.is_paired and counts[0] != counts[1]:
        raise PromptError(
            f"{files[0]} holds {counts[0]} prompts and {files[1]} {counts[1]}: the same line of "
            "both is a matched pair; --unpaired if they are not matched"
        )
    both = pl.concat(frames, how="diagonal_relaxed")
    return both.sort("line", maintain_order=True).drop("line")


def _read_hub(source: PromptSource) -> pl.DataFrame:
    """`hf:OWNER/NAME[:CONFIG][@REVISION]`, or `hf:` and a folder in the hub's layout."""
    from datasets import disable_progress_bars, load_dataset_builder
    from datasets.exceptions import DatasetNotFoundError

    match = _HUB.fullmatch(source.source)
    if match is None:
        raise PromptError(f"{source.source}: hf:OWNER/NAME[:CONFIG][@REVISION] is expected")
    disable_progress_bars()
    quiet_hub()
    try:
        builder = load_dataset_builder(
            match["path"], name=match["config"], revision=match["revision"]
        )
        for files in (builder.config.data_files or {}).values():
            require_own_files(match["path"], files)
        builder.download_and_prepare()
        dataset = builder.as_dataset(split=source.split)
    except (OSError, ValueError, DatasetNotFoundError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PromptError(
            f"{source.source} cannot be loaded ({reason}): check the name and the network, "
            "or give a local file"
        ) from error
    frame = dataset.with_format("polars")[:]
    assert isinstance(frame, pl.DataFrame)
    return frame


def select_columns(frame: pl.DataFrame, source: PromptSource) -> pl.DataFrame:
    """Our columns out of theirs, all as text."""
    columns = {"text": "text", "label": "label", **{name: name for name in OPTIONAL_COLUMNS}}
    if "text" not in frame.columns and "prompt" in frame.columns:
        columns["text"] = "prompt"
    columns.update(source.columns)
    if columns["text"] not in frame.columns and "messages" in frame.columns:
        frame = frame.with_columns(_first_turns(frame["messages"]).alias(columns["text"]))
    for ours, theirs in {"text": columns["text"], **source.columns}.items():
        if theirs not in frame.columns:
            raise PromptError(
                f"{source.named} has no column {theirs!r} for the {ours}; it has "
                f"{', '.join(frame.columns)}: say which with --{ours}-column"
            )
    if source.only_if_empty is not None:
        frame = frame.filter(pl.col(source.only_if_empty).fill_null("").str.strip_chars() == "")
    selected = [
        _as_text(frame[theirs]).alias(ours)
        if theirs in frame.columns
        else pl.lit(None, pl.String).alias(ours)
        for ours, theirs in columns.items()
    ]
    result = frame.select(selected)
    if source.license is not None:
        result = result.with_columns(pl.col("license").fill_null(source.license))
    return result


def _first_turns(conversations: pl.Series) -> pl.Series:
    """What the user says first in each list of chat messages; later turns are no prompt."""
    texts = []
    for row, messages in enumerate(conversations):
        first = messages[0] if messages is not None and len(messages) else {}
        if not isinstance(first, dict) or first.get("role") != "user":
            raise PromptError(
                f"row {row}: messages that begin with the user's are expected, found "
                f"{str(first)[:40]!r}: leave a system prompt out, and give it with --system"
            )
        texts.append(first.get("content"))
    return pl.Series(texts, dtype=pl.String)


def _as_text(column: pl.Series) -> pl.Series:
    """Label 1.0 and true read as "1" and "true", whatever type the source gave them."""
    if column.dtype.is_float() and column.drop_nulls().round(0).eq(column.drop_nulls()).all():
        column = column.cast(pl.Int64)
    return column.cast(pl.String)
