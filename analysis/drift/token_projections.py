"""The generation-time signal: projections of every stored token on a study's axes, or on one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from axes.analysis import blocks
from axes.analysis.registry import read_alignment
from axes.warehouse.connection import Connection, connect, query, rows, stream, vectors
from axes.warehouse.readouts import Readout
from axes.warehouse.runs import Run, record_run
from axes.warehouse.scratch import Rows
from axes.warehouse.writer import content_key, rows_table, write_rows


def project_tokens(root: Path, study_id: str, *, memory_limit: int | None = None) -> int:
    """Project the traces of a study's models on its native and shared axes; returns new rows.

    Traces at the study's layer that have no projection on an axis yet are read and projected;
    without traces, or when all is there, nothing happens.
    """
    connection = connect(root, memory_limit=memory_limit)
    wanted = rows(
        connection,
        """
        select distinct evaluations.model, evaluations.model_id, evaluations.layer,
            evaluations.axis_id, projections.alignment_id
        from evaluations
        inner join projections using (model, model_id, axis_id)
        where
            study_id = ? and metric = 'auroc'
            and exists (from generations where generations.model_id = evaluations.model_id)
        order by all
        """,
        [study_id],
    )
    pending = [(key, _pending(connection, key)) for key in wanted]
    pending = [(key, names) for key, names in pending if names]
    if not pending:
        return 0
    with record_run(root, "project tokens", {"study_id": study_id}) as run:
        for key, names in pending:
            _project_axis(root, connection, run, key, names)
        return run.rows


def project_completions(root: Path, connection: Connection, readout: Readout) -> int:
    """Project one model's traces at the axis's layer where that is not done; returns new rows."""
    names = ("model", "model_id", "axis_id", "layer", "alignment_id")
    key = {name: getattr(readout, name) for name in names}
    pending = _pending(connection, key)
    if not pending:
        return 0
    with record_run(root, "drift", key) as run:
        _project_axis(root, connection, run, key, pending)
        return run.rows


def _pending(connection: Connection, key: dict) -> list[str]:
    """Generations with tokens at the layer and without a projection on the axis."""
    found = rows(
        connection,
        """
        select distinct tokens.generation_id
        from generation_tokens as tokens
        inner join generations using (model, generation_id)
        anti join (
            from token_projections
            where model = $model and axis_id = $axis_id and layer = $layer
        ) as projected on tokens.generation_id = projected.generation_id
        where tokens.model = $model and tokens.layer = $layer and tokens.vector is not null
            and generations.model_id = $model_id
        order by all
        """,
        {name: key[name] for name in ("model", "model_id", "layer", "axis_id")},
    )
    return [row["generation_id"] for row in found]


def _project_axis(
    root: Path, connection: Connection, run: Run, key: dict, generation_ids: list[str]
) -> None:
    axis_table = query(connection, "select vector from axes where axis_id = ?", [key["axis_id"]])
    vector = vectors(axis_table.column("vector"))[0].astype(np.float64)
    project: Callable[[Rows, np.ndarray], np.ndarray] = blocks.project
    if key["alignment_id"] is not None:
        stored = read_alignment(root, connection, key["alignment_id"])
        assert stored is not None
        project = stored.fit.alignment.project
    batches = stream(
        connection,
        """
        select generation_id, step, vector
        from generation_tokens
        where model = ? and layer = ? and list_contains(?, generation_id)
        """,
        [key["model"], key["layer"], generation_ids],
    )
    new = [
        {
            "axis_id": key["axis_id"],
            "generation_id": generation_id,
            "step": step,
            "layer": key["layer"],
            "alignment_id": key["alignment_id"],
            "projection": float(value),
            "run_id": run.run_id,
        }
        for batch in batches
        for generation_id, step, value in zip(
            batch.column("generation_id").to_pylist(),
            batch.column("step").to_pylist(),
            project(vectors(batch.column("vector")), vector),
            strict=True,
        )
    ]
    new.sort(key=lambda row: (row["generation_id"], row["step"]))
    name = content_key(key["axis_id"], generation_ids)
    table = rows_table("token_projections", new)
    write_rows(root, "token_projections", table, name=name, partition=key["model"])
    run.rows += len(new)
