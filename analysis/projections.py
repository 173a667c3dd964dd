"""Project stored activations on a registered axis, and read projections with their labels.

A model in the axis's own space is projected directly. For any other the axis is pulled back through
the model's alignment, so that no activation has to be mapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from axes.analysis import activations
from axes.analysis.activations import Space, count_prompts, find_space, number_groups
from axes.analysis.token_rows import TokenRows, text_array, token_prompts
from axes.warehouse.axes import Axis, find_axes, read_axis_readout
from axes.warehouse.errors import CoverageError, LabelError, NoAlignmentError
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import TokenPooling, layer_batches
from axes.warehouse.projections import Scored, write_projections
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
    """Write the projections of stored activations on an axis or a subspace (id, start, or name).

    `models` and `prompt_sets` narrow what is projected; `alignment` names the map of a model that
    has several: this is where it is chosen, for every command (`resolve_alignment`). Raises
    `AxisError` for an unknown axis or a named model without an alignment into its space,
    `ModelError` for an unknown model, `PromptError` for an unknown set.
    """
    warehouse = Warehouse.open(root, memory_limit=memory_limit)
    found = find_axes(warehouse, axis)
    for prompt_set in prompt_sets:
        count_prompts(warehouse, prompt_set)
    named = {find_space(warehouse, model).model_id for model in models}
    of_sets = "select distinct prompt_id from prompts where list_contains(?, prompt_set)"
    wanted = warehouse.query(of_sets, [list(prompt_sets)])["prompt_id"].combine_chunks()
    done = []
    parameters = {"axis": ", ".join(each.axis_id for each in found), "models": list(models)}
    with warehouse.run("score", parameters) as run:
        for space in _stored_spaces(warehouse, found[0]):
            if named and space.model_id not in named:
                continue
            try:
                readouts = [
                    read_axis_readout(warehouse, each, *space.key[:2], alignment=alignment)
                    for each in found
                ]
            except NoAlignmentError:
                if named:
                    raise
                continue
            layer, before = readouts[0].layer, run.rows
            directions = [(readout.vector, readout.offset) for readout in readouts]
            ids, values = project_stored(warehouse, space.at(layer), directions)
            if prompt_sets:
                is_wanted = pc.is_in(ids, wanted)
                ids, values = ids.filter(is_wanted), values[:, is_wanted.to_numpy(False)]
            items = [
                Scored(each.axis_id, layer, along, readout.alignment_id)
                for each, readout, along in zip(found, readouts, values, strict=True)
            ]
            write_projections(warehouse, run, space, ids.to_pylist(), items)
            done.append(
                ModelScore(
                    model=space.model,
                    model_id=space.model_id,
                    layer=layer,
                    alignment_id=readouts[0].alignment_id,
                    stored_count=len(ids),
                    new_count=(run.rows - before) // len(found),
                )
            )
    return done


def project_stored(
    warehouse: Warehouse,
    space: Space,
    directions: Sequence[tuple[Float[np.ndarray, " d_model"], float]],
) -> tuple[pa.StringArray, Float[np.ndarray, "axis row"]]:
    """Prompt ids and `x @ vector + offset` of all activations of a space, in no stated order.

    `directions` are vectors with their offsets. Activations pass through once, in batches: memory
    does not grow with their number but for the results.
    """
    batches: Iterable[tuple[pa.Array, Any]] = layer_batches(
        warehouse.connection, space.model, space.columns, space.layer
    )
    if (pooling := TokenPooling.find(space.pooling)) is not None:
        names = warehouse.query(token_prompts(space))["prompt_id"].combine_chunks()
        rows = TokenRows(warehouse, space, pooling, text_array(names))
        batches = [(names, rows)] if len(rows) else []
    ids, values = [pa.array([], pa.string())], [np.empty((len(directions), 0))]
    for names, block in batches:
        ids.append(names.cast(pa.string()))
        values.append(np.stack([activations.project(block, *each) for each in directions]))
    return pa.concat_arrays(ids), np.concatenate(values, axis=1)


def _stored_spaces(warehouse: Warehouse, axis: Axis) -> list[Space]:
    """The models with stored activations at the axis's site, pooling and template."""
    where = axis.space.columns
    del where["model_id"]
    if TokenPooling.find(axis.space.pooling) is not None:  # No map is fitted on tokens.
        return [axis.space]
    models = warehouse.column(
        """
        select model || '@' || model_id as name
        from v_stored
        where site = $site and pooling = $pooling and template = $template
        group by model, model_id
        order by model, model_id
        """,
        where,
    )
    return [find_space(warehouse, model, **where) for model in models]


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
            texts=self.texts.take(pa.array(index)),
            values=self.values[index],
            labels=self.labels[index],
            groups=self.groups[index],
            is_in_sample=self.is_in_sample[index],
        )


def scored_models(warehouse: Warehouse, axis_id: str, prompt_set: str) -> list[str]:
    """Ids of the models, by name, with labelled prompts of the set projected on the axis."""
    model_ids = warehouse.column(
        "select model_id from v_projections "
        "where axis_id = ? and prompt_set = ? and is_positive is not null "
        "group by model, model_id order by model, model_id",
        [axis_id, prompt_set],
    )
    if not model_ids:
        raise CoverageError(
            f"no labelled prompt of {prompt_set} is projected on the axis {axis_id}: run "
            f"`axes study` with `--evaluate {prompt_set}` first"
        )
    return model_ids


def read_scores(
    warehouse: Warehouse,
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
    expected = count_prompts(warehouse, prompt_set)
    table = warehouse.query(
        """
        select model, prompt_id, pair_id, text, projection, is_positive, is_in_sample
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
        texts=table.column("text").combine_chunks(),
        values=table.column("projection").to_numpy(),
        labels=labels,
        groups=number_groups(table.column("pair_id").combine_chunks()),
        is_in_sample=table.column("is_in_sample").to_numpy(),
    )
