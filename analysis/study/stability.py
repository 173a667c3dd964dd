"""Stability of a study's axes: nulls, resamples, and prompts that no direction was fitted on.

Of the shared axis: what each model contributes, its nulls, its angle under resampling. Of a model's
direction: shuffled labels, the choice of its layer, and erasure. Of both: out-of-fold scores. A
universal axis is made of directions that were all fitted on the labelled prompts, so on those it is
in sample, whichever model is left out. For `held_out_scores` everything that depends on labels
(directions, mapping them, decomposition) is fitted without each fold, which is then projected on
the axis fitted without it. Alignments are fitted on other prompts, without labels, and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import Matrix, project
from axes.analysis.methods import DIRECTIONS
from axes.analysis.methods.affine_map import Alignment
from axes.analysis.methods.directions import fit_direction, unit
from axes.analysis.methods.erasure import can_evaluate_erasure, erasure_scores
from axes.analysis.methods.layer_selection import select_layers
from axes.analysis.methods.nulls import (
    Mapped,
    bootstrap_angles,
    random_singular_values,
    shuffled_labels,
    shuffled_singular_values,
)
from axes.analysis.methods.universal import singular_value_gap, universal_axis
from axes.analysis.stats.auroc import Estimate, Groups, Labels, auroc_interval, null_interval
from axes.analysis.stats.evaluate import evaluate_difference, evaluate_scores
from axes.analysis.stats.splits import grouped_folds
from axes.analysis.study.definition import StudyDefinition
from axes.analysis.study.evaluations import Evaluation, Steps
from axes.analysis.study.fit import FittedStudy, Member, on_shared_prompts
from axes.warehouse.layers import Rows


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
    matrices = _shared_rows(study)
    inputs = [
        axis.axis_id,
        [model.alignment.alignment_id for model in study.models],
        [member.location for member in study.members],
        [matrix.grouped_hash for matrix in matrices],
        [definition.direction, definition.universal, definition.seed],
    ]
    return rows + steps.compute("shared", inputs, lambda: _shared_axis(study, matrices, aligned))


def _shared_rows(study: FittedStudy) -> list[Matrix]:
    """Every model's labelled rows of the prompts that all models have."""
    prompts = study.definition.prompts
    return on_shared_prompts([member.labelled[prompts] for member in study.members])


def _shared_axis(
    study: FittedStudy, matrices: Sequence[Matrix], aligned: Float[np.ndarray, "model d_reference"]
) -> list[Evaluation]:
    """Rows of two models and more; `matrices` hold the same prompts in the same order.

    The gap of the singular values with its p-value under shuffled labels, the singular values and
    gaps of random and of shuffled directions (means with the 5th and 95th percentile), and the
    angle in degrees between the axis and that of resampled prompts (median, 95 % of them).
    """
    models = [
        Mapped(matrix.x, model.alignment.fit.alignment)
        for matrix, model in zip(matrices, study.models, strict=True)
    ]
    labels, groups = matrices[0].labels, matrices[0].groups
    method, seed = study.definition.direction, study.definition.seed
    count = DIRECTIONS[method].draw_count
    nulls = {
        "random_direction": random_singular_values(models, count=count, seed=seed),
        "shuffled_labels": shuffled_singular_values(
            models, labels, groups, method=method, count=count, seed=seed
        ),
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
        Evaluation.of("universal", "singular_value_gap", tested, axis=study.universal),
        Evaluation.of("universal", "bootstrap_angle", angle, axis=study.universal),
    ]


def shuffled_label_rows(
    definition: StudyDefinition, member: Member, steps: Steps
) -> list[Evaluation]:
    """The native direction refitted on shuffled labels, in sample and out of fold."""
    matrix, method = member.labelled[definition.prompts], definition.direction

    def compute() -> list[Evaluation]:
        null = shuffled_labels(
            matrix.x,
            matrix.labels,
            matrix.groups,
            method=method,
            count=DIRECTIONS[method].draw_count,
            seed=definition.seed,
        )
        in_sample = {"shuffled_labels": {"auroc": null_interval(null.in_sample)}}
        held_out = {"shuffled_labels_cross_validated": {"auroc": null_interval(null.held_out)}}
        return [
            *_member_rows(definition, member, in_sample, is_in_sample=True),
            *_member_rows(definition, member, held_out),
        ]

    return _member_step("shuffled labels", definition, member, steps, compute)


def nested_rows(definition: StudyDefinition, member: Member, steps: Steps) -> list[Evaluation]:
    """The native direction where the choice of its layer has not seen a row either."""
    if not member.layers:
        return []
    matrix, seed = member.labelled[definition.prompts], definition.seed
    labels, groups = matrix.labels, matrix.groups

    def compute() -> list[Evaluation]:
        layers = (layer.read() for layer in member.layers)
        selection = select_layers(layers, labels, groups, method=definition.direction, seed=seed)
        metrics = evaluate_scores(selection.nested, labels, groups, seed=seed)
        return _member_rows(definition, member, {"native_nested": metrics})

    return _member_step("nested", definition, member, steps, compute)


def erasure_rows(definition: StudyDefinition, member: Member, steps: Steps) -> list[Evaluation]:
    """AUROC of a newly trained linear probe before and after the concept is erased.

    Left out where a class lies in too few groups for the folds.
    """
    matrix = member.labelled[definition.prompts]
    labels, groups = matrix.labels, matrix.groups
    if not can_evaluate_erasure(labels, groups):
        return []

    def compute() -> list[Evaluation]:
        scores = erasure_scores(
            matrix.x, labels, groups, method=definition.direction, seed=definition.seed
        )
        metrics = {
            f"probe_{state}": {"auroc": auroc_interval(values, labels, groups=groups)}
            for state, values in vars(scores).items()
        }
        return _member_rows(definition, member, metrics)

    return _member_step("erasure", definition, member, steps, compute)


def _member_rows(
    definition: StudyDefinition,
    member: Member,
    metrics: Mapping[str, Mapping[str, Estimate]],
    *,
    is_in_sample: bool = False,
) -> list[Evaluation]:
    """Metrics of one model on the prompts that its direction is fitted on."""
    return Evaluation.of_scorers(
        metrics,
        member=member,
        prompt_set=definition.prompts,
        labels=member.labelled[definition.prompts].labels,
        is_in_sample=is_in_sample,
    )


def _member_step(
    step: str,
    definition: StudyDefinition,
    member: Member,
    steps: Steps,
    compute: Callable[[], list[Evaluation]],
) -> list[Evaluation]:
    """A step that rests on one model's direction and the prompts that it is fitted on."""
    prompt_set = definition.prompts
    rows_hash = member.labelled[prompt_set].grouped_hash
    inputs = [member.location, prompt_set, rows_hash, definition.direction, definition.seed]
    return steps.compute(step, inputs, compute, member=member, prompt_set=prompt_set)


def held_out_rows(study: FittedStudy, steps: Steps) -> list[Evaluation]:
    """Every model's direction and the shared axes on prompts that no direction was fitted on.

    On the prompts that all models have, which are all unless rows are allowed to be missing.
    """
    definition, seed = study.definition, study.definition.seed
    matrices = _shared_rows(study)
    labels, groups = matrices[0].labels, matrices[0].groups

    def compute() -> list[Evaluation]:
        scores = held_out_scores(
            [matrix.x for matrix in matrices],
            [model.alignment.fit.alignment for model in study.models],
            labels,
            groups,
            method=definition.direction,
            shared=definition.universal,
            seed=seed,
        )
        rows = []
        for index, member in enumerate(study.members):
            by_axis = {
                name: values[index] for name, values in vars(scores).items() if values is not None
            }
            metrics = {
                f"{name}_cross_validated": evaluate_scores(values, labels, groups, seed=seed)
                for name, values in by_axis.items()
            }
            metrics["native_minus_universal_cross_validated"] = evaluate_difference(
                by_axis["native"], by_axis["universal"], labels, groups, seed=seed
            )
            rows += Evaluation.of_scorers(
                metrics,
                member=member,
                prompt_set=definition.prompts,
                labels=labels,
                # A layer that was chosen on these prompts has seen them after all.
                is_in_sample=bool(member.layers),
            )
        return rows

    inputs = [
        [member.location for member in study.members],
        [model.alignment.alignment_id for model in study.models],
        definition.prompts,
        [matrix.grouped_hash for matrix in matrices],
        [definition.direction, definition.universal],
        seed,
    ]
    return steps.compute("held out", inputs, compute, prompt_set=definition.prompts)


@dataclass(frozen=True)
class HeldOutScores:
    """One row a model: out-of-fold scores on its direction and on the shared axes.

    `leave_one_out` is None in a group of one model.
    """

    native: Float[np.ndarray, "model row"]
    universal: Float[np.ndarray, "model row"]
    leave_one_out: Float[np.ndarray, "model row"] | None


def held_out_scores(
    matrices: Sequence[Rows],
    alignments: Sequence[Alignment],
    labels: Labels,
    groups: Groups,
    *,
    method: str = "mean_diff",
    shared: str = "svd",
    seed: int = 0,
) -> HeldOutScores:
    """Out-of-fold projections of every model's rows, five folds of whole groups.

    `method` is that of the directions, `shared` that of the axis made of them. All matrices hold
    the same prompts in the same order. Each fold is projected about the middle of its training
    classes, so that folds compare.
    """
    folds = grouped_folds(labels, groups, seed=seed)
    scores = np.zeros((3, len(matrices), len(labels)))  # native, universal and leave one out
    for fold in np.unique(folds):
        seen = folds != fold
        natives = [fit_direction(method, x, labels, groups, seen).vector for x in matrices]
        aligned = np.stack(
            [
                unit(alignment.map(native)).vector
                for alignment, native in zip(alignments, natives, strict=True)
            ]
        )
        axis = universal_axis(aligned, shared).vector
        for index, (x, alignment) in enumerate(zip(matrices, alignments, strict=True)):
            projected = [project(x, natives[index]), alignment.project(x, axis)]
            if len(matrices) > 1:
                others = universal_axis(np.delete(aligned, index, axis=0), shared).vector
                projected.append(alignment.project(x, others))
            for kind, along in enumerate(projected):
                middle = (along[labels & seen].mean() + along[~labels & seen].mean()) / 2
                scores[kind, index, ~seen] = along[~seen] - middle
    return HeldOutScores(scores[0], scores[1], scores[2] if len(matrices) > 1 else None)
