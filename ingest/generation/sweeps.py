"""What an intervention changes: axes of the warehouse, blocks, strengths and their unit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, cast

import torch
from torch import Tensor

from axes.ingest.forward.steering import Intervention
from axes.ingest.requests import Change, InterventionRequest
from axes.warehouse.axes import Space, read_axes
from axes.warehouse.errors import AxisError, CoverageError
from axes.warehouse.handle import Warehouse
from axes.warehouse.writer import content_key

_UNCHANGED = Change("none")


class InterventionRow(TypedDict):
    """The columns that describe an intervention; its id is a hash of the others."""

    intervention_id: str
    model_id: str
    axis_id: str | None
    layers: str
    strength: float
    unit: float | None
    template: str
    mode: str
    positions: str
    above: float | None
    condition: str | None


class Outcome(InterventionRow, total=False):
    """A row of `intervention_outcomes`."""

    prompt_id: str
    metric: str
    new_tokens: int
    value: float
    generation_id: str
    run_id: str


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
    change: Change = _UNCHANGED

    def columns(self, model_id: str, template: str, strength: float) -> InterventionRow:
        """The columns that describe the intervention, and the id that is a hash of them."""
        columns = {
            "model_id": model_id,
            "axis_id": self.axis_id,
            "layers": ",".join(map(str, self.layers)),
            "strength": strength,
            "unit": self.unit,
            "template": template,
            **vars(self.change),
        }
        return cast(InterventionRow, {"intervention_id": content_key(columns), **columns})

    def interventions(self, strengths: Tensor) -> list[Intervention]:
        """For a batch with these strengths, one for each row."""
        if self.vector is None:
            return []
        unit = 1.0 if self.unit is None else self.unit
        change = vars(replace(self.change, condition=self.change.condition or "position"))
        return [Intervention(self.vector, self.layers, strength=strengths, unit=unit, **change)]


UNSTEERED = Sweep()


def read_sweeps(
    root: Path, model: str, model_id: str, layer_count: int, request: InterventionRequest
) -> list[Sweep]:
    """Each axis at each of the requested layers (default: the axis's).

    `ablate` takes it from all of them at once. The unit at a block is the median norm of the stored
    activations of the benign set there, under the axis's pooling and template. Raises `AxisError`
    for an axis that does not exist or is of another model, and `CoverageError` where there are no
    activations to take the unit from.
    """
    warehouse = Warehouse.open_tables(root, "axes", "models", "activations", "prompts")
    change, layers, sweeps = request.change, request.layers, []
    for axis in read_axes(warehouse, list(dict.fromkeys(request.axis_ids))):
        if axis.space.model_id != model_id:
            raise AxisError(
                f"{axis.name} lies in the space of {axis.space.model}, and {model} (this "
                "version of it) is another: `axes intervene` pulls it back where there is a map"
            )
        vector = torch.tensor(axis.vector, dtype=torch.float32)
        sweep = Sweep(axis.axis_id, vector, strengths=tuple(request.strengths), change=change)
        if change.mode == "ablate":
            sweeps.append(replace(sweep, layers=tuple(layers or range(layer_count))))
            continue
        for layer in [axis.space.layer] if layers is None else layers:
            unit = _typical_norm(warehouse, replace(axis.space, layer=layer), request.benign_set)
            sweeps.append(replace(sweep, layers=(layer,), unit=unit))
    return sweeps


def _typical_norm(warehouse: Warehouse, space: Space, benign_set: str) -> float:
    """Median norm of the benign activations in a space, six digits of it."""
    keys = [space.site, space.pooling, space.template]
    (norm,) = warehouse.column(
        """
        select median(norm) as norm
        from activations
        where
            model = ? and layer = ? and model_id = ? and site = ? and pooling = ?
            and template = ?
            and prompt_id in (select prompt_id from prompts where prompt_set = ?)
        """,
        [space.model, space.layer, space.model_id, *keys, benign_set],
    )
    if norm is None:
        raise CoverageError(
            f"no activations of {space.model} at layer {space.layer} for {benign_set} "
            f"({', '.join(keys)}), whose median norm is the unit of strength: run `axes ingest "
            f"activations {space.model} --prompts {benign_set}`"
        )
    return float(f"{norm:.6g}")
