"""A model's stored projections on an axis with the labels of a prompt set, in the set's order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from axes.analysis.activations import count_prompts, number_groups
from axes.warehouse.axes import unknown_axis
from axes.warehouse.connection import Connection, query, rows
from axes.warehouse.errors import AxisError, CoverageError, LabelError
from axes.warehouse.writer import content_key


@dataclass(frozen=True)
class LabelledScores:
    """Projections of one model's labelled prompts on one axis; `groups` keeps pairs together.

    `is_in_sample` says of each row whether the axis was fitted on it.
    """

    model: str
    model_id: str
    axis_id: str
    prompt_set: str
    prompt_ids: tuple[str, ...]
    sources: pa.StringArray
    texts: pa.StringArray
    values: Float[np.ndarray, " row"]
    labels: Bool[np.ndarray, " row"]
    groups: Int[np.ndarray, " row"]
    is_in_sample: Bool[np.ndarray, " row"]

    @property
    def row_set_hash(self) -> str:
        """Hash of the prompt ids in order, with their labels."""
        return content_key(self.prompt_ids, self.labels.tolist())

    def take(self, index: Int[np.ndarray, " taken"]) -> LabelledScores:
        """The rows of `index`, in its order."""
        return replace(
            self,
            prompt_ids=tuple(self.prompt_ids[i] for i in index),
            sources=self.sources.take(pa.array(index)),
            texts=self.texts.take(pa.array(index)),
            values=self.values[index],
            labels=self.labels[index],
            groups=self.groups[index],
            is_in_sample=self.is_in_sample[index],
        )


def find_axis(connection: Connection, axis: str) -> str:
    """The id of the axis with this id, start of an id, or name; raises `AxisError`."""
    found = rows(
        connection,
        "select axis_id, name from axes where starts_with(axis_id, $axis) or name = $axis "
        "order by axis_id",
        {"axis": axis},
    )
    if not found:
        raise unknown_axis(connection, axis)
    if len(found) > 1:
        which = ", ".join(row["axis_id"] for row in found[:4])
        raise AxisError(f"{len(found)} axes are called {axis}, say which: {which}")
    return found[0]["axis_id"]


def scored_models(connection: Connection, axis_id: str, prompt_set: str) -> list[tuple[str, str]]:
    """Model and model id of everything projected on the axis with prompts of the set."""
    found = rows(
        connection,
        "select distinct model, model_id from v_projections "
        "where axis_id = ? and prompt_set = ? and is_positive is not null order by all",
        [axis_id, prompt_set],
    )
    if not found:
        raise CoverageError(
            f"no labelled prompt of {prompt_set} is projected on the axis {axis_id}: run "
            f"`axes study` with `--evaluate {prompt_set}` first"
        )
    return [(row["model"], row["model_id"]) for row in found]


def read_scores(
    connection: Connection,
    axis_id: str,
    model_id: str,
    prompt_set: str,
    *,
    allow_missing: bool = False,
) -> LabelledScores:
    """The labelled projections of one model on an axis.

    Raises `PromptError` for an unknown set, `CoverageError` where prompts have no projection and
    that is not allowed, `LabelError` where a class is missing.
    """
    expected = count_prompts(connection, prompt_set)
    table = query(
        connection,
        """
        select model, prompt_id, pair_id, source, text, projection, is_positive, is_in_sample
        from v_projections
        where axis_id = ? and model_id = ? and prompt_set = ? and is_positive is not null
        order by position
        """,
        [axis_id, model_id, prompt_set],
    )
    if table.num_rows < expected and not (allow_missing and table.num_rows):
        raise CoverageError(
            f"{table.num_rows} of the {expected} prompts of {prompt_set} are labelled and projected"
            f" on {axis_id}: run `axes study` with `--evaluate {prompt_set}`"
            + (", or go on without them with --allow-missing" if table.num_rows else "")
        )
    labels = table.column("is_positive").to_numpy()
    if labels.all() or not labels.any():
        raise LabelError(f"{prompt_set} holds one class only: nothing can be judged on it")
    return LabelledScores(
        model=table.column("model")[0].as_py(),
        model_id=model_id,
        axis_id=axis_id,
        prompt_set=prompt_set,
        prompt_ids=tuple(table.column("prompt_id").to_pylist()),
        sources=table.column("source").combine_chunks(),
        texts=table.column("text").combine_chunks(),
        values=table.column("projection").to_numpy(),
        labels=labels,
        groups=number_groups(table.column("pair_id").combine_chunks()),
        is_in_sample=table.column("is_in_sample").to_numpy(),
    )
