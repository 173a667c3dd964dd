"""What an experiment changes: axes read from the warehouse, blocks, strengths and their unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from axes.ingest.forward.steering import Intervention
from axes.warehouse.connection import Connection, connect_tables, query, rows, vectors
from axes.warehouse.errors import AxisError, CoverageError
from axes.warehouse.writer import content_key


@dataclass(frozen=True)
class Change:
    """What is done, apart from the axis, the blocks and how strongly (`steering.Intervention`)."""

    mode: str = "add"
    positions: str = "all"
    above: float | None = None
    condition: str | None = None


@dataclass(frozen=True, eq=False)
class Sweep:
    """One axis at some blocks under several strengths; without an axis, the model as it is.

    `unit` is what a strength of 1 is; None where a strength is a share (`ablate`).
    """

    axis_id: str | None = None
    vector: Tensor | None = None
    layers: tuple[int, ...] = ()
    strengths: tuple[float, ...] = (0.0,)
    unit: float | None = None
    change: Change = Change("none")

    def described(self, model_id: str, template: str, strength: float) -> dict[str, Any]:
        """The columns that say what was done, and the id that is a hash of them."""
        columns = {
            "model_id": model_id,
            "axis_id": self.axis_id,
            "layers": ",".join(map(str, self.layers)),
            "strength": strength,
            "unit": self.unit,
            "template": template,
            **vars(self.change),
        }
        return {"intervention_id": content_key(columns), **columns}

    def interventions(self, strengths: Tensor) -> list[Intervention]:
        """For a batch with these strengths, one for each row."""
        if self.vector is None:
            return []
        return [
            Intervention(
                self.vector,
                self.layers,
                self.change.mode,
                strengths,
                unit=1.0 if self.unit is None else self.unit,
                positions=self.change.positions,
                above=self.change.above,
                condition=self.change.condition or "position",
            )
        ]


UNSTEERED = Sweep()


def read_sweeps(
    root: Path,
    model: str,
    model_id: str,
    layer_count: int,
    *,
    axis_ids: Sequence[str],
    strengths: Sequence[float],
    layers: Sequence[int] | None,
    change: Change,
    benign_set: str,
) -> list[Sweep]:
    """Each axis at each of `layers` (default its own); `ablate` takes it from all of them at once.

    The unit at a block is the median norm of the stored activations of `benign_set` there, under
    the axis's pooling and template. Raises `AxisError` for an axis that is not there or of another
    model, and `CoverageError` where there are no activations to take the unit from.
    """
    connection = connect_tables(root, "axes", "activations", "prompts")
    axes = _read_axes(connection, model, model_id, axis_ids)
    sweeps = []
    for axis in axes:
        sweep = Sweep(axis["axis_id"], axis["vector"], strengths=tuple(strengths), change=change)
        if change.mode == "ablate":
            sweeps.append(replace(sweep, layers=tuple(layers or range(layer_count))))
            continue
        for layer in [axis["layer"]] if layers is None else layers:
            unit = _typical_norm(connection, axis, layer, benign_set)
            sweeps.append(replace(sweep, layers=(layer,), unit=unit))
    return sweeps


def _read_axes(
    connection: Connection, model: str, model_id: str, axis_ids: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of `axes` in the order asked for, vectors as tensors."""
    found = {
        row["axis_id"]: row
        for row in rows(
            connection,
            "select * exclude vector from axes where list_contains(?, axis_id)",
            [[*axis_ids]],
        )
    }
    for axis_id in axis_ids:
        if axis_id not in found:
            raise AxisError(f"no axis {axis_id}: see `axes list axes`")
        axis = found[axis_id]
        if axis["space_model_id"] != model_id:
            raise AxisError(
                f"{axis['name']} lies in the space of {axis['space_model']}, and {model} (this "
                "version of it) is another: `axes intervene` pulls it back where there is a map"
            )
    table = query(
        connection,
        "select axis_id, vector from axes where list_contains(?, axis_id)",
        [[*axis_ids]],
    )
    for axis_id, vector in zip(table["axis_id"].to_pylist(), vectors(table["vector"]), strict=True):
        found[axis_id]["vector"] = torch.from_numpy(vector.copy())
    return [found[axis_id] for axis_id in dict.fromkeys(axis_ids)]


def _typical_norm(
    connection: Connection, axis: dict[str, Any], layer: int, benign_set: str
) -> float:
    """Median norm of the benign activations at a block, six digits of it."""
    keys = [axis[name] for name in ("space_model_id", "site", "pooling", "template")]
    (found,) = rows(
        connection,
        """
        select median(norm) as norm
        from activations
        where
            model = ? and layer = ? and model_id = ? and site = ? and pooling = ?
            and template = ?
            and prompt_id in (select prompt_id from prompts where prompt_set = ?)
        """,
        [axis["space_model"], layer, *keys, benign_set],
    )
    if found["norm"] is None:
        raise CoverageError(
            f"no activations of {axis['space_model']} at layer {layer} for {benign_set} "
            f"({', '.join(keys[1:])}), whose median norm is the unit of strength: run `axes ingest "
            f"activations {axis['space_model']} --prompts {benign_set}`"
        )
    return float(f"{found['norm']:.6g}")
