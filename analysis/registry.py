"""Axes and alignments to and from the warehouse, each under a content key.

What is stored is not written again: a killed study continues where it stopped, and two studies
share the rows that they have in common.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from axes.analysis.activations import Matrix, Space
from axes.analysis.methods.directions import Direction
from axes.analysis.methods.maps.affine_map import Alignment, HiddenLayer
from axes.analysis.methods.maps.alignment import AlignmentFit
from axes.analysis.stats.auroc import Estimate
from axes.warehouse.axes import Axis
from axes.warehouse.connection import query, vectors
from axes.warehouse.errors import NoAlignmentError
from axes.warehouse.handle import Warehouse
from axes.warehouse.runs import Run
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, rows_table, vector_array


def store_rows(
    warehouse: Warehouse,
    run: Run,
    table: str,
    name: str,
    rows: Iterable[Mapping[str, object]],
    *,
    partition: str | None = None,
) -> None:
    """Store the rows as the file `name` of a table, with the id of the run, and count them."""
    stored = [{**row, "run_id": run.run_id} for row in rows]
    warehouse.write(table, rows_table(table, stored), name=name, partition=partition)
    run.rows += len(stored)


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
    parameters: Mapping[str, object] | None = None,
    registered: Mapping[str, Direction] = MappingProxyType({}),
    is_of_pairs: bool = False,
) -> Axis:
    """An axis with its id: a hash of everything that determines the vector.

    The vector is that of `registered`, or else what `fit` gives, in float32 as it is stored: so it
    is the same for whoever fits it and for whoever finds it. `label` (a model or a group) and
    the variants of the space and the fit go into the name; `is_of_pairs` says that it matters which
    rows are a pair.
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
    positive_count = int(fitted_on.labels.sum())
    return Axis(
        axis_id=key,
        name="/".join([kind, label, str(space.layer), prompt_set, *space.variant, *variant]),
        kind=kind,
        method=method,
        space=space,
        vector=direction.vector.astype(np.float32).astype(np.float64),
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


def registered_directions(warehouse: Warehouse, space: Space) -> dict[str, Direction]:
    """The native directions of a model that are registered, at any layer, by axis id."""
    table = warehouse.query(
        """
        select axis_id, raw_norm, vector
        from axes
        where
            kind = 'native' and space_model = ? and space_model_id = ?
            and site = ? and pooling = ? and template = ?
        """,
        space.key,
    )
    matrix = vectors(table["vector"]).astype(np.float64)
    columns = (table["axis_id"].to_pylist(), matrix, table["raw_norm"].to_pylist())
    return {
        axis_id: Direction(vector, norm) for axis_id, vector, norm in zip(*columns, strict=True)
    }


def write_axes(warehouse: Warehouse, run: Run, axes: Sequence[Axis]) -> None:
    """Add the axes that are not registered yet."""
    registered = set(warehouse.column("select axis_id from axes"))
    new = [axis for axis in axes if axis.axis_id not in registered]
    if not new:
        return
    # One row group per axis, since vectors may be of several widths.
    tables = [
        rows_table(
            "axes",
            [{**axis.columns, "run_id": run.run_id}],
            vector=vector_array(axis.vector[None, :]),
        )
        for axis in new
    ]
    warehouse.write("axes", tables, name=content_key([axis.axis_id for axis in new]))
    run.rows += len(new)


def write_alignment(
    warehouse: Warehouse,
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
        **{name: getattr(fit, name) for name in _OF_FIT},
        "ridge_lambda": alignment.ridge_lambda,
        "effective_rank": alignment.effective_rank,
        "r2_shuffled": shuffled.estimate if shuffled else None,
        "r2_shuffled_lower": shuffled.lower if shuffled else None,
        "r2_shuffled_upper": shuffled.upper if shuffled else None,
        "prompt_set": prompt_set,
        "row_count": len(rows_fitted.prompt_ids),
        "row_set_hash": rows_fitted.row_set_hash,
        "seed": seed,
        "run_id": run.run_id,
    }
    arrays = {
        "weights": alignment.weights,
        "intercept": alignment.intercept,
        "r2_dimensions": fit.r2_dimensions,
    }
    if alignment.hidden is not None:
        arrays |= {f"hidden_{name}": values for name, values in vars(alignment.hidden).items()}
    columns = {
        name: vector_array(values.reshape(1, -1))
        for name, values in arrays.items()
        if values is not None
    }
    warehouse.write("alignments", rows_table("alignments", [row], **columns), name=alignment_id)
    run.rows += 1


# Columns of `alignments` that are fields of `AlignmentFit` by the same name.
_OF_FIT = ("method", "lambda_policy", "rank", "r2_held_out", "r2_uniform", "shuffle_count")


def read_alignment(warehouse: Warehouse, alignment_id: str) -> StoredAlignment:
    """A registered map, its weights float64 of the stored float32; raises `NoAlignmentError`."""
    if not warehouse.has("alignments", alignment_id):
        raise NoAlignmentError(f"alignment {alignment_id} is not stored: run its study again")
    table = warehouse.query("from alignments where alignment_id = ?", [alignment_id])
    (row,) = table.drop_columns(TABLES["alignments"].vector_columns).to_pylist()
    stored = {
        name: vectors(table.column(name))[0].astype(np.float64)
        for name in TABLES["alignments"].vector_columns
        if not table.column(name).null_count
    }
    intercept = stored["intercept"]
    # Matrices are stored row-major: weights [d_model, d_reference], hidden weights
    # [d_model, hidden], hidden output [hidden, d_reference].
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
        **{name: row[name] for name in _OF_FIT},
        r2_dimensions=stored.get("r2_dimensions"),
        r2_shuffled=None if shuffled[0] is None else Estimate(*shuffled),
    )
    return StoredAlignment(alignment_id, fit)


def projection_counts(
    warehouse: Warehouse, space: Space, prompt_ids: Sequence[str]
) -> dict[str, int]:
    """How many of a model's prompts have a projection, by axis id."""
    cursor = warehouse.connection.cursor()
    cursor.register("prompts_of_set", pa.table({"prompt_id": pa.array(prompt_ids, pa.string())}))
    counts = query(
        cursor,
        """
        select axis_id, count(*) as count
        from projections
        semi join prompts_of_set using (prompt_id)
        where model = ? and model_id = ?
        group by axis_id
        """,
        [space.model, space.model_id],
    )
    return dict(zip(counts["axis_id"].to_pylist(), counts["count"].to_pylist(), strict=True))
