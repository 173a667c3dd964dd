"""An axis as a model's own block output shows it: one vector and one constant.

A native axis is read as it is. An axis of another space comes after the model's alignment
`x W + b`, so the projection `(x W + b) . u` of an activation is `x . (W u) + b . u`: the same
number from one product in the model's own space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from axes.analysis.registry import read_alignment
from axes.warehouse.axes import find_axis
from axes.warehouse.connection import Connection, rows
from axes.warehouse.errors import AxisError


@dataclass(frozen=True)
class Readout:
    """`x . vector + constant` is the projection on the axis of a block output `x` at `layer`.

    `alignment_id` names the map that was pulled back, None for an axis of the model's own space.
    """

    model: str
    model_id: str
    axis_id: str
    axis_name: str
    layer: int
    alignment_id: str | None
    vector: Float[np.ndarray, " d_model"]
    constant: float


def find_readout(root: Path, connection: Connection, axis: str, model_id: str) -> Readout:
    """The axis (an id, the start of one, or a name) for one model version.

    Raises `AxisError` where the axis is unknown or the model has no way into its space.
    """
    found = find_axis(connection, axis)
    registered = rows(connection, "select model from models where model_id = ?", [model_id])
    alignments = rows(
        connection,
        """
        select alignments.alignment_id, alignments.layer
        from alignments
        inner join projections using (model, model_id, alignment_id)
        where projections.axis_id = $axis_id and model_id = $model_id
        group by all
        order by all
        """,
        {"axis_id": found["axis_id"], "model_id": model_id},
    )
    is_own = found["space_model_id"] == model_id
    if not registered or not (alignments or is_own):
        raise AxisError(
            f"no alignment of this model ({model_id}) into the space of {found['name']} "
            f"({found['space_model']}@{found['space_model_id'][:8]}): run a study with the model, "
            "in the dtype it was ingested in"
        )
    vector, constant, layer, alignment_id = found["vector"].astype(np.float64), 0.0, None, None
    if alignments and found["kind"] != "native":
        alignment_id, layer = alignments[0]["alignment_id"], alignments[0]["layer"]
        stored = read_alignment(root, connection, alignment_id)
        if stored is None:
            raise AxisError(f"the alignment {alignment_id} is lost: run the study again")
        vector, constant = stored.fit.alignment.pull_back(vector)
    return Readout(
        model=registered[0]["model"],
        model_id=model_id,
        axis_id=found["axis_id"],
        axis_name=found["name"],
        layer=found["layer"] if layer is None else layer,
        alignment_id=alignment_id,
        vector=vector,
        constant=constant,
    )


def traced_models(connection: Connection, axis_id: str, models: Sequence[str]) -> list[str]:
    """Ids of the models with traces that can be read on the axis, of those named (or all).

    A model is NAME, or NAME@ID where versions differ. Raises `AxisError` where there are none.
    """
    found = rows(
        connection,
        """
        select model, model_id
        from models
        where
            model_id in (select model_id from generations)
            and (
                model_id in (select model_id from projections where axis_id = $axis_id)
                or model_id in (select space_model_id from axes where axis_id = $axis_id)
            )
        order by all
        """,
        {"axis_id": axis_id},
    )
    wanted = [name.partition("@") for name in models] or [("", "", "")]
    ids = []
    for name, _, prefix in wanted:
        fitting = [
            row["model_id"]
            for row in found
            if name in ("", row["model"]) and row["model_id"].startswith(prefix)
        ]
        if not fitting:
            there = ", ".join(sorted({row["model"] for row in found})) or "none"
            raise AxisError(
                f"no traces of {name or 'any model'} that can be projected on {axis_id} "
                f"(there: {there}): run `axes ingest traces` and a study"
            )
        ids += fitting
    return ids
