"""Labels of completions, by any labeler: the completions without its label, and rows of `labels`.

Labelers differ in how they decide (`refusals`, `classifier`, `judge`, a user's file); each gives a
`Label` for a completion. A completion with its label is never labelled again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import polars as pl

from axes.ingest.prompt_sources import PromptSource, decide_class, read_source
from axes.ingest.prompts import read_prompts
from axes.warehouse.errors import LabelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.progress import track
from axes.warehouse.runs import Run, record_run
from axes.warehouse.storage.store import locked
from axes.warehouse.writer import content_key, rows_table, write_rows


@dataclass(frozen=True)
class Completion:
    """A completion of the warehouse with its prompt."""

    generation_id: str
    prompt: str
    text: str


@dataclass(frozen=True)
class Label:
    """A label of one completion; `score` is the labeler's confidence in the positive class."""

    generation_id: str
    label: str
    is_positive: bool
    score: float | None = None


Decide = Callable[[Run, Sequence[Completion]], Iterable[Label]]


@dataclass(frozen=True)
class Scope:
    """Which completions to label: those of a model, of the prompts of a set; by default all."""

    model: str | None = None
    prompt_set: str | None = None
    limit: int | None = None


EVERYTHING = Scope()
_LABELLED = "select generation_id from labels where labeler = ? and generation_id is not null"


@dataclass(frozen=True)
class LabelSummary:
    """What a labeler did; counts are of completions, `labelled_count` of new labels."""

    labeler: str
    run_id: str
    completion_count: int
    labelled_count: int
    positive_count: int
    unlabelled_count: int


def label_completions(
    root: Path,
    labeler: str,
    decide: Decide,
    parameters: Mapping[str, object],
    *,
    scope: Scope = EVERYTHING,
    chunk: int = 512,
) -> LabelSummary:
    """Let `decide` label the completions that `labeler` has not labelled, and store the labels.

    Labels are committed a chunk at a time, so that a job that is stopped goes on from there.
    Raises `PromptError` for an unknown prompt set.
    """
    if scope.prompt_set is not None:
        read_prompts(root, {scope.prompt_set: 1})
    notice = f"another job on {root} runs the labeler {labeler}: waiting for it"
    labelled: list[Label] = []
    with (
        locked(root, f"label.{quote(labeler, safe='')}", notice=notice),
        record_run(root, "label", {"labeler": labeler, **vars(scope), **parameters}) as run,
    ):
        completions = read_completions(root, scope)
        warehouse = Warehouse.open_tables(root, "labels")
        stored = set(warehouse.column(_LABELLED, [labeler]))
        missing = [item for item in completions if item.generation_id not in stored]
        with track(f"label {labeler}", len(missing), "completions") as advance:
            for start in range(0, len(missing), chunk):
                part = missing[start : start + chunk]
                labels: list[Label] = []
                # An answer may have cost money: it is kept, whatever comes of the next.
                try:
                    labels.extend(decide(run, part))
                finally:
                    write_labels(root, run, labeler, labels)
                labelled += labels
                advance(len(part))
    return LabelSummary(
        labeler=labeler,
        run_id=run.run_id,
        completion_count=len(completions),
        labelled_count=len(labelled),
        positive_count=sum(label.is_positive for label in labelled),
        unlabelled_count=len(missing) - len(labelled),
    )


def inherit_labels(
    root: Path, labeler: str = "dataset", *, scope: Scope = EVERYTHING
) -> LabelSummary:
    """Give each completion the label that `labeler` has given its prompt."""
    labels = Warehouse.open_tables(root, "generations", "labels").rows(
        Label,
        """
        select generations.generation_id, arg_min(label, prompt_set) as label,
            bool_or(is_positive) as is_positive, arg_min(score, prompt_set) as score
        from generations
        inner join (from labels where labels.generation_id is null) as labels using (prompt_id)
        where labels.labeler = $labeler and prompt_set = coalesce($prompt_set, prompt_set)
        group by generations.generation_id
        """,
        {"labeler": labeler, "prompt_set": scope.prompt_set},
    )
    if not labels:
        raise LabelError(f"no prompt of a completion has a label by {labeler}")
    return label_completions(root, labeler, _look_up(labels), {"kind": "inherit"}, scope=scope)


def import_labels(
    root: Path, labeler: str, file: Path, *, positive: Sequence[str] = ()
) -> LabelSummary:
    """Labels from a .csv, .parquet or .jsonl file: `generation_id`, `label`, and perhaps `score`.

    Raises `LabelError` for an unknown completion or a label that is not understood.
    """
    frame = read_source(PromptSource(str(file)))
    if missing := {"generation_id", "label"} - set(frame.columns):
        raise LabelError(
            f"{file} has no column {', '.join(sorted(missing))}: it has {frame.columns}"
        )
    if frame["generation_id"].n_unique() != len(frame):
        raise LabelError(f"{file} labels a completion more than once")
    frame = frame.with_columns(pl.col("label").cast(pl.String))
    is_positive = decide_class(frame["label"].unique().to_list(), positive)
    stored = {completion.generation_id for completion in read_completions(root)}
    if unknown := set(frame["generation_id"]) - stored:
        raise LabelError(f"{file}: {len(unknown)} completions do not exist, as {min(unknown)}")
    labels = [
        Label(
            row["generation_id"],
            row["label"],
            is_positive[row["label"]],
            None if row.get("score") is None else float(row["score"]),
        )
        for row in frame.to_dicts()
    ]
    parameters = {"kind": "import", "file": str(file.resolve()), "positive": list(positive)}
    return label_completions(root, labeler, _look_up(labels), parameters)


def _look_up(labels: Iterable[Label]) -> Decide:
    """A labeler that gives each completion its label of `labels`, if there is one."""
    by_id = {label.generation_id: label for label in labels}

    def decide(_run: Run, completions: Sequence[Completion]) -> list[Label]:
        ids = (completion.generation_id for completion in completions)
        return [by_id[generation_id] for generation_id in ids if generation_id in by_id]

    return decide


def read_completions(root: Path, scope: Scope = EVERYTHING) -> list[Completion]:
    """The completions of a scope with their prompts, ordered by id."""
    return Warehouse.open_tables(root, "generations", "prompts").rows(
        Completion,
        """
        select generation_id, any_value(prompts.text) as prompt, any_value(generations.text) as text
        from generations
        inner join prompts using (prompt_id)
        where model = coalesce($model, model) and prompt_set = coalesce($prompt_set, prompt_set)
        group by generation_id
        order by generation_id
        limit $limit
        """,
        {**vars(scope), "limit": 2**62 if scope.limit is None else scope.limit},
    )


def write_labels(root: Path, run: Run, labeler: str, labels: Sequence[Label]) -> None:
    """Add rows of `labels`, as one file."""
    if not labels:
        return
    described = [{**vars(label), "run_id": run.run_id} for label in labels]
    name = content_key(sorted(label.generation_id for label in labels))
    write_rows(root, "labels", rows_table("labels", described), name=name, partition=labeler)
    run.rows += len(labels)
