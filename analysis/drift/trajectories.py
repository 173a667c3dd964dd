"""Completions as trajectories: their projections on one axis, step by step, with a label for each.

Every analysis of drift reads its rows here, so that which completions it rests on, and in which
order, is the same everywhere.

The generation-time signal: projections of every stored token on a study's axes, or on one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from axes.analysis import activations
from axes.analysis.registry import read_alignment
from axes.warehouse.axes import Axis, AxisReadout, read_axes, resolve_alignment
from axes.warehouse.connection import vectors
from axes.warehouse.errors import AxisError, CoverageError, LabelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import Rows
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key, remove_rows, rows_table

# In `generations.source`: the text was generated under this id, for another prompt.
OTHER_TEXT = "generation:"

# What a set of completions may not differ in: they would not be draws of one thing.
_SAMPLING = ("template", "max_new_tokens", "temperature", "top_p")


@dataclass(frozen=True)
class Selection:
    """Which completions of a model, and who says which class they are of.

    Without a `labeler` it is the label of the prompt (`v_prompts`); else the labeler's label of the
    completion or, where it has none, of the prompt. What is None is not narrowed down.
    """

    prompt_set: str | None = None
    labeler: str | None = None
    template: str | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class Trajectories:
    """Completions of one model on one axis, in the order of their ids.

    `values` is NaN past a completion's last step. `start` is the projection of the prompt (NaN
    where it was not projected), `groups` numbers completions that belong together (of one prompt,
    or of a matched pair of prompts). `sampling` is how all of them were made; `unlabelled_count`
    completions were left out.
    """

    prompt_set: str
    sampling: dict[str, Any]
    generation_ids: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    is_positive: Bool[np.ndarray, " row"]
    groups: Int[np.ndarray, " row"]
    start: Float[np.ndarray, " row"]
    values: Float[np.ndarray, "row step"]
    unlabelled_count: int = 0

    @property
    def lengths(self) -> Int[np.ndarray, " row"]:
        """Steps of each completion."""
        return (~np.isnan(self.values)).sum(axis=1)

    @property
    def row_set_hash(self) -> str:
        """Hash of the completions in order, with their labels and their lengths."""
        return content_key(self.generation_ids, self.is_positive.tolist(), self.lengths.tolist())

    def take(self, index: np.ndarray) -> Trajectories:
        """The completions of `index`, in its order."""
        return replace(
            self,
            generation_ids=tuple(self.generation_ids[i] for i in index),
            prompt_ids=tuple(self.prompt_ids[i] for i in index),
            texts=tuple(self.texts[i] for i in index),
            is_positive=self.is_positive[index],
            groups=self.groups[index],
            start=self.start[index],
            values=self.values[index],
        )


def traced_models(
    warehouse: Warehouse, axis: Axis, models: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Names and ids of the models with traces: those named, or those projected on the axis.

    A model is NAME, or NAME@ID where versions differ. Raises `AxisError` where there are none.
    """
    traced = warehouse.query(
        """
        select
            model,
            model_id,
            model_id = $space_model_id
            or model_id in (select model_id from projections where axis_id = $axis_id)
                as is_projected
        from models
        where model_id in (select model_id from generations)
        order by all
        """,
        {"axis_id": axis.axis_id, "space_model_id": axis.space.model_id},
    ).to_pylist()
    chosen = []
    for wanted in models or [""]:
        name, _, prefix = wanted.partition("@")
        fitting = [
            (row["model"], row["model_id"])
            for row in traced
            if (row["model"] == name if name else row["is_projected"])
            and row["model_id"].startswith(prefix)
        ]
        if not fitting:
            stored = ", ".join(sorted({row["model"] for row in traced})) or "none"
            model = wanted or f"a model that is projected on {axis.name}"
            raise AxisError(f"no traces of {model} (stored: {stored}): run `axes ingest traces`")
        chosen += fitting
    return chosen


def read_trajectories(
    warehouse: Warehouse, readout: AxisReadout, selection: Selection
) -> Trajectories:
    """The completions that a model generated, unsteered, and that are projected on the axis.

    Raises `CoverageError` where there are none or those of several kinds, `LabelError` where a
    class is missing.
    """
    found = warehouse.query(_COMPLETIONS, {**vars(selection), **_keys(readout)}).to_pylist()
    _require_one_kind(readout, found)
    labelled = [row for row in found if row["is_positive"] is not None]
    is_positive = np.array([row["is_positive"] for row in labelled], dtype=bool)
    _require_classes(readout, selection, found, is_positive)
    ids = [row["generation_id"] for row in labelled]
    values, texts = _values(warehouse, readout, ids)
    _require_slopes(readout, values, is_positive)
    return Trajectories(
        prompt_set=labelled[0]["prompt_set"],
        sampling={name: labelled[0][name] for name in _SAMPLING},
        generation_ids=tuple(ids),
        prompt_ids=tuple(row["prompt_id"] for row in labelled),
        texts=texts,
        is_positive=is_positive,
        groups=np.unique([row["group_name"] for row in labelled], return_inverse=True)[1],
        start=np.array([row["start"] for row in labelled], dtype=np.float64),
        values=values,
        unlabelled_count=len(found) - len(labelled),
    )


def read_other_texts(
    warehouse: Warehouse, readout: AxisReadout, own: Trajectories
) -> Trajectories | None:
    """The same model reading, after each prompt, a text that it wrote for one of the other class.

    The rows that `axes ingest traces --completions` made of the file of `write_cross_completions`,
    labelled by the class of the prompt; None where there are none.
    """
    found = warehouse.query(
        """
        select generation_id, prompt_id, source
        from generations
        where
            model = $model and model_id = $model_id and finish_reason = 'given'
            and starts_with(source, $mark)
            and generation_id in (
                select generation_id from token_projections
                where
                    model = $model and axis_id = $axis_id and layer = $layer
                    and alignment_id is not distinct from $alignment_id
            )
        order by generation_id
        """,
        {**_keys(readout), "mark": OTHER_TEXT},
    ).to_pylist()
    row_of_prompt = {prompt_id: row for row, prompt_id in enumerate(own.prompt_ids)}
    row_of_text = {name: row for row, name in enumerate(own.generation_ids)}
    kept = []
    for row in found:
        reader = row_of_prompt.get(row["prompt_id"])
        writer = row_of_text.get(row["source"].removeprefix(OTHER_TEXT))
        if reader is None or writer is None:
            continue
        if own.is_positive[reader] != own.is_positive[writer]:
            kept.append((row["generation_id"], reader))
    if not kept:
        return None
    ids = [name for name, _ in kept]
    values, texts = _values(warehouse, readout, ids)
    of_prompts = own.take(np.array([reader for _, reader in kept]))
    return replace(of_prompts, generation_ids=tuple(ids), texts=texts, values=values)


def write_cross_completions(
    warehouse: Warehouse, found: Trajectories, path: Path, *, seed: int = 0
) -> Path:
    """Write JSONL pairs of each prompt with a random completion of the other class; the path.

    `axes ingest traces MODEL --completions FILE` scores them, and the next analysis reads them.
    """
    random = np.random.default_rng(seed)
    written = warehouse.query(
        "select generation_id, text from generations where list_contains(?, generation_id)",
        [list(found.generation_ids)],
    ).to_pydict()
    texts = dict(zip(written["generation_id"], written["text"], strict=True))
    lines = []
    for of_class in (True, False):
        readers = np.flatnonzero(found.is_positive == of_class)
        writers = np.flatnonzero(found.is_positive != of_class)
        drawn = np.resize(random.permutation(writers), len(readers))
        for reader, writer in zip(readers, drawn, strict=True):
            name = found.generation_ids[writer]
            if texts[name]:
                line = {"prompt_id": found.prompt_ids[reader], "completion": texts[name]}
                lines.append(json.dumps({**line, "source": f"{OTHER_TEXT}{name}"}))
    path.write_text("\n".join(lines) + "\n")
    return path


_COMPLETIONS = """
with
completions as (
    select generations.*
    from generations
    where
        generations.model = $model and generations.model_id = $model_id
        and generations.axis_id is null and generations.finish_reason != 'given'
        and template = coalesce($template, template)
        and max_new_tokens = coalesce($max_new_tokens, max_new_tokens)
        and exists (
            from token_projections as projected
            where
                projected.model = $model and projected.axis_id = $axis_id
                and projected.layer = $layer
                and projected.alignment_id is not distinct from $alignment_id
                and projected.generation_id = generations.generation_id
        )
),

of_completions as (
    select generation_id, is_positive
    from labels
    where labeler = $labeler and generation_id is not null
),

of_prompts as (
    select prompt_set, prompt_id, is_positive
    from labels
    where labeler = $labeler and generation_id is null
)

select
    completions.generation_id,
    completions.prompt_id,
    prompts.prompt_set,
    completions.template,
    completions.max_new_tokens,
    completions.temperature,
    completions.top_p,
    coalesce('pair ' || nullif(prompts.pair_id, ''), 'prompt ' || prompts.prompt_id)
        as group_name,
    projections.projection as start,
    case
        when $labeler is null then prompts.is_positive
        else coalesce(of_completions.is_positive, of_prompts.is_positive)
    end as is_positive
from completions
inner join v_prompts as prompts
    on
        completions.prompt_id = prompts.prompt_id
        and prompts.prompt_set = coalesce($prompt_set, prompts.prompt_set)
left join of_completions on completions.generation_id = of_completions.generation_id
left join of_prompts
    on
        prompts.prompt_set = of_prompts.prompt_set
        and prompts.prompt_id = of_prompts.prompt_id
left join projections
    on
        projections.model = $model and projections.model_id = $model_id
        and projections.axis_id = $axis_id
        and completions.prompt_id = projections.prompt_id
order by completions.generation_id, prompts.prompt_set
"""


def _keys(readout: AxisReadout) -> dict[str, Any]:
    names = ("model", "model_id", "axis_id", "layer", "alignment_id")
    return {name: getattr(readout, name) for name in names}


def _require_one_kind(readout: AxisReadout, found: list[dict[str, Any]]) -> None:
    if not found:
        raise CoverageError(
            f"no completions of {readout.model} are projected on {readout.axis_name} at layer "
            f"{readout.layer}: run `axes ingest traces {readout.model} --prompts SET "
            f"--layers {readout.layer}` first"
        )
    sets = sorted({row["prompt_set"] for row in found})
    if len(sets) > 1:
        raise CoverageError(
            f"completions of {readout.model} are of the prompt sets {', '.join(sets)}: "
            "say which with --prompts"
        )
    kinds = sorted({tuple(row[name] for name in _SAMPLING) for row in found})
    if len(kinds) > 1:
        shown = "; ".join(
            ", ".join(f"{name} {value}" for name, value in zip(_SAMPLING, kind, strict=True))
            for kind in kinds
        )
        raise CoverageError(
            f"completions of {readout.model} are of several kinds: say which with --template and "
            f"--max-new-tokens ({shown})"
        )


def _require_classes(
    readout: AxisReadout,
    selection: Selection,
    found: list[dict[str, Any]],
    is_positive: Bool[np.ndarray, " row"],
) -> None:
    positive_count = int(is_positive.sum())
    if min(positive_count, len(is_positive) - positive_count) < 2:
        raise LabelError(
            f"{positive_count} positive and {len(is_positive) - positive_count} negative of "
            f"{len(found)} completions of {readout.model} by "
            f"{selection.labeler or 'the labels of their prompts'}: two of each are the least"
        )


def _require_slopes(
    readout: AxisReadout,
    values: Float[np.ndarray, "row step"],
    is_positive: Bool[np.ndarray, " row"],
) -> None:
    lengths = (~np.isnan(values)).sum(axis=1)
    if min(lengths[is_positive].max(), lengths[~is_positive].max()) < 2:
        raise CoverageError(
            f"every completion of {readout.model} in a class has a single token, and so no slope: "
            "run `axes ingest traces` with a larger --max-new-tokens"
        )


def _values(
    warehouse: Warehouse, readout: AxisReadout, generation_ids: list[str]
) -> tuple[Float[np.ndarray, "row step"], tuple[tuple[str, ...], ...]]:
    """Projections `[row, step]`, NaN past the end, and each completion's tokens as text."""
    table = warehouse.query(
        """
        select projected.generation_id, projected.step, projected.projection, tokens.token
        from token_projections as projected
        inner join generation_tokens as tokens using (model, generation_id, step, layer)
        where
            projected.model = $model and projected.axis_id = $axis_id
            and projected.layer = $layer and projected.step >= 0
            and projected.alignment_id is not distinct from $alignment_id
            and list_contains($generation_ids, projected.generation_id)
        order by projected.generation_id, projected.step
        """,
        {
            **{name: value for name, value in _keys(readout).items() if name != "model_id"},
            "generation_ids": generation_ids,
        },
    )
    row_of = {name: row for row, name in enumerate(generation_ids)}
    steps = table.column("step").to_numpy()
    at = np.array([row_of[name] for name in table.column("generation_id").to_pylist()])
    values = np.full((len(generation_ids), int(steps.max()) + 1), np.nan)
    values[at, steps] = table.column("projection").to_numpy()
    texts: list[list[str]] = [[] for _ in generation_ids]
    for row, token in zip(at, table.column("token").to_pylist(), strict=True):
        texts[row].append(token)
    return values, tuple(tuple(tokens) for tokens in texts)


def project_tokens(root: Path, study_id: str, *, memory_limit: int | None = None) -> int:
    """Project the traces of a study's models on its native and shared axes; returns new rows.

    Traces at the study's layer that have no projection on an axis yet are read and projected;
    without traces, or when all is there, nothing happens.
    """
    warehouse = Warehouse.open(root, memory_limit=memory_limit)
    judged = warehouse.query(
        """
        select distinct model, model_id, axis_id
        from evaluations
        where
            study_id = ? and metric = 'auroc' and axis_id is not null
            and exists (from generations where generations.model_id = evaluations.model_id)
        order by all
        """,
        [study_id],
    ).to_pylist()
    axes = read_axes(warehouse, [row["axis_id"] for row in judged])
    sources = [
        _token_source(warehouse, axis, row["model"], row["model_id"])
        for axis, row in zip(axes, judged, strict=True)
    ]
    return _project(warehouse, "project tokens", {"study_id": study_id}, sources)


def project_completions(warehouse: Warehouse, axis: Axis, readout: AxisReadout) -> int:
    """Project one model's traces at the axis's layer where that is not done; returns new rows."""
    source = _TokenSource(
        axis, readout.model, readout.model_id, readout.layer, readout.alignment_id
    )
    return _project(warehouse, "drift", _keys(readout), [source])


@dataclass(frozen=True)
class _TokenSource:
    """An axis and the model whose tokens at `layer` are projected on it."""

    axis: Axis
    model: str
    model_id: str
    layer: int
    alignment_id: str | None


def _token_source(warehouse: Warehouse, axis: Axis, model: str, model_id: str) -> _TokenSource:
    layer, alignment_id = resolve_alignment(warehouse, axis, model, model_id)
    return _TokenSource(axis, model, model_id, layer, alignment_id)


def _project(
    warehouse: Warehouse, command: str, parameters: dict[str, Any], sources: list[_TokenSource]
) -> int:
    pending = [(source, _pending(warehouse, source)) for source in sources]
    pending = [(source, generation_ids) for source, generation_ids in pending if generation_ids]
    if not pending:
        return 0
    with warehouse.run(command, parameters) as run:
        for source, generation_ids in pending:
            _remove_other_maps(warehouse, source, generation_ids)
            _project_tokens(warehouse, run, source, generation_ids)
        return run.rows


def _pending(warehouse: Warehouse, source: _TokenSource) -> list[str]:
    """Completions with token vectors at the layer, not projected on the axis through its map."""
    return warehouse.column(
        """
        select distinct tokens.generation_id
        from generation_tokens as tokens
        inner join generations using (model, generation_id)
        anti join (
            from token_projections
            where
                model = $model and axis_id = $axis_id and layer = $layer
                and alignment_id is not distinct from $alignment_id
        ) as projected on tokens.generation_id = projected.generation_id
        where tokens.model = $model and tokens.layer = $layer and tokens.vector is not null
            and generations.model_id = $model_id
        order by all
        """,
        {
            "model": source.model,
            "model_id": source.model_id,
            "axis_id": source.axis.axis_id,
            "layer": source.layer,
            "alignment_id": source.alignment_id,
        },
    )


def _remove_other_maps(
    warehouse: Warehouse, source: _TokenSource, generation_ids: list[str]
) -> None:
    """Remove projections of pending completions on the axis: they went through another alignment.

    The key of `token_projections` holds no alignment: next to the new rows they would be a second
    value under one key.
    """
    place = [source.model, source.axis.axis_id, source.layer, generation_ids]
    if not warehouse.column(
        "select 1 from token_projections where model = ? and axis_id = ? and layer = ? "
        "and list_contains(?, generation_id) limit 1",
        place,
    ):
        return
    names = pa.array(generation_ids, pa.string())

    def is_of_other_map(stored: pa.Table) -> pa.ChunkedArray:
        is_on_axis = pc.and_(
            pc.equal(stored["axis_id"], source.axis.axis_id),
            pc.equal(stored["layer"], source.layer),
        )
        return pc.and_(is_on_axis, pc.is_in(stored["generation_id"], names))

    remove_rows(warehouse.root, "token_projections", is_of_other_map, partition=source.model)


def _project_tokens(
    warehouse: Warehouse, run: Run, source: _TokenSource, generation_ids: list[str]
) -> None:
    project: Callable[[Rows, np.ndarray], np.ndarray] = activations.project
    if source.alignment_id is not None:
        stored = read_alignment(warehouse.root, warehouse.connection, source.alignment_id)
        assert stored is not None
        project = stored.fit.alignment.project
    batches = warehouse.stream(
        """
        select generation_id, step, vector
        from generation_tokens
        where model = ? and layer = ? and list_contains(?, generation_id)
        """,
        [source.model, source.layer, generation_ids],
    )
    new = [
        {
            "axis_id": source.axis.axis_id,
            "generation_id": generation_id,
            "step": step,
            "layer": source.layer,
            "alignment_id": source.alignment_id,
            "projection": float(value),
            "run_id": run.run_id,
        }
        for batch in batches
        for generation_id, step, value in zip(
            batch.column("generation_id").to_pylist(),
            batch.column("step").to_pylist(),
            project(vectors(batch.column("vector")), source.axis.vector),
            strict=True,
        )
    ]
    new.sort(key=lambda row: (row["generation_id"], row["step"]))
    warehouse.write(
        "token_projections",
        rows_table("token_projections", new),
        name=content_key(source.axis.axis_id, generation_ids),
        partition=source.model,
    )
    run.rows += len(new)
