"""Registered axes: which one a name means, and how a model's activations are projected on it.

This is the one place that decides both, so that every command means the same axis by a name and
reaches it through the same alignment (docs/decisions/0014-one-map-to-an-axis.md).

An axis lies in the space of one model. Any other model is mapped there first, `x -> x W + b`, and
since `(x W + b) . u = x . (W u) + b . u` one vector and one offset in the model's own space give
the same projection: `AxisReadout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from axes.warehouse.connection import vectors
from axes.warehouse.errors import AxisError, LayerError, NoAlignmentError
from axes.warehouse.handle import Warehouse
from axes.warehouse.names import RESID_POST, did_you_mean
from axes.warehouse.tables.schemas import TABLES

if TYPE_CHECKING:
    from axes.warehouse.projections import Scored

# What these functions read: a warehouse opened with these tables only is enough for them.
AXIS_TABLES = ("axes", "alignments", "evaluations", "models", "projections", "runs")

MIN_PREFIX_LENGTH = 6
# Longer lists of candidates are cut in messages.
_LISTED = 12


@dataclass(frozen=True)
class Space:
    """Where vectors live: one model version at one layer, site, pooling and template."""

    model: str
    model_id: str
    layer: int
    pooling: str
    template: str
    d_model: int
    layer_count: int
    site: str = RESID_POST

    def at(self, layer: int) -> Space:
        """The same model and pooling at another layer; raises `LayerError` where there is none."""
        if not 0 <= layer < self.layer_count:
            raise LayerError(
                f"layer {layer} of {self.model} does not exist: "
                f"it has {self.layer_count} (0 to {self.layer_count - 1})"
            )
        return replace(self, layer=layer)

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Model, model id, site, pooling and template: what picks its rows, apart from a layer."""
        return self.model, self.model_id, self.site, self.pooling, self.template

    @property
    def columns(self) -> dict[str, str]:
        """The same without the model's name, by column."""
        names = ("model_id", "site", "pooling", "template")
        return {name: getattr(self, name) for name in names}

    @property
    def variant(self) -> tuple[str, ...]:
        """The site, pooling and template where they are not the default: part of axes' names."""
        usual = {RESID_POST, "last5_mean", "raw"}
        return tuple(each for each in (self.site, self.pooling, self.template) if each not in usual)

    def at_fraction(self, fraction: float) -> Space:
        """The layer `round(fraction * (layer_count - 1))`."""
        return self.at(round(fraction * (self.layer_count - 1)))


@dataclass(frozen=True, eq=False)
class Axis:
    """A registered direction: a unit vector in a space, with the columns of its row of `axes`."""

    axis_id: str
    name: str
    kind: str
    method: str
    space: Space
    vector: Float[np.ndarray, " d_model"]
    raw_norm: float
    prompt_set: str
    positive_count: int
    negative_count: int
    row_set_hash: str
    query: str
    parameters: str
    fitted_model: str | None = None
    held_out_model: str | None = None
    alignment_id: str | None = None
    source_axis_ids: tuple[str, ...] = ()
    run_id: str | None = None

    @property
    def columns(self) -> dict[str, object]:
        """The row of `axes` without the vector, in the table's order."""
        values = {
            **vars(self),
            **vars(self.space),
            "source_axis_ids": list(self.source_axis_ids),
            "space_model": self.space.model,
            "space_model_id": self.space.model_id,
        }
        return {name: values[name] for name in TABLES["axes"].schema.names if name != "vector"}


class AxisMap(NamedTuple):
    """How a model reaches an axis: from which layer, by which alignment (None: its own space)."""

    layer: int
    alignment_id: str | None


@dataclass(frozen=True, eq=False)
class AxisReadout:
    """An axis in one model's own space: `x @ vector + offset` is the projection of a block output.

    `alignment_id` names the map that was pulled back, None for an axis of the model's own space;
    `pooling` is the axis's.
    """

    axis_id: str
    axis_name: str
    model: str
    model_id: str
    layer: int
    alignment_id: str | None
    vector: Float[np.ndarray, " d_model"]
    offset: float
    pooling: str = "last5_mean"

    @property
    def key(self) -> tuple[str, int, str | None]:
        """Axis, layer and alignment: readouts of a model that differ in these differ in values."""
        return self.axis_id, self.layer, self.alignment_id

    @property
    def columns(self) -> dict[str, str | int | None]:
        """What picks rows projected with it, by column."""
        names = ("model", "model_id", "axis_id", "layer", "alignment_id")
        return {name: getattr(self, name) for name in names}

    def project(self, x: Float[np.ndarray, "row d_model"]) -> Scored:
        """The projections of block outputs."""
        from axes.warehouse.projections import Scored  # Not for those that only read axes.

        values = x @ self.vector + self.offset
        return Scored(self.axis_id, self.layer, values, self.alignment_id)


def find_axis(warehouse: Warehouse, name: str) -> Axis:
    """The axis that `name` means, as `find_axes` does; raises `AxisError` for a subspace too."""
    first, *more = find_axes(warehouse, name)
    if more:
        raise AxisError(
            f"{name} is a subspace: give an axis of it, {first.name} to {more[-1].name}"
        )
    return first


def find_axes(warehouse: Warehouse, name: str) -> list[Axis]:
    """The axis or the basis, in order, of the subspace that `name` means.

    That is an id, the first 6 or more characters of one, or a name; axes of one subspace have its
    own in `parameters`. A bare kind (`universal`) means the axis of that kind in the latest study
    that has one (without such a study, any of that kind). Raises `AxisError`, with the candidates,
    where no axis or several fit.
    """
    fitting = warehouse.query(
        """
        with named as (
            select axis_id, name, run_id, [axis_id] as axis_ids from axes
            union all
            select
                parameters ->> '$.subspace_id', min(parameters ->> '$.subspace'), min(run_id),
                list(axis_id order by (parameters ->> '$.component')::integer)
            from axes where kind = 'subspace' group by parameters ->> '$.subspace_id'
        )
        from named
        where axis_id = $name or name = $name
            or (length($name) >= $min_length and starts_with(axis_id, $name))
        order by axis_id != $name, run_id, axis_id
        """,
        {"name": name, "min_length": MIN_PREFIX_LENGTH},
    ).to_pylist()
    if not fitting:
        fitting = warehouse.query(_OF_KIND, [name]).to_pylist()
    if not fitting:
        names = warehouse.column("select name from axes union select kind from axes")
        raise AxisError(
            f"no axis {name}{did_you_mean(name, names)}: "
            "give an id or a name that `axes list axes` prints"
        )
    if len(fitting) > 1 and fitting[0]["axis_id"] != name:
        ids = [f"{row['axis_id']} ({row['name']}, run {row['run_id']})" for row in fitting]
        raise AxisError(f"{len(fitting)} axes fit {name}, give one id: {_listed(ids)}")
    return read_axes(warehouse, fitting[0]["axis_ids"])


# Axes that no study evaluated (study_id is null) count only where no study has one of the kind.
# `fitted_on is null`: a threshold transfer stores evaluations too, and is not a study.
_OF_KIND = """
with evaluated as (
    select evaluations.study_id, axes.axis_id, axes.name, axes.run_id, runs.started_at
    from axes
    left join evaluations
        on axes.axis_id = evaluations.axis_id and evaluations.fitted_on is null
    left join runs on evaluations.run_id = runs.run_id
    where axes.kind = ?
)

select distinct axis_id, name, run_id, [axis_id] as axis_ids
from evaluated
where study_id is not distinct from (
    select study_id from evaluated
    order by study_id is null, started_at desc nulls last, study_id limit 1
)
order by name, axis_id
"""


def read_axes(warehouse: Warehouse, axis_ids: Sequence[str]) -> list[Axis]:
    """The axes with these ids, in this order; raises `AxisError` for one that is not stored."""
    table = warehouse.query(
        """
        select axes.*, models.d_model, models.layer_count
        from axes
        left join models on axes.space_model_id = models.model_id
        where list_contains(?, axis_id)
        """,
        [list(axis_ids)],
    )
    places = {axis_id: place for place, axis_id in enumerate(table["axis_id"].to_pylist())}
    for axis_id in axis_ids:
        if axis_id not in places:
            raise AxisError(f"no axis {axis_id}: give an id or a name that `axes list axes` prints")
    return [_axis(table.slice(places[axis_id], 1)) for axis_id in axis_ids]


def _axis(table: pa.Table) -> Axis:
    """One row of `axes`, joined with its model."""
    (row,) = table.drop_columns(["vector"]).to_pylist()
    vector = vectors(table["vector"])[0].astype(np.float64)
    space = Space(
        model=row.pop("space_model"),
        model_id=row.pop("space_model_id"),
        layer=row.pop("layer"),
        site=row.pop("site"),
        pooling=row.pop("pooling"),
        template=row.pop("template"),
        d_model=row.pop("d_model") or len(vector),
        layer_count=row.pop("layer_count") or 0,
    )
    row["source_axis_ids"] = tuple(row["source_axis_ids"])
    return Axis(space=space, vector=vector, **row)


def resolve_alignment(
    warehouse: Warehouse,
    axis: Axis,
    model: str,
    model_id: str,
    *,
    layer: int | None = None,
    alignment: str | None = None,
) -> AxisMap:
    """By which alignment, and from which layer, a model reaches an axis.

    In the axis's own space no alignment is needed, and the axis is read at `layer` or at its own.
    Otherwise the candidates are the alignments (from `layer`) into exactly the axis's space. Of
    several the one holds through which the model's prompts are projected on the axis already, else
    the one that the axis was made with, else `alignment` (an id or the start of one) has to choose.

    Raises `NoAlignmentError` without a candidate, `AxisError` (with the candidates) where several
    remain, or where `alignment` is another one than stored projections went through.
    """
    if axis.space.model_id == model_id:
        return AxisMap(axis.space.layer if layer is None else layer, None)
    candidates = warehouse.rows(_Candidate, _CANDIDATES, _candidate_keys(axis, model, model_id))
    candidates = [item for item in candidates if layer in (None, item.layer)]
    used = [item for item in candidates if item.is_used]
    chosen = [item for item in candidates if item.is_chosen_by(alignment)]
    if not chosen:
        called = "" if alignment is None else f" {alignment}"
        place = model if layer is None else f"layer {layer} of {model}"
        raise NoAlignmentError(
            f"no alignment{called} of {place} leads to layer {axis.space.layer} of "
            f"{axis.space.model} ({axis.space.site}, {axis.space.pooling}, {axis.space.template}), "
            f"where {axis.name} lies: run `axes study` with both models"
            + (f"; stored are {_listed(map(str, candidates))}" if candidates else "")
        )
    if alignment is not None and used and not any(item.is_used for item in chosen):
        raise AxisError(
            f"prompts of {model} are projected on {axis.name} through {_listed(map(str, used))}: "
            f"projections through {alignment} cannot be mixed with them"
        )
    for preferred in ("is_used", "is_source"):
        chosen = [item for item in chosen if getattr(item, preferred)] or chosen
    if len(chosen) > 1:
        raise AxisError(
            f"{len(chosen)} alignments of {model} lead to {axis.name}: choose one with "
            f"`axes score {axis.name} --model {model} --alignment ID` "
            f"({_listed(map(str, chosen))})"
        )
    return AxisMap(chosen[0].layer, chosen[0].alignment_id)


@dataclass(frozen=True)
class _Candidate:
    """An alignment into an axis's space.

    `is_used`: stored projections went through it; `is_source`: the axis was made with it.
    """

    alignment_id: str
    layer: int
    method: str
    ridge_lambda: float | None
    is_used: bool | None
    is_source: bool | None

    def is_chosen_by(self, alignment: str | None) -> bool:
        """Whether it is the one called by this id or start of an id; None calls any."""
        if alignment is None or alignment == self.alignment_id:
            return True
        return len(alignment) >= MIN_PREFIX_LENGTH and self.alignment_id.startswith(alignment)

    def __str__(self) -> str:
        penalty = "" if self.ridge_lambda is None else f", lambda {self.ridge_lambda:g}"
        return f"{self.alignment_id} (layer {self.layer}, {self.method}{penalty})"


_CANDIDATES = """
select
    alignment_id,
    layer,
    method,
    ridge_lambda,
    alignment_id in (
        select alignment_id from projections
        where model = $model and model_id = $model_id and axis_id = $axis_id
    ) as is_used,
    alignment_id is not distinct from $made_with
    or alignment_id in (
        select alignment_id from axes where list_contains($sources, axis_id)
    ) as is_source
from alignments
where
    model_id = $model_id and reference_model_id = $reference_id
    and reference_layer = $reference_layer and site = $site and pooling = $pooling
    and template = $template
order by layer, alignment_id
"""


def _candidate_keys(axis: Axis, model: str, model_id: str) -> dict[str, object]:
    return {
        **axis.space.columns,
        "axis_id": axis.axis_id,
        "made_with": axis.alignment_id,
        "sources": list(axis.source_axis_ids),
        "model": model,
        "model_id": model_id,
        "reference_id": axis.space.model_id,
        "reference_layer": axis.space.layer,
    }


def read_axis_readout(
    warehouse: Warehouse,
    axis: Axis,
    model: str,
    model_id: str,
    *,
    layer: int | None = None,
    alignment: str | None = None,
) -> AxisReadout:
    """The axis in the model's own space, by the alignment of `resolve_alignment`.

    Raises as that does, and `AxisError` for an alignment with a hidden layer, which is not affine.
    """
    at, alignment_id = resolve_alignment(
        warehouse, axis, model, model_id, layer=layer, alignment=alignment
    )
    vector, offset = axis.vector, 0.0
    if alignment_id is not None:
        vector, offset = _pull_back(warehouse, alignment_id, axis.vector)
    projected = (vector, offset, axis.space.pooling)
    return AxisReadout(axis.axis_id, axis.name, model, model_id, at, alignment_id, *projected)


def read_axis_readouts(
    warehouse: Warehouse,
    names: Sequence[str],
    model: str,
    model_id: str,
    *,
    layers: Sequence[int] | None = None,
) -> list[AxisReadout]:
    """Readouts of several axes (as `find_axis` takes them) at each of `layers`, each once.

    Without `layers` each axis is read at the layer that its alignment starts from.
    """
    at: list[int | None] = [None] if layers is None else [*layers]
    readouts = [
        read_axis_readout(warehouse, axis, model, model_id, layer=layer)
        for axis in (find_axis(warehouse, name) for name in names)
        for layer in at
    ]
    by_key = {readout.key: readout for readout in readouts}
    return sorted(by_key.values(), key=lambda readout: (readout.layer, readout.axis_id))


def _pull_back(
    warehouse: Warehouse, alignment_id: str, axis: Float[np.ndarray, " d_reference"]
) -> tuple[Float[np.ndarray, " d_model"], float]:
    """`(W u, b . u)` of the map `x -> x W + b`."""
    table = warehouse.query(
        "select weights, intercept, hidden_intercept is not null as has_hidden_layer "
        "from alignments where alignment_id = ?",
        [alignment_id],
    )
    if table["has_hidden_layer"][0].as_py():
        # relu(x A + a) B has a derivative that differs from row to row: with a mean Jacobian the
        # values would differ from those that a study stores through the same alignment.
        raise AxisError(
            f"the alignment {alignment_id} has a hidden layer and is not affine, no axis can be "
            "pulled back through it: fit one without --hidden-width"
        )
    intercept = vectors(table["intercept"])[0].astype(np.float64)
    # Stored row-major, [d_model, d_reference].
    weights = vectors(table["weights"])[0].astype(np.float64).reshape(-1, len(intercept))
    return weights @ axis, float(intercept @ axis)


def _listed(items: Any) -> str:
    """Candidates as a message lists them."""
    listed = list(items)
    more = len(listed) - _LISTED
    return "; ".join(listed[:_LISTED]) + (f"; and {more} more" if more > 0 else "")
