"""The whole chain over a group of models, as one idempotent step: fit, align, project, evaluate.

Per model a difference-in-means direction at every layer; at the study's layer a ridge alignment
into the reference, the aligned unit directions stacked and decomposed into the universal axis, and
one axis more per model with that model left out. Everything is written back, and what is printed
is read back with SQL.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.alignment import fit_alignment, identity_alignment
from analysis.baselines import (
    bag_of_words_scores,
    bag_of_words_transfer,
    cross_validated_scores,
    prompt_lengths,
)
from analysis.directions import difference_in_means, unit
from analysis.drift import project_tokens
from analysis.matrices import Matrix, Space, find_space, load_matrix, require_classes
from analysis.records import (
    Axis,
    Scored,
    StoredAlignment,
    make_axis,
    read_alignment,
    write_alignment,
    write_axes,
    write_projections,
)
from analysis.scores import Estimate, auroc_interval, shuffled_label_null
from analysis.universal import universal_axis
from warehouse.connection import Connection, connect, rows
from warehouse.errors import CoverageError, ModelError
from warehouse.runs import Run, record_run
from warehouse.writer import content_key, data_file, rows_table, write_rows

# Raised whenever the numbers of an unchanged definition would change.
_METHOD_VERSION = 1


@dataclass(frozen=True)
class StudyDefinition:
    """What a study is; with the rows it reads, this determines every number.

    `ridge_lambda` None: chosen for each model on held-out alignment rows. `label` names the group
    in the names of the axes.
    """

    models: tuple[str, ...]
    reference: str
    prompts: str
    align: str
    evaluate: tuple[str, ...] = ()
    align_rows: int = 3000
    layer_fraction: float = 0.8
    ridge_lambda: float | None = None
    pooling: str = "last5_mean"
    template: str = "raw"
    seed: int = 0
    allow_missing: bool = False
    label: str = "group"

    @property
    def labelled_sets(self) -> tuple[str, ...]:
        """The set the directions are fitted on, then the others they are judged on."""
        return tuple(dict.fromkeys((self.prompts, *self.evaluate)))

    @property
    def variant(self) -> tuple[str, ...]:
        """What tells the axes of two studies of one group apart by name: the lambda."""
        policy = "held_out" if self.ridge_lambda is None else f"{self.ridge_lambda:g}"
        return (f"lambda-{policy}",)


@dataclass(frozen=True)
class _Member:
    """One model at the study's layer: its labelled prompts by set, and its alignment prompts."""

    space: Space
    labelled: dict[str, Matrix]
    benign: Matrix

    @property
    def name(self) -> str:
        return self.space.model


@dataclass(frozen=True)
class _Fitted:
    """What was fitted for one model; `leave_one_out` is None in a group of one."""

    native: Axis
    aligned: Axis
    alignment: StoredAlignment
    leave_one_out: Axis | None


def run_study(root: Path, definition: StudyDefinition) -> str:
    """Run what is not there yet and return the study's id; its numbers are in `evaluations`.

    Raises `CoverageError`, `ModelError`, `PromptError` or `LabelError` where rows are missing or
    do not fit.
    """
    connection = connect(root)
    members = [_read_member(connection, definition, name) for name in definition.models]
    if definition.reference not in definition.models:
        raise ModelError(f"the reference {definition.reference} is not among the study's models")
    study_id = _study_id(definition, members)
    if not data_file(root, "evaluations", study_id).exists():
        parameters = {"study_id": study_id, **asdict(definition)}
        with record_run(root, "study", parameters, seed=definition.seed) as run:
            reference = members[definition.models.index(definition.reference)]
            aligned = [
                _align(root, connection, run, definition, member, reference) for member in members
            ]
            universal, fitted = _fit_axes(root, connection, run, definition, members, aligned)
            _project(root, connection, run, definition, members, fitted, universal)
            evaluations = _evaluate(definition, members, fitted, universal)
            described = [
                {
                    **row,
                    "study_id": study_id,
                    "parameters": json.dumps(asdict(definition), sort_keys=True),
                    "run_id": run.run_id,
                }
                for row in evaluations
            ]
            write_rows(root, "evaluations", rows_table("evaluations", described), name=study_id)
            run.rows += len(described)
    project_tokens(root, study_id)
    return study_id


def study_result(root: Path, study_id: str) -> dict[str, Any]:
    """A study's numbers as nested dicts, read with SQL; the keys are described in the README."""
    connection = connect(root)
    found = rows(
        connection,
        "select * from evaluations where study_id = ? order by component, model, prompt_set",
        [study_id],
    )
    parameters = json.loads(found[0]["parameters"])
    models: dict[str, Any] = {
        name.partition("@")[0]: {"layer": None, "ridge_lambda": None, "auroc": {}}
        for name in parameters["models"]
    }
    baselines: dict[str, dict[str, float]] = {}
    missing: dict[str, dict[str, int]] = {}
    for row in found:
        metric, scorer, estimate = row["metric"], row["scorer"], row["estimate"]
        if metric == "auroc" and row["model"] is None:
            baselines.setdefault(row["prompt_set"], {})[scorer] = estimate
        elif metric == "auroc":
            area = models[row["model"]]["auroc"].setdefault(row["prompt_set"], {})
            area[scorer] = estimate
            if row["lower"] is not None:
                area[f"{scorer}_lower"], area[f"{scorer}_upper"] = row["lower"], row["upper"]
            area["is_in_sample"] = row["is_in_sample"] or area.get("is_in_sample", False)
            models[row["model"]]["layer"] = row["layer"]
        elif metric == "missing_count":
            missing.setdefault(row["model"], {})[row["prompt_set"]] = int(estimate)
        elif metric != "singular_value":
            name = "alignment_r2" if metric == "r2_held_out" else metric
            models[row["model"]][name] = estimate
    return {
        "study_id": study_id,
        "definition": parameters,
        "models": models,
        "singular_values": [row["estimate"] for row in found if row["metric"] == "singular_value"],
        "baselines": baselines,
        "missing": missing,
    }


def fit_native(
    root: Path,
    connection: Connection,
    run: Run,
    space: Space,
    prompt_set: str,
    evaluate: Sequence[str] = (),
    *,
    allow_missing: bool = False,
) -> list[Axis]:
    """Fit, register and project the difference-in-means direction at every layer of a model.

    Each direction is projected on the prompts it was fitted on and on the sets of `evaluate`.
    """
    axes: list[Axis] = []
    scored: dict[str, list[Scored]] = {name: [] for name in (prompt_set, *evaluate)}
    prompt_ids: dict[str, tuple[str, ...]] = {}
    for layer in range(space.layer_count):
        here = space.at(layer)
        matrices = {
            name: load_matrix(connection, here, name, allow_missing=allow_missing)
            for name in scored
        }
        axis = native_axis(here, matrices[prompt_set], prompt_set)
        axes.append(axis)
        for name, matrix in matrices.items():
            scored[name].append(Scored(axis, layer, matrix.x @ axis.vector))
            prompt_ids[name] = matrix.prompt_ids
    write_axes(root, connection, run, axes)
    for name, items in scored.items():
        write_projections(root, connection, run, space, prompt_ids[name], items)
    return axes


def native_axis(space: Space, matrix: Matrix, prompt_set: str) -> Axis:
    """The difference-in-means direction of a model in its own space."""
    require_classes(matrix, prompt_set)
    direction = difference_in_means(matrix.x, matrix.labels)
    return make_axis(
        "native",
        "mean_diff",
        space,
        direction,
        matrix,
        prompt_set,
        label=space.model,
        fitted_model=space.model,
    )


def _read_member(connection: Connection, definition: StudyDefinition, name: str) -> _Member:
    space = find_space(
        connection, name, pooling=definition.pooling, template=definition.template
    ).at_fraction(definition.layer_fraction)
    allow = definition.allow_missing
    labelled = {
        prompt_set: load_matrix(connection, space, prompt_set, allow_missing=allow)
        for prompt_set in definition.labelled_sets
    }
    for prompt_set, matrix in labelled.items():
        require_classes(matrix, prompt_set)
    benign = load_matrix(
        connection, space, definition.align, limit=definition.align_rows, allow_missing=allow
    )
    return _Member(space, labelled, benign)


def _study_id(definition: StudyDefinition, members: Sequence[_Member]) -> str:
    return content_key(
        _METHOD_VERSION,
        asdict(definition),
        [
            (
                member.space.model_id,
                [matrix.row_set_hash for matrix in member.labelled.values()],
                member.benign.row_set_hash,
            )
            for member in members
        ],
    )


def _align(
    root: Path,
    connection: Connection,
    run: Run,
    definition: StudyDefinition,
    member: _Member,
    reference: _Member,
) -> StoredAlignment:
    """The member's map into the reference, fitted unless it is registered."""
    mine, theirs = _paired(member.benign, reference.benign)
    space, target = member.space, reference.space
    # The reference's own map, the identity, depends on no rows and no lambda.
    fitted_from = (mine.row_set_hash, definition.ridge_lambda, definition.seed)
    alignment_id = content_key(
        _METHOD_VERSION,
        (space.model_id, space.layer, target.model_id, target.layer),
        (space.site, space.pooling, space.template),
        None if member is reference else fitted_from,
    )
    if (known := read_alignment(root, connection, alignment_id)) is not None:
        return known
    if member is reference:
        fit = identity_alignment(space.d_model)
    else:
        fit = fit_alignment(
            mine.x, theirs.x, ridge_lambda=definition.ridge_lambda, seed=definition.seed
        )
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
    stored = read_alignment(root, connect(root), alignment_id)
    assert stored is not None
    return stored


def _paired(mine: Matrix, theirs: Matrix) -> tuple[Matrix, Matrix]:
    """Both models' rows of the same prompts in the same order; raises where none are shared."""
    if mine.prompt_ids == theirs.prompt_ids:
        return mine, theirs
    place = {prompt_id: index for index, prompt_id in enumerate(theirs.prompt_ids)}
    shared = [index for index, prompt_id in enumerate(mine.prompt_ids) if prompt_id in place]
    if len(shared) < 2:
        raise CoverageError("the model and the reference share no alignment prompts")
    there = [place[mine.prompt_ids[index]] for index in shared]
    return mine.take(np.array(shared)), theirs.take(np.array(there))


def _fit_axes(
    root: Path,
    connection: Connection,
    run: Run,
    definition: StudyDefinition,
    members: Sequence[_Member],
    alignments: Sequence[StoredAlignment],
) -> tuple[tuple[Axis, np.ndarray], list[_Fitted]]:
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
            allow_missing=definition.allow_missing,
        )
        native = layers[member.space.layer]
        carried = unit(stored.fit.alignment.carry(native.vector))
        target = members[definition.models.index(definition.reference)].space
        aligned.append(
            make_axis(
                "aligned",
                "mean_diff",
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
        _Fitted(*parts) for parts in zip(natives, aligned, alignments, leave_one_out, strict=True)
    ]
    return (universal, singular_values), fitted


def _shared_axis(
    kind: str,
    definition: StudyDefinition,
    members: Sequence[_Member],
    aligned: Sequence[Axis],
    held_out: _Member | None,
) -> tuple[Axis, np.ndarray]:
    """The axis shared by some aligned directions, and the singular values."""
    shared = universal_axis(np.stack([axis.vector for axis in aligned]))
    axis = make_axis(
        kind,
        "svd",
        aligned[0].space,
        unit(shared.vector),
        members[0].labelled[definition.prompts],
        definition.prompts,
        label=definition.label if held_out is None else f"{definition.label}-{held_out.name}",
        variant=definition.variant,
        held_out_model=None if held_out is None else held_out.name,
        sources=aligned,
        parameters={"singular_values": shared.singular_values.tolist()},
    )
    return axis, shared.singular_values


def _project(
    root: Path,
    connection: Connection,
    run: Run,
    definition: StudyDefinition,
    members: Sequence[_Member],
    fitted: Sequence[_Fitted],
    universal: tuple[Axis, np.ndarray],
) -> None:
    """Write every prompt's projection on the shared axes, and the alignment prompts' on native."""
    for member, own in zip(members, fitted, strict=True):
        shared = [axis for axis in (universal[0], own.leave_one_out) if axis is not None]
        for matrix in (*member.labelled.values(), member.benign):
            layer, alignment_id = member.space.layer, own.alignment.alignment_id
            scored = [Scored(own.native, layer, matrix.x @ own.native.vector)]
            scored += [
                Scored(axis, layer, _projected(matrix, own, axis), alignment_id) for axis in shared
            ]
            write_projections(root, connection, run, member.space, matrix.prompt_ids, scored)


def _projected(matrix: Matrix, own: _Fitted, axis: Axis) -> np.ndarray:
    """`align(x) . axis`, by pulling the axis back instead of carrying every row over."""
    vector, offset = own.alignment.fit.alignment.pull_back(axis.vector)
    return matrix.x @ vector + offset


def _evaluate(
    definition: StudyDefinition,
    members: Sequence[_Member],
    fitted: Sequence[_Fitted],
    universal: tuple[Axis, np.ndarray],
) -> list[dict[str, Any]]:
    """Every figure of the study as a row of `evaluations`."""
    axis, singular_values = universal
    reference = fitted[definition.models.index(definition.reference)].aligned
    found = [
        _row("universal", "singular_value", Estimate(float(value)), component=index, axis=axis)
        for index, value in enumerate(singular_values)
    ]
    found += _baseline_rows(definition, members[0])
    for member, own in zip(members, fitted, strict=True):
        found += _missing_rows(definition, member)
        found += _alignment_rows(member, own, axis, reference)
        for prompt_set, matrix in member.labelled.items():
            found += _auroc_rows(definition, member, own, axis, prompt_set, matrix)
    return found


def _missing_rows(definition: StudyDefinition, member: _Member) -> list[dict[str, Any]]:
    """How many prompts each figure goes without, where that was allowed."""
    return [
        _row(
            "coverage",
            "missing_count",
            Estimate(float(matrix.missing_count)),
            member=member,
            prompt_set=prompt_set,
        )
        for prompt_set, matrix in {**member.labelled, definition.align: member.benign}.items()
        if matrix.missing_count
    ]


def _alignment_rows(
    member: _Member, own: _Fitted, universal: Axis, reference: Axis
) -> list[dict[str, Any]]:
    fit = own.alignment.fit
    figures = {
        "cosine_universal": float(own.aligned.vector @ universal.vector),
        "cosine_reference": float(own.aligned.vector @ reference.vector),
        "r2_held_out": fit.r2_held_out,
        "r2_uniform": fit.r2_uniform,
        "ridge_lambda": fit.alignment.ridge_lambda,
    }
    return [
        _row("aligned", metric, Estimate(value), member=member, axis=own.aligned)
        for metric, value in figures.items()
        if value is not None
    ]


def _auroc_rows(
    definition: StudyDefinition,
    member: _Member,
    own: _Fitted,
    universal: Axis,
    prompt_set: str,
    matrix: Matrix,
) -> list[dict[str, Any]]:
    labels, seed = matrix.labels, definition.seed
    is_in_sample = prompt_set == definition.prompts
    scored = {
        "native": (own.native, matrix.x @ own.native.vector),
        "universal": (universal, _projected(matrix, own, universal)),
    }
    if own.leave_one_out is not None:
        scored["leave_one_out"] = (own.leave_one_out, _projected(matrix, own, own.leave_one_out))
    where: dict[str, Any] = {"member": member, "prompt_set": prompt_set, "labels": labels}
    found = [
        _row(
            scorer,
            "auroc",
            auroc_interval(scores, labels),
            axis=axis,
            is_in_sample=is_in_sample,
            **where,
        )
        for scorer, (axis, scores) in scored.items()
    ]
    if is_in_sample:
        held_out = cross_validated_scores(matrix.x, labels, matrix.groups, seed=seed)
        null = shuffled_label_null(matrix.x, labels, seed=seed)
        spread = Estimate(float(null.mean()), *map(float, np.quantile(null, [0.05, 0.95])))
        found += [
            _row(
                "native_cross_validated",
                "auroc",
                auroc_interval(held_out, labels),
                is_in_sample=False,
                **where,
            ),
            _row("native_shuffled_labels", "auroc", spread, is_in_sample=True, **where),
        ]
    return found


def _baseline_rows(definition: StudyDefinition, member: _Member) -> list[dict[str, Any]]:
    """What the prompts alone give away; the same for every model."""
    fitted_on = member.labelled[definition.prompts]
    found = []
    for prompt_set, matrix in member.labelled.items():
        if prompt_set == definition.prompts:
            words = bag_of_words_scores(
                matrix.texts, matrix.labels, matrix.groups, seed=definition.seed
            )
        else:
            words = bag_of_words_transfer(fitted_on.texts, fitted_on.labels, matrix.texts)
        scored = {"bag_of_words": words, "prompt_length": prompt_lengths(matrix.texts)}
        found += [
            _row(
                scorer,
                "auroc",
                auroc_interval(scores, matrix.labels),
                prompt_set=prompt_set,
                labels=matrix.labels,
                is_in_sample=False,
            )
            for scorer, scores in scored.items()
        ]
    return found


def _row(
    scorer: str,
    metric: str,
    estimate: Estimate,
    *,
    member: _Member | None = None,
    prompt_set: str | None = None,
    component: int | None = None,
    axis: Axis | None = None,
    labels: np.ndarray | None = None,
    is_in_sample: bool | None = None,
) -> dict[str, Any]:
    counts = {}
    if labels is not None:
        positive_count = int(labels.sum())
        counts = {
            "positive_count": positive_count,
            "negative_count": len(labels) - positive_count,
        }
    return {
        "model": member.name if member else None,
        "model_id": member.space.model_id if member else None,
        "layer": member.space.layer if member else None,
        "prompt_set": prompt_set,
        "scorer": scorer,
        "metric": metric,
        "component": component,
        "axis_id": axis.axis_id if axis else None,
        "is_in_sample": is_in_sample,
        **counts,
        **asdict(estimate),
    }
