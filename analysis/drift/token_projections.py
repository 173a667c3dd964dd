"""Project stored tokens: traces of a study's models on its axes, or of one model on one axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from axes.analysis import activations
from axes.analysis.registry import read_alignment, store_rows
from axes.warehouse.axes import Axis, AxisReadout, read_axes, resolve_alignment
from axes.warehouse.connection import vectors
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import Rows
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key, remove_rows


@dataclass(frozen=True)
class _Tokens:
    """The tokens of a model at a layer that are projected on an axis, by which alignment."""

    axis: Axis
    model: str
    model_id: str
    layer: int
    alignment_id: str | None


def project_tokens(warehouse: Warehouse, study_id: str) -> int:
    """Project the traces of a study's models on its native and shared axes; returns new rows.

    Traces at the study's layer that have no projection on an axis yet are read and projected;
    without traces, or when all is there, nothing happens.
    """
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
    traced = []
    for axis, row in zip(axes, judged, strict=True):
        layer, alignment_id = resolve_alignment(warehouse, axis, row["model"], row["model_id"])
        traced.append(_Tokens(axis, row["model"], row["model_id"], layer, alignment_id))
    return _project(warehouse, "project tokens", {"study_id": study_id}, traced)


def project_completions(warehouse: Warehouse, axis: Axis, readout: AxisReadout) -> int:
    """Project one model's traces at the axis's layer where that is not done; returns new rows."""
    tokens = _Tokens(axis, readout.model, readout.model_id, readout.layer, readout.alignment_id)
    return _project(warehouse, "drift", readout.columns, [tokens])


def _project(
    warehouse: Warehouse,
    command: str,
    parameters: dict[str, str | int | None],
    traced: Sequence[_Tokens],
) -> int:
    pending = [(tokens, _pending(warehouse, tokens)) for tokens in traced]
    pending = [(tokens, generation_ids) for tokens, generation_ids in pending if generation_ids]
    if not pending:
        return 0
    with warehouse.run(command, parameters) as run:
        for tokens, generation_ids in pending:
            _remove_other_maps(warehouse, tokens, generation_ids)
            _project_tokens(warehouse, run, tokens, generation_ids)
        return run.rows


def _pending(warehouse: Warehouse, tokens: _Tokens) -> list[str]:
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
            "model": tokens.model,
            "model_id": tokens.model_id,
            "axis_id": tokens.axis.axis_id,
            "layer": tokens.layer,
            "alignment_id": tokens.alignment_id,
        },
    )


def _remove_other_maps(warehouse: Warehouse, tokens: _Tokens, generation_ids: list[str]) -> None:
    """Remove projections of pending completions on the axis: they went through another alignment.

    The key of `token_projections` holds no alignment: next to the new rows they would be a second
    value under one key.
    """
    place = [tokens.model, tokens.axis.axis_id, tokens.layer, generation_ids]
    if not warehouse.column(
        "select 1 from token_projections where model = ? and axis_id = ? and layer = ? "
        "and list_contains(?, generation_id) limit 1",
        place,
    ):
        return
    names = pa.array(generation_ids, pa.string())

    def is_of_other_map(stored: pa.Table) -> pa.ChunkedArray:
        is_on_axis = pc.and_(
            pc.equal(stored["axis_id"], tokens.axis.axis_id),
            pc.equal(stored["layer"], tokens.layer),
        )
        return pc.and_(is_on_axis, pc.is_in(stored["generation_id"], names))

    remove_rows(warehouse.root, "token_projections", is_of_other_map, partition=tokens.model)


def _project_tokens(
    warehouse: Warehouse, run: Run, tokens: _Tokens, generation_ids: list[str]
) -> None:
    project: Callable[[Rows, np.ndarray], np.ndarray] = activations.project
    if tokens.alignment_id is not None:
        project = read_alignment(warehouse, tokens.alignment_id).fit.alignment.project
    batches = warehouse.stream(
        """
        select generation_id, step, vector
        from generation_tokens
        where model = ? and layer = ? and list_contains(?, generation_id)
        """,
        [tokens.model, tokens.layer, generation_ids],
    )
    new = [
        {
            "axis_id": tokens.axis.axis_id,
            "generation_id": generation_id,
            "step": step,
            "layer": tokens.layer,
            "alignment_id": tokens.alignment_id,
            "projection": float(value),
        }
        for batch in batches
        for generation_id, step, value in zip(
            batch.column("generation_id").to_pylist(),
            batch.column("step").to_pylist(),
            project(vectors(batch.column("vector")), tokens.axis.vector),
            strict=True,
        )
    ]
    new.sort(key=lambda row: (row["generation_id"], row["step"]))
    name = content_key(tokens.axis.axis_id, generation_ids)
    store_rows(warehouse, run, "token_projections", name, new, partition=tokens.model)
