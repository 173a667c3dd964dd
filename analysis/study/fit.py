"""Fit a study's directions, alignments and shared axes, and project its prompts on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from axes.analysis import activations
from axes.analysis.activations import (
    Matrix,
    Space,
    find_space,
    layers_of,
    load_layers,
    load_matrix,
    read_together,
    require_classes,
)
from axes.analysis.methods import DIRECTIONS
from axes.analysis.methods.directions import Direction, fit_direction, unit
from axes.analysis.methods.layer_selection import select_layers
from axes.analysis.methods.maps.alignment import fit_alignment, identity_alignment
from axes.analysis.methods.universal import universal_axis
from axes.analysis.projections import LabelledScores
from axes.analysis.registry import (
    Axis,
    StoredAlignment,
    make_axis,
    projection_counts,
    read_alignment,
    registered_directions,
    write_alignment,
    write_axes,
)
from axes.analysis.stats.auroc import Scores, auroc
from axes.analysis.study.definition import MIN_ALIGNMENT_ROWS, StudyDefinition
from axes.warehouse.errors import CoverageError
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import TokenPooling
from axes.warehouse.progress import track
from axes.warehouse.projections import Scored, write_projections
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key

# Raised whenever the numbers of an unchanged definition would change.
METHOD_VERSION = 1


@dataclass(frozen=True)
class Member:
    """One model at the study's layer: its labelled prompts by set, and its alignment prompts.

    Where the layer was chosen, `layers` are the prompts that it was chosen on, at every layer.
    """

    space: Space
    labelled: dict[str, Matrix]
    benign: Matrix
    layers: tuple[Matrix, ...] = ()

    @property
    def name(self) -> str:
        return self.space.model

    @property
    def location(self) -> list[Any]:
        """The keys of the member's activations."""
        return [*self.space.key, self.space.layer]


@dataclass(frozen=True)
class FittedModel:
    """What was fitted for one model; `leave_one_out` is None in a group of one."""

    member: Member
    native: Axis
    aligned: Axis
    alignment: StoredAlignment
    leave_one_out: Axis | None

    def project(self, matrix: Matrix, axis: Axis) -> Scores:
        """The model's rows on one of its axes: shared ones after its alignment."""
        if axis is self.native:
            return activations.project(matrix.x, axis.vector)
        return self.alignment.fit.alignment.project(matrix.x, axis.vector)


@dataclass(frozen=True)
class FittedStudy:
    """A study's models with what was fitted of them, and the axis that they share."""

    definition: StudyDefinition
    models: tuple[FittedModel, ...]
    universal: Axis
    singular_values: Float[np.ndarray, " component"]

    @property
    def members(self) -> list[Member]:
        return [model.member for model in self.models]

    @property
    def matrices(self) -> list[Matrix]:
        """Of each model the prompts that directions are fitted on, the same in the same order."""
        return [member.labelled[self.definition.prompts] for member in self.members]

    @property
    def reference(self) -> FittedModel:
        return self.models[self.definition.models.index(self.definition.reference)]


def read_members(warehouse: Warehouse, definition: StudyDefinition) -> list[Member]:
    """All models of a study, each labelled set with the prompts that every model has.

    Where rows may be missing, figures of one row are then of the same prompts; what another model
    lacks counts as missing.
    """
    members = [read_member(warehouse, definition, name) for name in definition.models]
    for prompt_set in definition.labelled_sets:
        matrices = [member.labelled[prompt_set] for member in members]
        for member, all_rows, taken in zip(
            members, matrices, on_shared_prompts(matrices), strict=True
        ):
            lost = len(all_rows.prompt_ids) - len(taken.prompt_ids)
            member.labelled[prompt_set] = replace(taken, missing_count=taken.missing_count + lost)
    prompts = definition.prompts
    return [
        replace(
            member, layers=tuple(on_shared_prompts([member.labelled[prompts], *member.layers])[1:])
        )
        for member in members
    ]


def read_member(warehouse: Warehouse, definition: StudyDefinition, name: str) -> Member:
    """The activations of one model at the study's layer; raises where rows are missing."""
    allow = definition.allow_missing
    space = find_space(
        warehouse,
        name,
        site=definition.site,
        pooling=definition.pooling,
        template=definition.template,
    )
    layers: tuple[Matrix, ...] = ()
    if definition.layer_policy == "fraction":
        space = space.at_fraction(definition.layer_fraction)
    else:
        layers = tuple(
            load_matrix(warehouse, space.at(layer), definition.prompts, allow_missing=allow)
            for layer in range(space.layer_count)
        )
        space = space.at(_best_layer(definition, layers))
    labelled = {
        prompt_set: load_matrix(warehouse, space, prompt_set, allow_missing=allow)
        for prompt_set in definition.labelled_sets
    }
    for prompt_set, matrix in labelled.items():
        require_classes(matrix, prompt_set)
    benign = load_matrix(
        warehouse, space, definition.align, limit=definition.align_rows, allow_missing=allow
    )
    if len(benign.prompt_ids) < MIN_ALIGNMENT_ROWS:
        raise CoverageError(
            f"{definition.align} gives {len(benign.prompt_ids)} alignment prompts, "
            f"{MIN_ALIGNMENT_ROWS} are needed"
        )
    return Member(space, labelled, benign, layers)


def _best_layer(definition: StudyDefinition, layers: Sequence[Matrix]) -> int:
    """The layer with the best out-of-fold AUROC on the rows that directions are fitted on."""
    require_classes(layers[0], definition.prompts)
    selection = select_layers(
        (matrix.read() for matrix in layers),
        layers[0].labels,
        layers[0].groups,
        method=definition.direction,
        seed=definition.seed,
    )
    areas = [auroc(scores, layers[0].labels) for scores in selection.cross_validated]
    return int(np.argmax(areas))


def fit_study(
    warehouse: Warehouse,
    run: Run,
    definition: StudyDefinition,
    members: Sequence[Member],
    concepts: Sequence[str] = (),
) -> FittedStudy:
    """Native, aligned, universal and leave-one-out axes, registered and projected on.

    Native directions of `concepts`, prompt sets that are studied next, are fitted too.
    """
    reference = members[definition.models.index(definition.reference)]
    alignments = []
    with track("align", len(members), "models") as advance:
        for member in members:
            alignments.append(align_member(warehouse, run, definition, member, reference))
            advance(1)
    natives = []
    for member in members:
        # The directions of the other layers are fitted too.
        axes = fit_native(
            warehouse,
            run,
            member.space,
            definition.prompts,
            definition.evaluate,
            concepts=concepts,
            method=definition.direction,
            allow_missing=definition.allow_missing,
        )
        natives += [axis for axis in axes if axis.space.layer == member.space.layer]
    aligned = [
        _aligned_axis(definition, member, native, alignment, reference.space)
        for member, native, alignment in zip(members, natives, alignments, strict=True)
    ]
    share = partial(_shared_axis, definition, members[0])
    universal, singular_values = share("universal", aligned)
    held_out: list[Axis | None] = [None] * len(members)
    if len(members) > 1:
        held_out = [
            share("leave_one_out", [*aligned[:index], *aligned[index + 1 :]], member.name)[0]
            for index, member in enumerate(members)
        ]
    shared = [universal, *(axis for axis in held_out if axis is not None)]
    write_axes(warehouse, run, [*aligned, *shared])
    models = tuple(
        FittedModel(*parts)
        for parts in zip(members, natives, aligned, alignments, held_out, strict=True)
    )
    study = FittedStudy(definition, models, universal, singular_values)
    _project(warehouse, run, study)
    return study


def align_member(
    warehouse: Warehouse, run: Run, definition: StudyDefinition, member: Member, reference: Member
) -> StoredAlignment:
    """The member's map into the reference, fitted unless it is stored."""
    benign, targets = paired(member.benign, reference.benign)
    space, target = member.space, reference.space
    # The reference's map, the identity, depends on no rows and no lambda.
    options, shuffles = definition.alignment_options, definition.alignment_shuffles
    fitted_from = (benign.row_set_hash, asdict(options), shuffles, definition.seed)
    alignment_id = content_key(
        METHOD_VERSION,
        (space.model_id, space.layer, target.model_id, target.layer),
        (space.site, space.pooling, space.template),
        None if member is reference else fitted_from,
    )
    if warehouse.has("alignments", alignment_id):
        return read_alignment(warehouse, alignment_id)
    if member is reference:
        fit = identity_alignment(space.d_model)
    else:
        fit = fit_alignment(
            benign.x, targets.x, options, shuffle_count=shuffles, seed=definition.seed
        )
    write_alignment(
        warehouse,
        run,
        fit,
        alignment_id=alignment_id,
        space=space,
        reference=target,
        prompt_set=definition.align,
        rows_fitted=benign,
        seed=definition.seed,
    )
    # Read back: the weights are float32 then, for this run as for every later one.
    return read_alignment(warehouse, alignment_id)


def paired(benign: Matrix, targets: Matrix) -> tuple[Matrix, Matrix]:
    """Both models' rows of the same prompts in the same order; raises where none are shared."""
    benign, targets = on_shared_prompts([benign, targets])
    if len(benign.prompt_ids) < 2:
        raise CoverageError("the model and the reference share no alignment prompts")
    return benign, targets


RowsOfPrompts = TypeVar("RowsOfPrompts", Matrix, LabelledScores)


def on_shared_prompts(models: Sequence[RowsOfPrompts]) -> list[RowsOfPrompts]:
    """Every model's rows of the prompts that all models have, in the order of the first."""
    ids = [model.prompt_ids for model in models]
    if all(of_model == ids[0] for of_model in ids):
        return list(models)
    shared = set.intersection(*map(set, ids))
    order = [prompt_id for prompt_id in ids[0] if prompt_id in shared]
    taken = []
    for model in models:
        places = {prompt_id: index for index, prompt_id in enumerate(model.prompt_ids)}
        taken.append(model.take(np.array([places[key] for key in order], dtype=np.int64)))
    return taken


def fit_native(
    warehouse: Warehouse,
    run: Run,
    space: Space,
    prompt_set: str,
    evaluate: Sequence[str] = (),
    *,
    concepts: Sequence[str] = (),
    method: str = "mean_diff",
    rank: int | None = None,
    allow_missing: bool = False,
) -> list[Axis]:
    """Fit, register and project the direction of a method at every layer that is stored.

    That is every block of a model with all layers ingested; an import may bring only some.
    Each direction is projected on the prompts it was fitted on and on the sets of `evaluate`.
    Directions of `concepts`, sets that are stored at the same layers, are fitted and stored in the
    same pass, and not returned. With `rank`, so is a subspace's basis, which is returned too.
    """
    registered = registered_directions(warehouse, space)
    axes: list[Axis] = []
    stored = layers_of(warehouse, space, prompt_set)
    layers = stored or range(space.layer_count)
    others = [name for name in concepts if layers_of(warehouse, space, name) == layers]
    fitted = tuple(dict.fromkeys((prompt_set, *others)))
    scored: dict[str, list[Scored]] = {name: [] for name in (*fitted, *evaluate)}
    prompt_ids: dict[str, tuple[str, ...]] = {}
    counts: dict[str, dict[str, int]] = {}
    if len(layers) < space.layer_count:
        run.messages.append(f"{len(layers)} of {space.layer_count} layers are stored")
    load = partial(load_layers, warehouse, allow_missing=allow_missing)
    by_layer = {name: load(space, layers, name) for name in scored}
    with track(f"fit {space.model}", len(layers), "layers") as advance:
        for layer in layers:
            at_layer, sources = space.at(layer), list[Axis]()
            if space.pooling == "tokens_attention":
                from axes.analysis.token_attention import learn_attention

                at_layer, *sources = learn_attention(
                    warehouse, run, at_layer, prompt_set, allow_missing=allow_missing
                )
                registered = registered_directions(warehouse, at_layer)
                by_layer = {name: load(at_layer, [layer], name) for name in scored}
            matrices = {name: next(each) for name, each in by_layer.items()}
            if len(matrices) > 1 and TokenPooling.find(space.pooling) is None:
                matrices = read_together(warehouse, at_layer, matrices)
            for concept in fitted:
                matrix = matrices[concept]
                fits = [_native_axis(at_layer, matrix, concept, registered, method, sources)]
                fits += _basis(warehouse, at_layer, matrix, concept, rank)
                axes += fits
                for name, axis in product(dict.fromkeys((concept, *evaluate)), fits):
                    prompt_ids[name] = matrices[name].prompt_ids
                    scored[name] += _unprojected(warehouse, axis, matrices[name], counts)
            advance(1)
    write_axes(warehouse, run, axes)
    for name, items in scored.items():
        if items:
            write_projections(warehouse, run, space, prompt_ids[name], items)
    return [axis for axis in axes if axis.prompt_set == prompt_set]


def _unprojected(
    warehouse: Warehouse, axis: Axis, matrix: Matrix, counts: dict[str, dict[str, int]]
) -> list[Scored]:
    """The rows on an axis of their space, unless these projections are stored.

    `counts` keeps the stored ones of each set of rows, by axis.
    """
    key = matrix.row_set_hash
    if key not in counts:
        counts[key] = projection_counts(warehouse, axis.space, matrix.prompt_ids)
    if counts[key].get(axis.axis_id) == len(matrix.prompt_ids):
        return []
    return [Scored(axis.axis_id, axis.space.layer, activations.project(matrix.x, axis.vector))]


def _native_axis(
    space: Space,
    matrix: Matrix,
    prompt_set: str,
    registered: Mapping[str, Direction],
    method: str,
    sources: Sequence[Axis] = (),
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
        is_of_pairs=DIRECTIONS[method].is_of_pairs,
        fitted_model=space.model,
        sources=sources,
        registered=registered,
    )


def _basis(
    warehouse: Warehouse, space: Space, matrix: Matrix, prompt_set: str, rank: int | None
) -> list[Axis]:
    if rank is None:
        return []
    from axes.analysis.subspaces import subspace_axes

    return subspace_axes(warehouse, space, matrix, prompt_set, rank)


def _aligned_axis(
    definition: StudyDefinition,
    member: Member,
    native: Axis,
    alignment: StoredAlignment,
    target: Space,
) -> Axis:
    """The native direction mapped into the reference's space."""
    return make_axis(
        "aligned",
        definition.direction,
        target,
        lambda: unit(alignment.fit.alignment.map(native.vector)),
        member.labelled[definition.prompts],
        definition.prompts,
        label=member.name,
        variant=definition.variant,
        fitted_model=member.name,
        alignment_id=alignment.alignment_id,
        sources=[native],
    )


def _shared_axis(
    definition: StudyDefinition,
    first: Member,
    kind: str,
    aligned: Sequence[Axis],
    held_out: str | None = None,
) -> tuple[Axis, Float[np.ndarray, " component"]]:
    """The axis shared by some aligned directions, and the singular values."""
    shared = universal_axis(np.stack([axis.vector for axis in aligned]), definition.universal)
    axis = make_axis(
        kind,
        definition.universal,
        aligned[0].space,
        lambda: unit(shared.vector),
        first.labelled[definition.prompts],
        definition.prompts,
        label=definition.label if held_out is None else f"{definition.label}-{held_out}",
        variant=definition.variant,
        held_out_model=held_out,
        sources=aligned,
        parameters={
            "singular_values": shared.singular_values.tolist(),
            "weights": shared.weights.tolist(),
        },
    )
    return axis, shared.singular_values


def _project(warehouse: Warehouse, run: Run, study: FittedStudy) -> None:
    """Write every prompt's projection on the shared axes, and the alignment prompts' on native."""
    for model in study.models:
        member, alignment_id = model.member, model.alignment.alignment_id
        axes = [model.native, study.universal, model.leave_one_out]
        for matrix in (*member.labelled.values(), member.benign):
            counts = projection_counts(warehouse, member.space, matrix.prompt_ids)
            scored = [
                Scored(
                    axis.axis_id,
                    member.space.layer,
                    model.project(matrix, axis),
                    None if axis is model.native else alignment_id,
                )
                for axis in axes
                if axis is not None and counts.get(axis.axis_id) != len(matrix.prompt_ids)
            ]
            if scored:
                write_projections(warehouse, run, member.space, matrix.prompt_ids, scored)
