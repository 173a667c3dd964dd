"""Stability of a study's axes: nulls, resamples, and prompts that no direction was fitted on.

A universal axis is made of directions that were all fitted on the labelled prompts, so on those it
is in sample, whichever model is left out. For `axes_fitter` everything that depends on labels
(directions, mapping them, decomposition) is fitted without each fold, which is then projected on
the axis fitted without it. Alignments are fitted on other prompts, without labels, and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from axes.analysis.activations import Matrix, mean, project, project_centred, row_norms
from axes.analysis.methods import DIRECTIONS
from axes.analysis.methods.directions import cosine, unit
from axes.analysis.methods.erasure import can_evaluate_erasure, erasure_scores
from axes.analysis.methods.layer_selection import select_layers
from axes.analysis.methods.nulls import (
    Mapped,
    bootstrap_angles,
    control_tasks,
    mapped_directions,
    random_singular_values,
    refitted,
    shuffled_directions,
    shuffled_labels,
    singular_values,
    unit_rows,
)
from axes.analysis.methods.universal import (
    leave_one_out_axes,
    singular_value_gap,
    universal_axis,
)
from axes.analysis.stats.auroc import (
    Estimate,
    Groups,
    Labels,
    auroc_interval,
    null_interval,
)
from axes.analysis.stats.baselines import Kernel, baseline_fitter, model_kernels, text_kernels
from axes.analysis.stats.evaluate import evaluate_scores
from axes.analysis.stats.out_of_fold import Fit, evaluate_out_of_fold
from axes.analysis.study.definition import StudyDefinition
from axes.analysis.study.evaluations import Evaluation, Steps
from axes.analysis.study.fit import FittedStudy, Member

SHARED_AXES = ("native", "universal", "leave_one_out")
CROSS_VALIDATED = "_cross_validated"


def shared_axis_rows(study: FittedStudy, steps: Steps) -> list[Evaluation]:
    """What each model contributes to the universal axis, its nulls and its stability."""
    definition, axis = study.definition, study.universal
    aligned = np.stack([model.aligned.vector for model in study.models])
    weights = universal_axis(aligned, definition.universal).weights
    rows = [
        Evaluation.of(
            "aligned",
            "universal_weight",
            Estimate(float(weight)),
            member=model.member,
            axis=axis,
        )
        for model, weight in zip(study.models, weights, strict=True)
    ]
    if len(study.models) < 2:
        return rows
    matrices = study.matrices
    inputs = [
        axis.axis_id,
        [model.alignment.alignment_id for model in study.models],
        [member.location for member in study.members],
        [matrix.grouped_hash for matrix in matrices],
        [definition.direction, definition.universal, definition.seed],
    ]
    return rows + steps.compute("shared", inputs, lambda: _shared_axis(study, matrices, aligned))


def _mapped(study: FittedStudy, matrices: Sequence[Matrix]) -> list[Mapped]:
    return [
        Mapped(matrix.x, model.alignment.fit.alignment)
        for matrix, model in zip(matrices, study.models, strict=True)
    ]


def _shared_axis(
    study: FittedStudy, matrices: Sequence[Matrix], aligned: Float[np.ndarray, "model d_reference"]
) -> list[Evaluation]:
    """Rows of two models and more; `matrices` hold the same prompts in the same order.

    The gap of the singular values with its p-value under shuffled labels, the singular values and
    gaps of random and of shuffled directions (means with the 5th and 95th percentile), and the
    angle in degrees between the axis and that of resampled prompts (median, 95 % of them).
    """
    models = _mapped(study, matrices)
    labels, groups = matrices[0].labels, matrices[0].groups
    method, seed = study.definition.direction, study.definition.seed
    count = DIRECTIONS[method].draw_count
    shuffled = shuffled_directions(models, labels, groups, method=method, count=count, seed=seed)
    nulls = {
        "random_direction": random_singular_values(models, count=count, seed=seed),
        "shuffled_labels": singular_values(list(shuffled)),
    }
    rows = []
    for scorer, values in nulls.items():
        rows += [
            Evaluation.of(scorer, "singular_value", null_interval(drawn), component=component)
            for component, drawn in enumerate(values.T)
        ]
        gaps = null_interval(singular_value_gap(values))
        rows.append(Evaluation.of(scorer, "singular_value_gap", gaps))
    gap = float(singular_value_gap(np.linalg.svd(aligned, compute_uv=False)))
    as_wide = int((singular_value_gap(nulls["shuffled_labels"]) >= gap).sum())
    angles = bootstrap_angles(
        models,
        labels,
        groups,
        study.universal.vector,
        method=method,
        shared=study.definition.universal,
        count=count,
        seed=seed,
    )
    angle = Estimate(*map(float, np.quantile(angles, [0.5, 0.025, 0.975])))
    tested = Estimate(gap, p_value=(1 + as_wide) / (1 + count))
    return [
        *rows,
        *_premise_rows(study, matrices, shuffled),
        Evaluation.of("universal", "singular_value_gap", tested, axis=study.universal),
        Evaluation.of("universal", "bootstrap_angle", angle, axis=study.universal),
    ]


def _premise_rows(
    study: FittedStudy,
    matrices: Sequence[Matrix],
    shuffled: Float[np.ndarray, "model shuffle d_reference"],
) -> list[Evaluation]:
    """Of each model, whether its map and the benign prompts can carry its direction at all.

    `benign_variance_ratio`: variance of the benign prompts along the direction over that within the
    classes; `mapped_gain`: length of the mapped unit direction over the mean length of directions
    of shuffled labels; `cosine_leave_one_out`: with the axis made of the other models, with its
    p-value (and the 5th and 95th percentile) under labels shuffled alike in all models.
    """
    shared = study.definition.universal
    rows, drawn = [], np.stack([unit_rows(each) for each in shuffled], axis=1)
    for index, (model, matrix) in enumerate(zip(study.models, matrices, strict=True)):
        native, labels = unit(model.native.vector).vector, matrix.labels
        along, benign = (project(x, native) for x in (matrix.x, model.member.benign.x))
        within = (along[labels].var() + along[~labels].var()) / 2
        gains = np.linalg.norm(shuffled[index], axis=1)
        gain = np.linalg.norm(model.alignment.fit.alignment.map(native))
        others = universal_axis(np.delete(drawn, index, axis=1), shared).vector
        cosines = (drawn[:, index] * others).sum(axis=1)
        assert model.leave_one_out is not None, "two models and more"
        observed = cosine(model.aligned.vector, model.leave_one_out.vector)
        p_value = (1 + int((cosines >= observed).sum())) / (1 + len(cosines))
        metrics = {
            "benign_variance_ratio": Estimate(float(benign.var() / within)),
            "mapped_gain": Estimate(float(gain / gains.mean())),
            "cosine_leave_one_out": Estimate(observed, p_value=p_value),
        }
        null = {"cosine_leave_one_out": null_interval(cosines)}
        rows += Evaluation.of_scorers(
            {"aligned": metrics, "shuffled_labels": null}, member=model.member
        )
    return rows


def direction_rows(definition: StudyDefinition, member: Member, steps: Steps) -> list[Evaluation]:
    """What rests on one model's direction and the prompts that it is fitted on, and nothing else.

    Erasure is left out where a class lies in too few groups for its folds.
    """
    prompt_set, matrix = definition.prompts, member.labelled[definition.prompts]
    tests: dict[str, _Test] = {"shuffled labels": _shuffled_labels}
    if not DIRECTIONS[definition.direction].is_of_pairs:  # The two of a pair share their type.
        tests["control tasks"] = _control_tasks
    if can_evaluate_erasure(matrix.labels, matrix.groups):
        tests["erasure"] = _erasure
    if member.layers:
        tests["nested"] = _nested
    method, seed = definition.direction, definition.seed
    inputs = [member.location, prompt_set, matrix.grouped_hash, method, seed]
    rows = []
    for step, test in tests.items():
        compute = partial(_tested, test, definition, member)
        rows += steps.compute(step, inputs, compute, member=member, prompt_set=prompt_set)
    return rows


_Metrics = Mapping[str, Mapping[str, Estimate]]
_Test = Callable[[StudyDefinition, Member, Matrix], _Metrics]


def _tested(test: _Test, definition: StudyDefinition, member: Member) -> list[Evaluation]:
    matrix = member.labelled[definition.prompts]
    rows = Evaluation.of_scorers(
        test(definition, member, matrix),
        member=member,
        prompt_set=definition.prompts,
        labels=matrix.labels,
    )
    return [replace(row, is_in_sample=row.scorer == "shuffled_labels") for row in rows]


def _shuffled_labels(definition: StudyDefinition, _: Member, matrix: Matrix) -> _Metrics:
    """The native direction refitted on shuffled labels, in sample and out of fold."""
    method = definition.direction
    null = shuffled_labels(
        matrix.x,
        matrix.labels,
        matrix.groups,
        method=method,
        count=DIRECTIONS[method].draw_count,
        seed=definition.seed,
    )
    return {
        "shuffled_labels": {"auroc": null_interval(null.in_sample)},
        "shuffled_labels_cross_validated": {"auroc": null_interval(null.held_out)},
    }


def _control_tasks(definition: StudyDefinition, _: Member, matrix: Matrix) -> _Metrics:
    """The direction's method on control tasks whose types are the prompts' first words."""
    method = definition.direction
    areas = control_tasks(
        matrix.x,
        [text.lower().partition(" ")[0] for text in matrix.texts.to_pylist()],
        matrix.labels,
        matrix.groups,
        count=DIRECTIONS[method].draw_count,
        method=method,
        seed=definition.seed,
    )
    if not len(areas):
        return {}
    ends = map(float, np.quantile(areas, [0.025, 0.975]))
    return {"control_task_cross_validated": {"auroc": Estimate(float(areas.mean()), *ends)}}


def _nested(definition: StudyDefinition, member: Member, matrix: Matrix) -> _Metrics:
    """The native direction where the choice of its layer has not seen a row either."""
    labels, groups, seed = matrix.labels, matrix.groups, definition.seed
    layers = (layer.read() for layer in member.layers)
    selection = select_layers(layers, labels, groups, method=definition.direction, seed=seed)
    return evaluate_scores(
        {"native_nested": selection.nested}, labels, groups, seed=seed, is_out_of_fold=True
    )


def _erasure(definition: StudyDefinition, _: Member, matrix: Matrix) -> _Metrics:
    """AUROC of a newly trained linear probe before and after the concept is erased."""
    labels, groups, seed = matrix.labels, matrix.groups, definition.seed
    scores = erasure_scores(matrix.x, labels, groups, method=definition.direction, seed=seed)
    return {
        f"probe_{state}": {"auroc": auroc_interval(values, labels, groups, is_out_of_fold=True)}
        for state, values in scores.items()
    }


# What `refitter` gives.
Refits = tuple[Fit, dict[tuple[str | None, str], int]]


def held_out_rows(
    study: FittedStudy, steps: Steps, refits: Callable[[], Refits]
) -> list[Evaluation]:
    """Every model's direction and the shared axes on prompts that no direction was fitted on.

    Beside them the baselines of the prompts and of each model, and every axis minus each of those.
    """
    prompt_set, compute = study.definition.prompts, partial(_held_out, study, refits)
    return steps.compute("held out", refit_inputs(study), compute, prompt_set=prompt_set)


def refit_inputs(study: FittedStudy) -> list[Any]:
    """All that refits of a study's axes on parts of its prompts depend on."""
    definition = study.definition
    return [
        [member.location for member in study.members],
        [model.alignment.alignment_id for model in study.models],
        definition.prompts,
        [matrix.grouped_hash for matrix in study.matrices],
        [definition.direction, definition.universal],
        definition.seed,
    ]


def _held_out(study: FittedStudy, refits: Callable[[], Refits]) -> list[Evaluation]:
    labels, groups = study.matrices[0].labels, study.matrices[0].groups
    fit, place = refits()
    evaluated = evaluate_out_of_fold(fit, labels, groups, seed=study.definition.seed)
    row = partial(Evaluation.of_scorers, prompt_set=study.definition.prompts, labels=labels)
    metrics = {scorer: evaluated.metrics(at, labels, groups) for scorer, at in place.items()}
    of_texts = {name: each for (model, name), each in metrics.items() if model is None}
    rows = row(of_texts, is_in_sample=False)
    for member in study.members:
        own = {name: each for (model, name), each in metrics.items() if model == member.name}
        axes = [name for name in own if name in SHARED_AXES]
        baselines = {name: place[None, name] for name in of_texts}
        baselines |= {name: place[member.name, name] for name in own if name not in axes}
        figures = {f"{axis}{CROSS_VALIDATED}": own[axis] for axis in axes}
        for axis in axes:
            others = {"universal": place[member.name, "universal"]} if axis == "native" else {}
            for other, at in (others | baselines).items():
                difference = evaluated.difference(place[member.name, axis], at)
                name = f"{axis}_minus_{other}{CROSS_VALIDATED}"
                figures[name] = {"auroc_difference": difference}
        # A layer that was chosen on these prompts has seen them after all.
        rows += row(figures, member=member, is_in_sample=bool(member.layers))
        own = {name: each for name, each in own.items() if name not in axes}
        rows += row(own, member=member, is_in_sample=False)
    return rows


def refitter(study: FittedStudy, matrices: Sequence[Matrix]) -> Refits:
    """A function that fits all axes and baselines on masks of rows; (model, scorer) -> its place.

    `matrices` are each model's, of the same prompts. Baselines of the prompts have no model.
    """
    definition = study.definition
    labels, groups = matrices[0].labels, matrices[0].groups
    texts = text_kernels(matrices[0].texts.to_pylist())
    of_models = {
        member.name: model_kernels(texts, row_norms(matrix.x))
        for member, matrix in zip(study.members, matrices, strict=True)
    }
    kernels: dict[tuple[str | None, str], Kernel] = {(None, n): k for n, k in texts.items()}
    kernels |= {(model, name): k for model, each in of_models.items() for name, k in each.items()}
    fit_baselines = baseline_fitter(list(kernels.values()), labels)
    method, shared = definition.direction, definition.universal
    models = _mapped(study, matrices)
    fit_axes = axes_fitter(models, labels, groups, method=method, shared=shared)

    def fit(seen: Bool[np.ndarray, "fit row"]) -> Float[np.ndarray, "fit scorer row"]:
        of_models = fit_axes(seen)
        of_texts = np.stack([fit_baselines(mask) for mask in seen])
        return np.concatenate([*of_models.swapaxes(0, 1), of_texts], axis=1)

    axes = SHARED_AXES[: 2 if len(matrices) == 1 else 3]
    # In the order of `fit`: axes by model, baselines of the prompts, and those by model.
    names = [*((member.name, axis) for member in study.members for axis in axes), *kernels]
    return fit, {name: at for at, name in enumerate(names)}


def axes_fitter(
    models: Sequence[Mapped],
    labels: Labels,
    groups: Groups,
    *,
    method: str = "mean_diff",
    shared: str = "svd",
) -> Callable[[Bool[np.ndarray, "fit row"]], Float[np.ndarray, "fit model axis row"]]:
    """A function that fits every model's axes on masks of rows and projects all rows on them.

    Axes are those of `SHARED_AXES`, the last one with several models only; `method` is that of the
    directions, `shared` that of the axis made of them. Rows are projected about the middle of the
    classes fitted on, so that folds compare.
    """
    centres = [mean(each.x) for each in models]

    def fit(seen: Bool[np.ndarray, "fit row"]) -> Float[np.ndarray, "fit model axis row"]:
        drawn = np.broadcast_to(labels, seen.shape)
        natives = [unit_rows(refitted(each.x, drawn, seen, method, groups)) for each in models]
        pairs = zip(models, natives, strict=True)
        aligned = np.stack([mapped_directions(*pair) for pair in pairs], axis=1)
        by_axis = [[universal_axis(aligned, shared).vector] * len(models)]
        if len(models) > 1:
            by_axis.append(leave_one_out_axes(aligned, shared))
        # [axis, row, fit] of each model: one product for all fits.
        projected = np.array(
            [
                [
                    project_centred(each.x, native.T, centre),
                    *(each.alignment.project_centred(each.x, axis.T, centre) for axis in axes),
                ]
                for each, native, centre, *axes in zip(
                    models, natives, centres, *by_axis, strict=True
                )
            ]
        )
        projected = np.moveaxis(projected, -1, 0)
        kinds = [seen & labels, seen & ~labels]
        weights = sum(kind / kind.sum(axis=1, keepdims=True) for kind in kinds) / 2
        return projected - np.einsum("fmar,fr->fma", projected, weights)[..., None]

    return fit
