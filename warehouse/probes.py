"""Registered axes as something to multiply a model's own vectors with, while it runs.

A native axis lies in the model's space. For any other the model's alignment is pulled back:
`(x W + b) . u = x . (W u) + b . u`, so that one product gives the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from axes.warehouse.axes import find_axis
from axes.warehouse.connection import Connection, connect_tables, query, rows, vectors
from axes.warehouse.errors import AxisError


@dataclass(frozen=True, eq=False)
class Probe:
    """An axis at one of a model's layers: the projection of `x` is `x @ vector + offset`.

    `alignment_id` names the map that was pulled back, None for a native axis.
    """

    axis_id: str
    name: str
    layer: int
    alignment_id: str | None
    vector: Float[np.ndarray, " d_model"]
    offset: float

    @property
    def key(self) -> tuple[str, int, str | None]:
        """What makes its projections others."""
        return self.axis_id, self.layer, self.alignment_id


def read_probes(
    root: Path,
    names: Sequence[str],
    *,
    model: str,
    model_id: str,
    layers: Sequence[int] | None = None,
) -> list[Probe]:
    """The axes called `names` (an id, the start of one, or a name) for one model.

    Without `layers` each at the layer where the model's prompts are projected on it. Raises
    `AxisError` for an axis that is unknown, ambiguous, or has no alignment from this model.
    """
    connection = connect_tables(root, "axes", "alignments", "projections")
    probes: dict[tuple, Probe] = {}
    for name in names:
        axis = find_axis(connection, name)
        for probe in _probes(connection, axis, model, model_id, layers):
            probes[probe.key] = probe
    return sorted(probes.values(), key=lambda probe: (probe.layer, probe.axis_id))


def _probes(
    connection: Connection, axis: dict, model: str, model_id: str, layers: Sequence[int] | None
) -> list[Probe]:
    vector = axis["vector"].astype(np.float64)
    name = axis["name"]
    if axis["space_model_id"] == model_id:
        at = [axis["layer"]] if layers is None else layers
        return [Probe(axis["axis_id"], name, layer, None, vector, 0.0) for layer in at]
    found = _alignments(connection, axis, model, model_id)
    wanted = {row["layer"] for row in found} if layers is None else set(layers)
    probes = []
    for layer in sorted(wanted) or [None]:
        fitting = [row for row in found if row["layer"] == layer]
        if len(fitting) != 1:
            place = model if layer is None else f"layer {layer} of {model}"
            listed = ", ".join(row["alignment_id"] for row in fitting) or "none"
            raise AxisError(
                f"axis {name} lies in the space of {axis['space_model']}, and of alignments from "
                f"{place} into it there are {len(fitting)} ({listed}): a study makes one"
            )
        alignment_id = fitting[0]["alignment_id"]
        pulled, offset = _pull_back(connection, alignment_id, vector)
        at = fitting[0]["layer"]
        probes.append(Probe(axis["axis_id"], name, at, alignment_id, pulled, offset))
    return probes


def _alignments(connection: Connection, axis: dict, model: str, model_id: str) -> list[dict]:
    """The maps with which the model's prompts are projected on the axis; else all that would do."""
    used = rows(
        connection,
        "select distinct layer, alignment_id from projections "
        "where model = ? and model_id = ? and axis_id = ? and alignment_id is not null "
        "order by all",
        [model, model_id, axis["axis_id"]],
    )
    return used or rows(
        connection,
        """
        select layer, alignment_id
        from alignments
        where
            model_id = $model_id and reference_model_id = $space_model_id
            and reference_layer = $layer and site = $site and pooling = $pooling
            and template = $template
        order by all
        """,
        {
            "model_id": model_id,
            **{
                name: axis[name]
                for name in ("space_model_id", "layer", "site", "pooling", "template")
            },
        },
    )


def _pull_back(
    connection: Connection, alignment_id: str, axis: Float[np.ndarray, " d_reference"]
) -> tuple[Float[np.ndarray, " d_model"], float]:
    table = query(
        connection,
        "select weights, intercept from alignments where alignment_id = ?",
        [alignment_id],
    )
    intercept = vectors(table["intercept"])[0].astype(np.float64)
    weights = vectors(table["weights"])[0].astype(np.float64).reshape(-1, len(intercept))
    return weights @ axis, float(intercept @ axis)
