"""The prompts of vectors that others computed: found by id, or imported with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from axes.ingest.prompt_sources import PromptSource, select_columns
from axes.ingest.prompts import normalise, prompt_id, require_set_name, write_prompts
from axes.warehouse.connection import connect_tables, rows
from axes.warehouse.errors import LabelError, PromptError
from axes.warehouse.runs import Run


def given_prompts(root: Path, index: pl.DataFrame) -> pl.DataFrame:
    """The index with a column `prompt_id` that is ours: by its texts, else by the ids it gives.

    Raises `PromptError` for an index with neither, an id that is not that of its text, or ids alone
    that the warehouse does not know.
    """
    if "text" not in index.columns and "prompt" in index.columns:
        index = index.rename({"prompt": "text"})
    if "text" in index.columns:
        return _by_text(index)
    if "prompt_id" not in index.columns:
        raise PromptError(
            f"the index has neither text nor prompt_id; it has {', '.join(index.columns) or '-'}"
        )
    if "label" in index.columns or "is_positive" in index.columns:
        raise PromptError("labels come with texts: give a column text, or leave them out")
    found = rows(connect_tables(root, "prompts"), "select distinct prompt_id from prompts")
    there = pl.Series([row["prompt_id"] for row in found], dtype=pl.String)
    unknown = index.filter(~pl.col("prompt_id").is_in(there.implode()))["prompt_id"]
    if len(unknown):
        raise PromptError(
            f"{len(unknown)} prompt ids are in no set of {root}, the first is {unknown[0]}: "
            "import their set first, or give a column text"
        )
    return index


def write_given_prompts(
    root: Path, run: Run, prompt_set: str | None, prompts: pl.DataFrame, positive: Sequence[str]
) -> None:
    """Write the prompts as a set, with labels where there are any, unless it holds them already.

    Raises `PromptError` where the set is there with other prompts, or no name is given for texts;
    `LabelError` for labels that are not understood or contradict others.
    """
    if "text" not in prompts.columns:
        return
    if prompt_set is None:
        raise PromptError("the file holds texts: name their set with --prompts SET")
    require_set_name(prompt_set)
    labels = [name for name in ("label", "is_positive") if name in prompts.columns]
    unique = prompts.unique(["prompt_id", *labels], keep="first", maintain_order=True)
    if "is_positive" in labels:
        unique, positive = _flagged(unique, positive)
    frame = select_columns(unique, PromptSource(prompt_set))
    write_prompts(
        root,
        run,
        prompt_set,
        frame,
        positive=positive,
        keep_whitespace=True,
        may_be_part=True,
    )


def _by_text(index: pl.DataFrame) -> pl.DataFrame:
    """Texts normalised as prompt sets are, and the ids of those."""
    distinct = index["text"].cast(pl.String).unique(maintain_order=True)
    if distinct.has_nulls() or (distinct.str.strip_chars() == "").any():
        raise PromptError("a row of the index has no text: leave it out, with its vectors")
    for keep_whitespace in (False, True):
        texts = {text: normalise(text, keep_whitespace=keep_whitespace) for text in distinct}
        ids = {text: prompt_id(kept) for text, kept in texts.items()}
        ours = index["text"].cast(pl.String).replace_strict(ids, return_dtype=pl.String)
        if "prompt_id" not in index.columns or ours.equals(index["prompt_id"]):
            return index.with_columns(
                pl.col("text").cast(pl.String).replace_strict(texts, return_dtype=pl.String),
                ours.alias("prompt_id"),
            )
    raise PromptError(
        "prompt_id is not the id that this warehouse gives to the text beside it: "
        "leave that column out"
    )


def _flagged(prompts: pl.DataFrame, positive: Sequence[str]) -> tuple[pl.DataFrame, Sequence[str]]:
    """The rows with a label each that has a flag, and which labels are the positive class."""
    flag = prompts["is_positive"]
    if flag.dtype != pl.Boolean:
        has_label = "label" in prompts.columns
        return (prompts if has_label else prompts.rename({"is_positive": "label"})), positive
    label = pl.when(pl.col("is_positive")).then(pl.lit("positive")).otherwise(pl.lit("negative"))
    label = pl.when(pl.col("is_positive").is_not_null()).then(label)
    if "label" in prompts.columns:
        label = pl.coalesce(pl.col("label").cast(pl.String), label)
    prompts = prompts.with_columns(label.alias("label"))
    kinds = {
        kind: set(prompts.filter(pl.col("is_positive") == kind)["label"]) for kind in (True, False)
    }
    if both := sorted(kinds[True] & kinds[False]):
        raise LabelError(f"the label {both[0]} is positive in one row and negative in another")
    return prompts, sorted(kinds[True])
