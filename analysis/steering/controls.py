"""What a model is steered along: an axis in the model's own space, and directions beside it.

An axis of the reference's space is pulled back through the model's map by its transpose (the
gradient of the projection) or its pseudo-inverse (the shortest move whose image is the axis), of
the singular values that hold 99 % of the map's squared norm: a move along the others would be
enormous, and they are mostly noise of the fit. Controls are unit vectors as every axis is, so that
a strength moves a model equally far (docs/methods.md, Interventions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import (
    Matrix,
    Space,
    blocks,
    find_space,
    load_matrix,
    mean,
    require_classes,
)
from axes.analysis.methods.directions import Direction, difference_in_means, unit
from axes.analysis.methods.nulls import shuffled_labellings
from axes.analysis.registry import make_axis, read_alignment, write_axes
from axes.warehouse.axes import Axis, find_axis, resolve_alignment
from axes.warehouse.handle import Warehouse
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key

PULL_BACKS = ("transpose", "pseudo_inverse")
CONTROLS = ("random", "shuffled_labels", "orthogonal", "covariance")

_KEPT = 0.99


def register_directions(
    warehouse: Warehouse,
    model: str,
    axes: Sequence[str],
    *,
    pull_backs: Sequence[str] = PULL_BACKS,
    counts: Mapping[str, int],
    prompt_set: str | None = None,
    seed: int = 0,
) -> tuple[str, dict[str, str]]:
    """The model's id, and axis id -> `axis` or which control, for the axes and their controls.

    `axes` are ids, starts of them or names; `counts` says how many of each kind of control.
    `prompt_set` stands in for the prompts of an imported axis that was fitted on none of these.
    Raises `AxisError` for an axis that is not there, or lies in a space that the model has no map
    into.
    """
    parameters = {"model": model, "axes": axes, "pull_backs": pull_backs, **counts}
    roles: dict[str, str] = {}
    with warehouse.run("intervene axes", parameters, seed=seed) as run:
        for name in axes:
            axis = _with_prompts(warehouse, find_axis(warehouse, name), prompt_set)
            where = axis.space.columns
            del where["model_id"]
            space = find_space(warehouse, model, **where)
            for steered in axes_of_model(warehouse, run, space, axis, pull_backs):
                roles[steered.axis_id] = "axis"
                controls = control_axes(warehouse, run, space, steered, counts, seed=seed)
                for kind, ids in controls.items():
                    roles |= dict.fromkeys(ids, kind)
    return space.model_id, roles


def axes_of_model(
    warehouse: Warehouse,
    run: Run,
    space: Space,
    axis: Axis,
    pull_backs: Sequence[str] = PULL_BACKS,
) -> list[Axis]:
    """An axis as directions of a model's own space: itself, or pulled back and registered.

    Raises as `resolve_alignment` does where the model has no alignment to the axis, or several.
    """
    if axis.space.model_id == space.model_id:
        return [axis]
    layer, alignment_id = resolve_alignment(warehouse, axis, space.model, space.model_id)
    assert alignment_id is not None
    stored = read_alignment(warehouse, alignment_id)
    here = space.at(layer)
    fitted_on = load_matrix(warehouse, here, axis.prompt_set, allow_missing=True)
    pulled_back = [
        _pulled_back(axis, stored.fit.alignment.jacobian, method, here, fitted_on, alignment_id)
        for method in pull_backs
    ]
    write_axes(warehouse, run, pulled_back)
    return pulled_back


def control_axes(
    warehouse: Warehouse,
    run: Run,
    space: Space,
    axis: Axis,
    counts: Mapping[str, int],
    *,
    seed: int = 0,
) -> dict[str, list[str]]:
    """Register so many controls of each kind for an axis of the model's own; kind -> their ids."""
    here = space.at(axis.space.layer)
    matrix = load_matrix(warehouse, here, axis.prompt_set, allow_missing=True)
    require_classes(matrix, axis.prompt_set)
    registered: dict[str, list[str]] = {}
    for kind, count in counts.items():
        # A stream for each kind, so that one may be made larger and keeps its first directions.
        random = np.random.default_rng([seed, CONTROLS.index(kind)])
        controls = []
        for number in range(count):
            control = make_axis(
                kind,
                "mean_diff" if kind == "shuffled_labels" else "draw",
                here,
                partial(_draw, kind, axis.vector, matrix, random),
                matrix,
                axis.prompt_set,
                label=space.model,
                variant=(str(number),),
                parameters={"number": number, "seed": seed, "beside": axis.axis_id},
            )
            # Random directions are the same beside every axis at a layer.
            source = None if kind != "orthogonal" else axis.axis_id
            controls.append(_of(control, source, number, seed))
        write_axes(warehouse, run, controls)
        registered[kind] = [control.axis_id for control in controls]
    return registered


def pull_back(
    axis: Float[np.ndarray, " d_reference"],
    weights: Float[np.ndarray, "d_model d_reference"],
    method: str,
) -> Float[np.ndarray, " d_model"]:
    """An axis as a direction before the map `x -> x W`, by the transpose or the pseudo-inverse."""
    if method == "transpose":
        return weights @ axis
    left, values, right = np.linalg.svd(weights, full_matrices=False)
    held = np.cumsum(values**2) / (values**2).sum()
    kept = slice(0, int(np.searchsorted(held, _KEPT)) + 1)
    return left[:, kept] @ ((right[kept] @ axis) / values[kept])


def _with_prompts(warehouse: Warehouse, axis: Axis, prompt_set: str | None) -> Axis:
    """The axis with prompts to draw controls from: its own, or of an imported one those given."""
    if axis.kind != "imported" or prompt_set is None:
        return axis
    is_stored = warehouse.column(
        "select 1 from prompts where prompt_set = ? limit 1", [axis.prompt_set]
    )
    return axis if is_stored else replace(axis, prompt_set=prompt_set)


def _pulled_back(
    axis: Axis,
    jacobian: Float[np.ndarray, "d_model d_reference"],
    method: str,
    space: Space,
    fitted_on: Matrix,
    alignment_id: str,
) -> Axis:
    """The axis in the model's space; `gain`: how far a unit step moves the projection on it."""
    direction = unit(pull_back(axis.vector, jacobian, method))
    image = direction.vector @ jacobian
    gain = float(image @ axis.vector)
    made = make_axis(
        "pulled_back",
        method,
        space,
        lambda: direction,
        fitted_on,
        axis.prompt_set,
        label=space.model,
        variant=(axis.kind, method),
        alignment_id=alignment_id,
        parameters={"gain": gain, "cosine_of_image": gain / float(np.linalg.norm(image))},
    )
    return _of(made, axis.axis_id)


def _draw(
    kind: str,
    axis: Float[np.ndarray, " d_model"],
    matrix: Matrix,
    random: np.random.Generator,
) -> Direction:
    if kind == "random":
        return unit(random.standard_normal(len(axis)))
    if kind == "shuffled_labels":
        (labels,) = shuffled_labellings(matrix.labels, matrix.groups, 1, random)
        return difference_in_means(matrix.x, labels)
    weights = random.standard_normal(len(matrix.prompt_ids))
    weights -= weights.mean()
    centre = mean(matrix.x)
    mixture = sum(part @ (block - centre) for block, part in blocks(matrix.x, weights))
    return unit(mixture - (mixture @ axis) * axis if kind == "orthogonal" else mixture)


def _of(axis: Axis, source: str | None, *numbered: int) -> Axis:
    """The axis under a key that says what it was made from, and which draw it is."""
    key = content_key(axis.axis_id, source, numbered)
    return replace(axis, axis_id=key, source_axis_ids=() if source is None else (source,))
