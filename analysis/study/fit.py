"""Fit a study's directions, alignments and shared axes, and project its prompts on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from axes.analysis import activations
from axes.analysis.activations import Matrix, Space, load_matrix, require_classes
from axes.analysis.methods.alignment import fit_alignment, identity_alignment
from axes.analysis.methods.directions import Direction, fit_direction, unit
from axes.analysis.methods.universal import universal_axis
from axes.analysis.registry import (
    Axis,
    Scored,
    StoredAlignment,
    make_axis,
    projection_counts,
    read_alignment,
    registered_directions,
    write_alignment,
    write_axes,
    write_projections,
)
from axes.analysis.study.definition import Fitted, Member, StudyDefinition
from axes.warehouse.connection import Connection
from axes.warehouse.errors import CoverageError
from axes.warehouse.layers import stored_layers
from axes.warehouse.progress import track
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key

# Raised whenever the numbers of an unchanged definition would change.
METHOD_VERSION = 1


def fit_native(
    root: Path,
    connection: Connection,
    run: Run,
    space: Space,
    prompt_set: str,
    evaluate: Sequence[str] = (),
    *,
    method: str = "mean_diff",
    allow_missing: bool = False,
) -> list[Axis]:
    """Fit, register and project the direction of a method at every layer that is stored.

    That is every block of a model that was ingested whole; of some, as an import may bring, those.
    Each direction is projected on the prompts it was fitted on and on the sets of `evaluate`.
    """
    registered = registered_directions(connection, space)
    axes: list[Axis] = []
    scored: dict[str, list[Scored]] = {name: [] for name in (prompt_set, *evaluate)}
    prompt_ids: dict[str, tuple[str, ...]] = {}
    known: dict[str, dict[str, int]] = {}
    _, model_id, site, pooling, template = space.key
    keys = {"model_id": model_id, "site": site, "pooling": pooling, "template": template}
    layers = stored_layers(connection, space.model, keys, prompt_set) or range(space.layer_count)
    if len(layers) < space.layer_count:
        run.messages.append(f"{len(layers)} of {space.layer_count} layers are stored")
    with track(f"fit {space.model}", len(layers), "layers") as advance:
        for layer in layers:
            here = space.at(layer)
            matrices = {
                name: load_matrix(connection, here, name, allow_missing=allow_missing)
                for name in scored
            }
            axis = native_axis(here, matrices[prompt_set], prompt_set, registered, method)
            axes.append(axis)
            for name, matrix in matrices.items():
                if matrix.row_set_hash not in known:
                    known[matrix.row_set_hash] = projection_counts(
                        connection, space, matrix.prompt_ids
                    )
                counts = known[matrix.row_set_hash]
                if counts.get(axis.axis_id) != len(matrix.prompt_ids):
                    scored[name].append(
                        Scored(axis, layer, activations.project(matrix.x, axis.vector))
                    )
                    prompt_ids[name] = matrix.prompt_ids
            advance(1)
    write_axes(root, connection, run, axes)
    for name, items in scored.items():
        if items:
            write_projections(root, connection, run, space, prompt_ids[name], items)
    return axes


def native_axis(
    space: Space,
    matrix: Matrix,
    prompt_set: str,
    registered: Mapping[str, Direction],
    method: str = "mean_diff",
) -> Axis:
    """The direction of a model in its own space, fitted unless registered."""
    require_classes(matrix, prompt_set)
    return make_axis(
        "native",
        method,
        space,
        lambda: fit_direction(method, matrix.x, matrix.labels, matrix.groups),
        matrix,
        prompt_set,
        label=space.model,
        variant=() if method == "mean_diff" else (method.replace("_", "-"),),
        is_of_pairs=method == "pair_pca",
        fitted_model=space.model,
        registered=registered,
    )


def align(
    root: Path,
    connection: Connection,
    run: Run,
    definition: StudyDefinition,
    member: Member,
    reference: Member,
) -> StoredAlignment:
    """The member's map into the reference, fitted unless it is registered."""
    mine, theirs = paired(member.benign, reference.benign)
    space, target = member.space, reference.space
    # The reference's own map, the identity, depends on no rows and no lambda.
    options, shuffles = definition.alignment_options, definition.alignment_shuffles
    fitted_from = (mine.row_set_hash, asdict(options), shuffles, definition.seed)
    alignment_id = content_key(
        METHOD_VERSION,
        (space.model_id, space.layer, target.model_id, target.layer),
        (space.site, space.pooling, space.template),
        None if member is reference else fitted_from,
    )
    if (known := read_alignment(root, connection, alignment_id)) is not None:
        return known
    if member is reference:
        fit = identity_alignment(space.d_model)
    else:
        fit = fit_alignment(mine.x, theirs.x, options, shuffle_count=shuffles, seed=definition.seed)
    write_alignment(
        root,
        run,
        fit,
        alignment_id=alignment_id,
        space=space,
        reference=target,
        prompt_set=definition.align,
        rows_fitted=mine,
        seed=definition.seed,
    )
    stored = read_alignment(root, connection, alignment_id)
    assert stored is not None
    return stored


def paired(mine: Matrix, theirs: Matrix) -> tuple[Matrix, Matrix]:
    """Both models' rows of the same prompts in the same order; raises where none are shared."""
    if mine.prompt_ids == theirs.prompt_ids:
        return mine, theirs
    place = {prompt_id: index for index, prompt_id in enumerate(theirs.prompt_ids)}
    shared = [index for index, prompt_id in enumerate(mine.prompt_ids) if prompt_id in place]
    if len(shared) < 2:
        raise CoverageError("the model and the reference share no alignment prompts")
    there = [place[mine.prompt_ids[index]] for index in shared]
    return mine.take(np.array(shared)), theirs.take(np.array(there))


def fit_axes(
    root: Path,
    connection: Connection,
    run: Run,
    definition: StudyDefinition,
    members: Sequence[Member],
    alignments: Sequence[StoredAlignment],
) -> tuple[tuple[Axis, np.ndarray], list[Fitted]]:
    """Native, aligned, universal and leave-one-out axes; the universal with its singular values."""
    natives, aligned = [], []
    for member, stored in zip(members, alignments, strict=True):
        layers = fit_native(
            root,
            connection,
            run,
            member.space,
            definition.prompts,
            definition.evaluate,
            method=definition.direction,
            allow_missing=definition.allow_missing,
        )
        native = next(axis for axis in layers if axis.space.layer == member.space.layer)
        carried = partial(_carried, stored, native)
        target = members[definition.models.index(definition.reference)].space
        aligned.append(
            make_axis(
                "aligned",
                definition.direction,
                target,
                carried,
                member.labelled[definition.prompts],
                definition.prompts,
                label=member.name,
                variant=definition.variant,
                fitted_model=member.name,
                alignment_id=stored.alignment_id,
                sources=[native],
            )
        )
        natives.append(native)
    universal, singular_values = _shared_axis("universal", definition, members, aligned, None)
    leave_one_out = [
        _shared_axis(
            "leave_one_out", definition, members, [*aligned[:index], *aligned[index + 1 :]], member
        )[0]
        if len(members) > 1
        else None
        for index, member in enumerate(members)
    ]
    extra = [axis for axis in leave_one_out if axis is not None]
    write_axes(root, connection, run, [*aligned, universal, *extra])
    fitted = [
        Fitted(*parts) for parts in zip(natives, aligned, alignments, leave_one_out, strict=True)
    ]
    return (universal, singular_values), fitted


def _carried(stored: StoredAlignment, native: Axis) -> Direction:
    return unit(stored.fit.alignment.carry(native.vector))


def _shared_axis(
    kind: str,
    definition: StudyDefinition,
    members: Sequence[Member],
    aligned: Sequence[Axis],
    held_out: Member | None,
) -> tuple[Axis, np.ndarray]:
    """The axis shared by some aligned directions, and the singular values."""
    shared = universal_axis(np.stack([axis.vector for axis in aligned]), definition.universal)
    axis = make_axis(
        kind,
        definition.universal,
        aligned[0].space,
        lambda: unit(shared.vector),
        members[0].labelled[definition.prompts],
        definition.prompts,
        label=definition.label if held_out is None else f"{definition.label}-{held_out.name}",
        variant=definition.variant,
        held_out_model=None if held_out is None else held_out.name,
        sources=aligned,
        parameters={
            "singular_values": shared.singular_values.tolist(),
            "weights": shared.weights.tolist(),
        },
    )
    return axis, shared.singular_values


def project(
    root: Path,
    connection: Connection,
    run: Run,
    definition: StudyDefinition,
    members: Sequence[Member],
    fitted: Sequence[Fitted],
    universal: tuple[Axis, np.ndarray],
) -> None:
    """Write every prompt's projection on the shared axes, and the alignment prompts' on native."""
    for member, own in zip(members, fitted, strict=True):
        layer, alignment_id = member.space.layer, own.alignment.alignment_id
        shared = [axis for axis in (universal[0], own.leave_one_out) if axis is not None]
        for matrix in (*member.labelled.values(), member.benign):
            counts = projection_counts(connection, member.space, matrix.prompt_ids)
            pending = [
                axis
                for axis in (own.native, *shared)
                if counts.get(axis.axis_id) != len(matrix.prompt_ids)
            ]
            scored = [
                Scored(axis, layer, activations.project(matrix.x, axis.vector))
                if axis is own.native
                else Scored(axis, layer, projected(matrix, own, axis), alignment_id)
                for axis in pending
            ]
            if scored:
                write_projections(root, connection, run, member.space, matrix.prompt_ids, scored)


def projected(matrix: Matrix, own: Fitted, axis: Axis) -> np.ndarray:
    """`align(x) . axis`."""
    return own.alignment.fit.alignment.project(matrix.x, axis.vector)
