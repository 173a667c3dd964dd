"""Which registered axis a user means.

An axis as a model's own block output shows it: one vector and one constant.

A native axis is read as it is. An axis of another space comes after the model's alignment
`x W + b`, so the projection `(x W + b) . u` of an activation is `x . (W u) + b . u`: the same
number from one product in the model's own space.

Registered axes as something to multiply a model's own vectors with, while it runs.

A native axis lies in the model's space. For any other the model's alignment is pulled back:
`(x W + b) . u = x . (W u) + b . u`, so that one product gives the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from axes.analysis.registry import read_alignment
from axes.warehouse.connection import Connection, connect_tables, query, rows, vectors
from axes.warehouse.errors import AxisError
from axes.warehouse.names import did_you_mean


def find_axis(connection: Connection, axis: str) -> dict[str, Any]:
    """The row of `axes` with this id, id prefix or name, and the vector as float32 `[d_model]`.

    Raises `AxisError` where none or several fit.
    """
    table = query(
        connection,
        "from axes where axis_id = $axis or name = $axis "
        "or (length($axis) >= 6 and starts_with(axis_id, $axis)) order by run_id",
        {"axis": axis},
    )
    if table.num_rows == 0:
        raise unknown_axis(connection, axis)
    found = table.drop_columns(["vector"]).to_pylist()
    if len(found) > 1:
        ids = "; ".join(f"{row['axis_id']} ({row['name']}, run {row['run_id']})" for row in found)
        raise AxisError(f"{len(found)} axes fit {axis}, give one id: {ids}")
    return {**found[0], "vector": vectors(table.column("vector"))[0]}


def unknown_axis(connection: Connection, axis: str) -> AxisError:
    """The error that no axis has this id or name."""
    names = [row["name"] for row in rows(connection, "select distinct name from axes")]
    return AxisError(
        f"no axis {axis}{did_you_mean(axis, names)}: "
        "give an id or a name that `axes list axes` prints"
    )


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
