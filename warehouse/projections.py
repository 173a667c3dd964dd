"""Rows of `projections`: made here from scores, whether analysis or an ingest computed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from axes.warehouse.axes import Space
from axes.warehouse.handle import Warehouse
from axes.warehouse.runs import Run
from axes.warehouse.storage.store import committing, store_at
from axes.warehouse.writer import content_key, rows_table


@dataclass(frozen=True, eq=False)
class Scored:
    """One projection per prompt on an axis; `alignment_id` names the map applied first, if any."""

    axis_id: str
    layer: int
    values: Float[np.ndarray, " row"]
    alignment_id: str | None = None

    def rows(self, prompt_ids: pa.Array, model_id: str, run_id: str) -> pa.Table:
        """As rows of `projections`."""
        return rows_table(
            "projections",
            [],
            prompt_id=prompt_ids,
            projection=self.values,
            axis_id=self.axis_id,
            model_id=model_id,
            layer=self.layer,
            alignment_id=self.alignment_id,
            run_id=run_id,
        )


def write_projections(
    warehouse: Warehouse,
    run: Run,
    space: Space,
    prompt_ids: Sequence[str],
    scored: Sequence[Scored],
) -> None:
    """Add projections of one model's prompts; stored ones stay, as prompt sets may overlap."""
    names = pa.array(prompt_ids, pa.string())
    # An ingest may be writing projections of the same model.
    with committing(warehouse.root, space.model):
        store_at(warehouse.root).refresh("projections")
        stored = warehouse.query(
            """
            select axis_id, prompt_id
            from projections
            where model = ? and model_id = ? and list_contains(?, axis_id)
            """,
            [space.model, space.model_id, [item.axis_id for item in scored]],
        )
        tables, written = [], []
        for item in scored:
            on_axis = stored.filter(pc.equal(stored["axis_id"], item.axis_id))["prompt_id"]
            is_new = pc.invert(pc.is_in(names, on_axis.combine_chunks()))
            if len(new := names.filter(is_new)):
                values = item.values[is_new.to_numpy(False)]
                tables.append(replace(item, values=values).rows(new, space.model_id, run.run_id))
                written.append((item.axis_id, content_key(new.to_pylist())))
        if tables:
            name = content_key(written)
            warehouse.write("projections", tables, name=name, partition=space.model)
    run.rows += sum(len(table) for table in tables)
