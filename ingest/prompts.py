"""Prompt sets into the warehouse: from a hub, CSV, JSONL or Parquet to prompts and labels.

A prompt's id is the hash of its normalised text, and the normalised text is what models are given,
so that one id is one input wherever it was imported from. A set keeps the order of its source.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from urllib.parse import quote

import polars as pl

from axes.ingest.prompt_sources import (
    PromptSource,
    class_labels,
    decide_class,
    read_source,
    ready_sets,
    select_columns,
)
from axes.ingest.requests import PromptRequest
from axes.warehouse.errors import LabelError, PromptError
from axes.warehouse.handle import Warehouse
from axes.warehouse.names import counted, did_you_mean
from axes.warehouse.progress import announce
from axes.warehouse.render import html_record
from axes.warehouse.runs import Run, record_run
from axes.warehouse.storage.store import store_at
from axes.warehouse.writer import KEY_LENGTH, rows_table, write_rows

# Prompts that a job plans at once. Their texts and token ids take about 20 MB.
SLICE = 16_384


@dataclass(frozen=True)
class Prompt:
    prompt_id: str
    text: str


@dataclass(frozen=True)
class _PromptRow:
    """A prompt of a set with its label by one labeler."""

    prompt_id: str
    position: int
    text: str
    source: str | None
    category: str | None
    split: str | None
    license: str | None
    pair_id: str | None
    label: str | None
    is_positive: bool | None


@dataclass(frozen=True)
class ImportSummary:
    """What an import did; `changed_count` texts differ from the source after normalisation."""

    prompt_set: str
    prompt_count: int
    positive_count: int
    negative_count: int
    unlabelled_count: int
    duplicate_count: int
    changed_count: int
    skipped_count: int
    is_new: bool

    def _repr_html_(self) -> str:
        return html_record(asdict(self), f"import of {self.prompt_set}")


def import_prompts(
    root: Path, prompt_set: str, source: PromptSource, request: PromptRequest | None = None
) -> ImportSummary:
    """Read `source`, normalise, hash, deduplicate, and write it as the set `prompt_set`.

    Importing the same rows again changes nothing. Raises `PromptError` for a source that cannot be
    read, an empty prompt, or another set of that name; `LabelError` for labels that are not
    understood or contradict each other.
    """
    store_at(root).init()
    require_set_name(prompt_set)
    request = request or PromptRequest()
    frame = select_columns(read_source(source), source)
    if not request.positive and source.positive_file is not None:
        request = replace(request, positive=class_labels(source)[:1])
    parameters = {"prompt_set": prompt_set, **asdict(source), **vars(request)}
    with record_run(root, "prompts import", parameters) as run:
        summary = write_prompts(root, run, prompt_set, frame, request, per_label=source.per_label)
    missing = [name for name in ("positive", "negative") if not getattr(summary, f"{name}_count")]
    if len(missing) == 1:
        announce(f"{prompt_set} has no {missing[0]} prompts: a direction needs both classes")
    return summary


def write_prompts(
    root: Path,
    run: Run,
    prompt_set: str,
    frame: pl.DataFrame,
    request: PromptRequest,
    *,
    per_label: int | None = None,
    may_be_part: bool = False,
) -> ImportSummary:
    """Write the rows of `frame` (columns as `select_columns` gives) as a set, as a part of a job.

    With `may_be_part` a stored set that holds these prompts with these labels among others is left
    as it is. Raises as `import_prompts` does.
    """
    texts = [
        normalise(text or "", keep_whitespace=request.keep_whitespace) for text in frame["text"]
    ]
    changed_count = sum(text != old for text, old in zip(texts, frame["text"], strict=True))
    frame = frame.with_columns(pl.Series("text", texts, pl.String))
    frame = _without_empty(run, frame, request.skip_unusable)
    classes = decide_class(frame["label"].drop_nulls().unique(), request.positive)
    is_positive = [classes.get(label) for label in frame["label"]]
    frame = frame.with_columns(pl.Series("is_positive", is_positive, pl.Boolean))
    _require_agreement(root, frame, request.labeler, prompt_set if request.replace_set else None)
    unique = frame.unique("text", keep="first", maintain_order=True)
    duplicate_count = len(frame) - len(unique)
    if per_label is not None:
        place = pl.int_range(pl.len()).over("is_positive")
        unique = unique.filter(pl.col("is_positive").is_not_null() & (place < per_label))
    if request.limit is not None:
        unique = unique.head(request.limit)
    is_new = _write_set(root, run, prompt_set, unique, request, may_be_part)
    return ImportSummary(
        prompt_set=prompt_set,
        prompt_count=len(unique),
        positive_count=int(unique["is_positive"].sum()),
        negative_count=int((~unique["is_positive"]).sum()),
        unlabelled_count=unique["is_positive"].null_count(),
        duplicate_count=duplicate_count,
        changed_count=changed_count,
        skipped_count=len(run.skipped),
        is_new=is_new,
    )


def require_set_name(prompt_set: str) -> None:
    """Raise `PromptError` unless a prompt set may be called so."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", prompt_set):
        raise PromptError(f"{prompt_set!r} is not a name for a set: letters, digits, _ . - only")


def import_ready_sets(root: Path, names: Iterable[str]) -> None:
    """Import those of `names` that are ready sets and not in the warehouse yet."""
    ready = [name for name in names if name in ready_sets()]
    if not ready:
        return
    store_at(root).init()
    for name in set(ready) - set(_prompt_sets(root)):
        import_prompts(root, name, ready_sets()[name])


def normalise(text: str, *, keep_whitespace: bool = False) -> str:
    """Unicode NFC, newlines as \\n, and (unless kept) no white space around the text.

    >>> normalise("  cafe\\u0301\\r\\n")
    'café'
    """
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    return text if keep_whitespace else text.strip()


def prompt_id(text: str) -> str:
    """The first 16 hex digits of the SHA-256 of a normalised text."""
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def read_prompts(root: Path, prompt_sets: Mapping[str, int | None]) -> list[Prompt]:
    """The first so many prompts (None: all) of some sets, each once, in the order of the sets.

    Raises `PromptError` for a set that is not in the warehouse.
    """
    count_prompts(root, prompt_sets)
    return list(itertools.chain.from_iterable(prompt_slices(root, prompt_sets)))


def count_prompts(root: Path, prompt_sets: Mapping[str, int | None]) -> int:
    """How many those are, where no prompt is in two sets; raises as `read_prompts`."""
    warehouse, total = Warehouse.open_tables(root, "prompts"), 0
    for name, limit in prompt_sets.items():
        (count,) = warehouse.column("select count(*) from prompts where prompt_set = ?", [name])
        if not count:
            raise PromptError(_unknown_set(root, name))
        total += count if limit is None else min(count, limit)
    return total


def prompt_slices(root: Path, prompt_sets: Mapping[str, int | None]) -> Iterator[list[Prompt]]:
    """The prompts of `read_prompts` in its order, `SLICE` at a time, so that memory holds few."""
    warehouse = Warehouse.open_tables(root, "prompts")
    known: set[str] = set()
    prompts: list[Prompt] = []
    for name, limit in prompt_sets.items():
        remaining = 2**62 if limit is None else limit
        after = (-1, "")
        while page := warehouse.query(
            """
            select position, prompt_id, text
            from prompts
            where prompt_set = $set and (position, prompt_id) > ($position, $prompt_id)
            order by position, prompt_id
            limit $count
            """,
            {
                "set": name,
                "position": after[0],
                "prompt_id": after[1],
                "count": min(SLICE, remaining),
            },
        ).to_pylist():
            remaining -= len(page)
            after = (page[-1]["position"], page[-1]["prompt_id"])
            for row in page:
                if row["prompt_id"] not in known:
                    prompts.append(Prompt(row["prompt_id"], row["text"]))
                    if len(prompt_sets) > 1:
                        known.add(row["prompt_id"])
            while len(prompts) >= SLICE:
                yield prompts[:SLICE]
                del prompts[:SLICE]
    if prompts:
        yield prompts


def _without_empty(run: Run, frame: pl.DataFrame, skip_unusable: bool) -> pl.DataFrame:
    frame = frame.with_row_index("row")
    empty = frame.filter(pl.col("text").str.strip_chars() == "")["row"].to_list()
    if not empty:
        return frame
    if not skip_unusable:
        raise PromptError(
            f"row {empty[0]} is an empty prompt ({len(empty)} in all); "
            "--skip-unusable leaves such rows out and records it"
        )
    run.skipped += [{"prompt_id": f"row {row}", "reason": "empty"} for row in empty]
    return frame.filter(~pl.col("row").is_in(empty))


def _require_agreement(
    root: Path, frame: pl.DataFrame, labeler: str, replaced_set: str | None
) -> None:
    """One text, one label: within the source, and against the stored sets that stay."""
    stored = pl.from_arrow(
        Warehouse.open_tables(root, "prompts", "labels").query(
            """
            select distinct prompts.text, labels.is_positive, 'set ' || labels.prompt_set as place
            from labels
            inner join prompts using (prompt_set, prompt_id)
            where labels.labeler = ? and labels.prompt_set is distinct from ?
            """,
            [labeler, replaced_set],
        )
    )
    assert isinstance(stored, pl.DataFrame)
    new = frame.select("text", "is_positive", pl.format("row {}", "row").alias("place"))
    labelled = pl.concat([new, stored.join(new.select("text").unique(), on="text")])
    labelled = labelled.filter(pl.col("is_positive").is_not_null())
    conflicts = (
        labelled.group_by("text", maintain_order=True)
        .agg(pl.col("is_positive").n_unique().alias("kinds"), "is_positive", "place")
        .filter(pl.col("kinds") > 1)
    )
    if conflicts.height:
        shown = "; ".join(
            f"{row['text'][:60]!r}: "
            + ", ".join(
                f"{place} {'positive' if positive else 'negative'}"
                for place, positive in zip(row["place"], row["is_positive"], strict=True)
            )
            for row in conflicts.head(5).to_dicts()
        )
        raise LabelError(
            f"{counted(conflicts.height, 'text')} with both labels: {shown}; correct the source, "
            "or keep both opinions by importing this one with --labeler NAME"
        )


def _write_set(
    root: Path,
    run: Run,
    prompt_set: str,
    frame: pl.DataFrame,
    request: PromptRequest,
    may_be_part: bool,
) -> bool:
    """Write the set's file of labels, then of prompts: no reader sees prompts without labels."""
    if frame.is_empty():
        raise PromptError(f"no rows for the set {prompt_set}")
    frame = frame.with_columns(
        pl.Series("prompt_id", [prompt_id(text) for text in frame["text"]]),
        pl.int_range(pl.len(), dtype=pl.Int32).alias("position"),
    )
    stored = Warehouse.open_tables(root, "prompts", "labels").rows(
        _PromptRow,
        """
        select prompt_id, position, text, source, category, split, prompts.license, pair_id,
            labels.label, labels.is_positive
        from prompts
        left join (from labels where labeler = ?) as labels using (prompt_set, prompt_id)
        where prompt_set = ?
        order by position
        """,
        [request.labeler, prompt_set],
    )
    names = [field.name for field in fields(_PromptRow)]
    prompts = [_PromptRow(**row) for row in frame.select(names).to_dicts()]
    if stored == prompts or (may_be_part and _is_part(prompts, stored)):
        return False
    is_other = [row.text for row in stored] != [row.text for row in prompts]
    if stored and is_other and not request.replace_set:
        raise PromptError(
            f"the set {prompt_set} is stored with other rows ({len(stored)}, the source has "
            f"{len(prompts)}): --replace puts these in their place, or import under another name"
        )
    rows = [{**vars(prompt), "prompt_set": prompt_set, "run_id": run.run_id} for prompt in prompts]
    labels = [row for row in rows if row["is_positive"] is not None]
    name = quote(prompt_set, safe="")
    write_rows(root, "labels", rows_table("labels", labels), name=name, partition=request.labeler)
    write_rows(root, "prompts", rows_table("prompts", rows), name=name, partition=prompt_set)
    run.rows = len(prompts)
    return True


def _is_part(prompts: Sequence[_PromptRow], stored: Sequence[_PromptRow]) -> bool:
    """Whether all of these prompts are stored, each with the label that it has, if any."""
    labels = {row.prompt_id: row.is_positive for row in stored}
    return all(
        row.prompt_id in labels and row.is_positive in (None, labels[row.prompt_id])
        for row in prompts
    )


def _unknown_set(root: Path, name: str) -> str:
    stored = _prompt_sets(root)
    names = ", ".join(stored) or "none yet"
    ready = " (a ready set: no source needed)" if name in ready_sets() else ""
    return (
        f"no prompt set {name}{did_you_mean(name, [*stored, *ready_sets()])} in {root} "
        f"(stored: {names}): import it with `axes prompts import {name} SOURCE`{ready}"
    )


def _prompt_sets(root: Path) -> list[str]:
    """The names of the stored sets."""
    warehouse = Warehouse.open_tables(root, "prompts")
    return warehouse.column("select distinct prompt_set from prompts order by all")
