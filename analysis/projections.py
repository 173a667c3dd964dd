"""Project what is stored on a registered axis: every model, every prompt, as it lies in the files.

A model whose own space the axis is in is projected as it is; any other goes through its alignment
into that space, pulled back onto the axis, so that no row is carried over.

A model's stored projections on an axis with the labels of a prompt set, in the set's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from axes.analysis import activations
from axes.analysis.activations import Space, count_prompts, find_space, number_groups
from axes.analysis.registry import Axis, Scored, read_alignment, write_projections
from axes.warehouse.axes import find_axis
from axes.warehouse.connection import Connection, connect, query, rows
from axes.warehouse.errors import AxisError, CoverageError, LabelError, ModelError
from axes.warehouse.layers import layer_batches
from axes.warehouse.runs import record_run
from axes.warehouse.writer import content_key


@dataclass(frozen=True)
class ModelScore:
    """One model's share: `new_count` of its `stored_count` prompts had no projection yet."""

    model: str
    model_id: str
    layer: int
    alignment_id: str | None
    stored_count: int
    new_count: int


def score(
    root: Path,
    axis: str,
    *,
    models: Sequence[str] = (),
    prompt_sets: Sequence[str] = (),
    alignment: str | None = None,
    memory_limit: int | None = None,
) -> list[ModelScore]:
    """Write the projections of stored activations on an axis (id, start of one, or name).

    `models` and `prompt_sets` narrow what is projected; `alignment` names the map of a model that
    has several. Raises `AxisError` for an unknown axis, `ModelError` for a model that nothing leads
    into the axis's space, `PromptError` for an unknown set.
    """
    connection = connect(root, memory_limit=memory_limit)
    row = find_axis(connection, axis)
    for prompt_set in prompt_sets:
        count_prompts(connection, prompt_set)
    named = {find_space(connection, model).model_id for model in models}
    done = []
    with record_run(root, "score", {"axis": row["axis_id"], "models": list(models)}) as run:
        for space in _spaces(connection, row):
            if named and space.model_id not in named:
                continue
            alignment_id, layer = _way(connection, row, space, alignment)
            if layer is None:
                if named:
                    raise ModelError(
                        f"no alignment of {space.model} leads to layer {row['layer']} of "
                        f"{row['space_model']}: fit one with `axes study`"
                    )
                continue
            vector, offset = row["vector"].astype(np.float64), 0.0
            if alignment_id is not None:
                stored = read_alignment(root, connection, alignment_id)
                assert stored is not None
                vector, offset = stored.fit.alignment.pull_back(vector)
            ids, values = project_stored(connection, space.at(layer), vector, offset)
            if prompt_sets:
                wanted = query(
                    connection,
                    "select distinct prompt_id from prompts where list_contains(?, prompt_set)",
                    [list(prompt_sets)],
                )["prompt_id"]
                is_wanted = pc.is_in(ids, wanted.combine_chunks())
                ids, values = ids.filter(is_wanted), values[is_wanted.to_numpy(False)]
            before = run.rows
            known = Axis(row["axis_id"], row["name"], row["kind"], space, row["vector"], row)
            item = Scored(known, layer, values, alignment_id)
            write_projections(root, connection, run, space, ids.to_pylist(), [item])
            done.append(
                ModelScore(
                    space.model, space.model_id, layer, alignment_id, len(ids), run.rows - before
                )
            )
    return done


def project_stored(
    connection: Connection, space: Space, vector: Float[np.ndarray, " d_model"], offset: float = 0.0
) -> tuple[pa.StringArray, Float[np.ndarray, " row"]]:
    """Prompt ids and `x @ vector + offset` of all activations of a space, in no stated order.

    Vectors pass through in batches: memory does not grow with their number but for the results.
    """
    keys = dict(zip(("model_id", "site", "pooling", "template"), space.key[1:], strict=True))
    ids, values = [pa.array([], pa.string())], [np.empty(0)]
    for names, block in layer_batches(connection, space.model, keys, space.layer):
        ids.append(names.cast(pa.string()))
        values.append(activations.project(block, vector, offset))
    return pa.concat_arrays(ids), np.concatenate(values)


def _spaces(connection: Connection, axis: dict[str, Any]) -> list[Space]:
    """The stored models with activations of the axis's kind."""
    where = {name: axis[name] for name in ("site", "pooling", "template")}
    found = rows(
        connection,
        """
        select distinct model, model_id
        from v_stored
        where site = $site and pooling = $pooling and template = $template
        order by all
        """,
        where,
    )
    return [find_space(connection, f"{row['model']}@{row['model_id']}", **where) for row in found]


def _way(
    connection: Connection, axis: dict[str, Any], space: Space, alignment: str | None
) -> tuple[str | None, int | None]:
    """The alignment into the axis's space (None in that space) and the layer; no layer: no way.

    Of several the one is taken that the model was projected with before, or that the axis was made
    with.
    """
    if space.model_id == axis["space_model_id"]:
        return None, axis["layer"]
    candidates = rows(
        connection,
        """
        select
            alignment_id,
            layer,
            alignment_id in (
                select alignment_id from projections
                where axis_id = $axis_id and model_id = $model_id
                union all
                select alignment_id from axes where list_contains($sources, axis_id)
            ) as is_its_own
        from alignments
        where
            model_id = $model_id and reference_model_id = $reference
            and reference_layer = $layer and site = $site and pooling = $pooling
            and template = $template and starts_with(alignment_id, $alignment)
        order by alignment_id
        """,
        {
            "axis_id": axis["axis_id"],
            "model_id": space.model_id,
            "sources": axis["source_axis_ids"],
            "reference": axis["space_model_id"],
            "alignment": alignment or "",
            **{name: axis[name] for name in ("layer", "site", "pooling", "template")},
        },
    )
    chosen = [row for row in candidates if row["is_its_own"]] or candidates
    if len(chosen) > 1:
        ids = ", ".join(row["alignment_id"] for row in chosen)
        raise AxisError(
            f"{len(chosen)} alignments of {space.model} lead to {axis['name']}: "
            f"say which with --alignment ({ids})"
        )
    if not chosen:
        return None, None
    return chosen[0]["alignment_id"], chosen[0]["layer"]


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
