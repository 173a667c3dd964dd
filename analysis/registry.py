"""Fitted things into the warehouse: axes, alignments, projections, each under a content key.

Writing the same thing again finds it there, so a study that was killed goes on from where it was
and two studies share what they have in common.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from axes.analysis.activations import Matrix, Space
from axes.analysis.methods.affine_map import Alignment, HiddenLayer
from axes.analysis.methods.alignment import AlignmentFit
from axes.analysis.methods.directions import Direction
from axes.analysis.stats.auroc import Estimate
from axes.warehouse.axes import Axis
from axes.warehouse.connection import Connection, query, rows, vectors
from axes.warehouse.runs import Run
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, data_file, rows_table, vector_array, write_rows


@dataclass(frozen=True)
class Scored:
    """One projection per prompt on an axis; `alignment_id` names the map applied first, if any."""

    axis: Axis
    layer: int
    values: Float[np.ndarray, " row"]
    alignment_id: str | None = None


@dataclass(frozen=True)
class StoredAlignment:
    """A map into the reference's space with its key; `fit` is as read back from the warehouse."""

    alignment_id: str
    fit: AlignmentFit


def make_axis(
    kind: str,
    method: str,
    space: Space,
    fit: Callable[[], Direction],
    fitted_on: Matrix,
    prompt_set: str,
    *,
    label: str,
    variant: Sequence[str] = (),
    fitted_model: str | None = None,
    held_out_model: str | None = None,
    alignment_id: str | None = None,
    sources: Sequence[Axis] = (),
    parameters: dict[str, Any] | None = None,
    registered: Mapping[str, Direction] = MappingProxyType({}),
    is_of_pairs: bool = False,
) -> Axis:
    """An axis with its id: a hash of everything that determines the vector.

    The vector is that of `registered`, or else what `fit` gives, in float32 as it is stored: so it
    is the same for whoever fits it and for whoever finds it. `label` (a model or a group) and
    `variant` go into the name; `is_of_pairs` says that it matters which rows are a pair.
    """
    key = content_key(
        kind,
        method,
        space.model_id,
        space.layer,
        space.site,
        space.pooling,
        space.template,
        fitted_on.grouped_hash if is_of_pairs else fitted_on.row_set_hash,
        fitted_model,
        held_out_model,
        alignment_id,
        [source.axis_id for source in sources],
    )
    direction = registered[key] if key in registered else fit()
    vector = direction.vector.astype(np.float32).astype(np.float64)
    positive_count = int(fitted_on.labels.sum())
    return Axis(
        axis_id=key,
        name="/".join([kind, label, str(space.layer), prompt_set, *variant]),
        kind=kind,
        method=method,
        space=space,
        vector=vector,
        raw_norm=direction.raw_norm,
        prompt_set=prompt_set,
        positive_count=positive_count,
        negative_count=len(fitted_on.labels) - positive_count,
        row_set_hash=fitted_on.row_set_hash,
        query=fitted_on.query,
        parameters=json.dumps(parameters or {}, sort_keys=True),
        fitted_model=fitted_model,
        held_out_model=held_out_model,
        alignment_id=alignment_id,
        source_axis_ids=tuple(source.axis_id for source in sources),
    )


def registered_directions(connection: Connection, space: Space) -> dict[str, Direction]:
    """The native directions of a model that are registered, at any layer, by axis id."""
    found = query(
        connection,
        """
        select axis_id, raw_norm, vector
        from axes
        where
            kind = 'native' and space_model = ? and space_model_id = ?
            and site = ? and pooling = ? and template = ?
        """,
        space.key,
    )
    if not found.num_rows:
        return {}
    stored = vectors(found.column("vector")).astype(np.float64)
    named = zip(found["axis_id"].to_pylist(), stored, found["raw_norm"].to_pylist(), strict=True)
    return {axis_id: Direction(vector, raw_norm) for axis_id, vector, raw_norm in named}


def write_axes(root: Path, connection: Connection, run: Run, axes: Sequence[Axis]) -> None:
    """Add the axes that are not registered yet."""
    there = {row["axis_id"] for row in rows(connection, "select axis_id from axes")}
    new = [axis for axis in axes if axis.axis_id not in there]
    if not new:
        return
    # One file per space, since a file holds vectors of one width.
    tables = [
        rows_table(
            "axes",
            [{**axis.columns, "run_id": run.run_id}],
            vector=vector_array(axis.vector[None, :]),
        )
        for axis in new
    ]
    name = content_key([axis.axis_id for axis in new])
    write_rows(root, "axes", tables, name=name)
    run.rows += len(new)


def write_alignment(
    root: Path,
    run: Run,
    fit: AlignmentFit,
    *,
    alignment_id: str,
    space: Space,
    reference: Space,
    prompt_set: str,
    rows_fitted: Matrix,
    seed: int,
) -> None:
    """Register a fitted map."""
    alignment, shuffled = fit.alignment, fit.r2_shuffled
    row = {
        "alignment_id": alignment_id,
        "model": space.model,
        "model_id": space.model_id,
        "layer": space.layer,
        "reference_model": reference.model,
        "reference_model_id": reference.model_id,
        "reference_layer": reference.layer,
        "site": space.site,
        "pooling": space.pooling,
        "template": space.template,
        "method": fit.method,
        "ridge_lambda": alignment.ridge_lambda,
        "lambda_policy": fit.lambda_policy,
        "rank": fit.rank,
        "effective_rank": alignment.effective_rank,
        "r2_held_out": fit.r2_held_out,
        "r2_uniform": fit.r2_uniform,
        "r2_shuffled": shuffled.estimate if shuffled else None,
        "r2_shuffled_lower": shuffled.lower if shuffled else None,
        "r2_shuffled_upper": shuffled.upper if shuffled else None,
        "shuffle_count": fit.shuffle_count,
        "prompt_set": prompt_set,
        "row_count": len(rows_fitted.prompt_ids),
        "row_set_hash": rows_fitted.row_set_hash,
        "seed": seed,
        "run_id": run.run_id,
    }
    table = rows_table(
        "alignments",
        [row],
        weights=vector_array(alignment.weights.reshape(1, -1)),
        intercept=vector_array(alignment.intercept[None, :]),
        **_optional_vectors(fit),
    )
    write_rows(root, "alignments", table, name=alignment_id)
    run.rows += 1


def read_alignment(root: Path, connection: Connection, alignment_id: str) -> StoredAlignment | None:
    """A registered map, or None; the weights are the stored float32, whoever asks."""
    if not data_file(root, "alignments", alignment_id).exists():
        return None
    table = connection.sql(
        "select * from alignments where alignment_id = ?", params=[alignment_id]
    ).to_arrow_table()
    (row,) = table.drop_columns(TABLES["alignments"].vector_columns).to_pylist()
    stored = {
        name: vectors(table.column(name))[0].astype(np.float64)
        for name in TABLES["alignments"].vector_columns
        if not table.column(name).null_count
    }
    intercept = stored["intercept"]
    weights = stored["weights"].reshape(-1, len(intercept))
    hidden = None
    if "hidden_intercept" in stored:
        hidden = HiddenLayer(
            stored["hidden_weights"].reshape(len(weights), -1),
            stored["hidden_intercept"],
            stored["hidden_output"].reshape(-1, len(intercept)),
            stored["hidden_rates"],
        )
    shuffled = (row["r2_shuffled"], row["r2_shuffled_lower"], row["r2_shuffled_upper"])
    fit = AlignmentFit(
        Alignment(weights, intercept, row["ridge_lambda"], hidden),
        row["r2_held_out"],
        row["r2_uniform"],
        method=row["method"],
        lambda_policy=row["lambda_policy"],
        rank=row["rank"],
        r2_dimensions=stored.get("r2_dimensions"),
        r2_shuffled=None if shuffled[0] is None else Estimate(*shuffled),
        shuffle_count=row["shuffle_count"] or 0,
    )
    return StoredAlignment(alignment_id, fit)


def _optional_vectors(fit: AlignmentFit) -> dict[str, pa.Array]:
    """The vectors that not every alignment has, as columns of one row."""
    found = {"r2_dimensions": fit.r2_dimensions}
    if (hidden := fit.alignment.hidden) is not None:
        found |= {
            "hidden_weights": hidden.weights,
            "hidden_intercept": hidden.intercept,
            "hidden_output": hidden.output,
            "hidden_rates": hidden.rates,
        }
    return {
        name: vector_array(values.reshape(1, -1))
        for name, values in found.items()
        if values is not None
    }


def projection_counts(
    connection: Connection, space: Space, prompt_ids: Sequence[str]
) -> dict[str, int]:
    """How many of a model's prompts have a projection, by axis id."""
    cursor = connection.cursor()
    cursor.register("asked", pa.table({"prompt_id": pa.array(prompt_ids, pa.string())}))
    counted = rows(
        cursor,
        """
        select axis_id, count(*) as count
        from projections
        semi join asked using (prompt_id)
        where model = ? and model_id = ?
        group by axis_id
        """,
        [space.model, space.model_id],
    )
    return {row["axis_id"]: row["count"] for row in counted}


def write_projections(
    root: Path,
    connection: Connection,
    run: Run,
    space: Space,
    prompt_ids: Sequence[str],
    scored: Sequence[Scored],
) -> None:
    """Add projections of one model's prompts; those that are there stay, as sets may overlap."""
    axis_ids = [item.axis.axis_id for item in scored]
    there = query(
        connection,
        """
        select axis_id, prompt_id
        from projections
        where model = ? and model_id = ? and list_contains(?, axis_id)
        """,
        [space.model, space.model_id, axis_ids],
    )
    names = pa.array(prompt_ids, pa.string())
    tables, written = [], []
    for item in scored:
        of_axis = there.filter(pc.equal(there["axis_id"], item.axis.axis_id))["prompt_id"]
        is_new = pc.invert(pc.is_in(names, of_axis.combine_chunks()))
        values = pa.array(item.values, pa.float64()).filter(is_new)
        if len(values):
            new = names.filter(is_new)
            tables.append(_projections_table(run, space, item, new, values))
            written.append((item.axis.axis_id, content_key(new.to_pylist())))
    if tables:
        write_rows(root, "projections", tables, name=content_key(written), partition=space.model)
        run.rows += sum(len(table) for table in tables)


def _projections_table(
    run: Run, space: Space, item: Scored, prompt_ids: pa.Array, values: pa.Array
) -> pa.Table:
    """Rows of `projections` on one axis, as columns: there may be very many."""
    same = {
        "axis_id": item.axis.axis_id,
        "model_id": space.model_id,
        "layer": item.layer,
        "alignment_id": item.alignment_id,
        "run_id": run.run_id,
    }
    schema = TABLES["projections"].file_schema
    columns = {
        name: pa.repeat(pa.scalar(value, schema.field(name).type), len(values))
        for name, value in same.items()
    }
    return rows_table("projections", [], prompt_id=prompt_ids, projection=values, **columns)
