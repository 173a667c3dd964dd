"""Figures of a study's shared axis: what each model puts in, its nulls, and how firm it is.

Figures of one model's own direction: its null, its choice of layer, and its erasure.

The universal axis on prompts that no direction behind it was fitted on.

A universal axis is made of directions, and each of them was fitted on the labelled prompts: judged
on those it is in sample, whichever model is left out. Here the whole chain from the labels on
(directions, carrying over, decomposition) is made anew without each fold, and the fold is judged on
the axis made without it. Alignments are fitted on other prompts, without labels, and stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.activations import Matrix, project
from axes.analysis.methods.affine_map import Alignment
from axes.analysis.methods.directions import fit_direction, unit
from axes.analysis.methods.erasure import can_judge_erasure, erasure_scores
from axes.analysis.methods.layer_selection import select_layers
from axes.analysis.methods.nulls import (
    Mapped,
    bootstrap_angles,
    draw_count,
    random_singular_values,
    shuffled_labels,
    shuffled_singular_values,
)
from axes.analysis.methods.universal import singular_value_gap, universal_axis
from axes.analysis.registry import Axis
from axes.analysis.stats.auroc import Estimate, auroc_interval, spread
from axes.analysis.stats.evaluate import judge
from axes.analysis.stats.splits import grouped_folds
from axes.analysis.study.definition import Fitted, Member, StudyDefinition
from axes.analysis.study.figures import Figures, Steps, figure_row, figure_rows
from axes.warehouse.layers import Rows


def universal_rows(
    definition: StudyDefinition,
    members: Sequence[Member],
    fitted: Sequence[Fitted],
    axis: Axis,
    steps: Steps,
) -> Figures:
    """What each model puts into the universal axis, its nulls and its stability."""
    aligned = np.stack([own.aligned.vector for own in fitted])
    weights = universal_axis(aligned, definition.universal).weights
    found = [
        figure_row("aligned", "universal_weight", Estimate(float(weight)), member=member, axis=axis)
        for member, weight in zip(members, weights, strict=True)
    ]
    if len(members) < 2:
        return found
    matrices = shared_rows([member.labelled[definition.prompts] for member in members])

    def compute() -> Figures:
        return [
            figure_row(
                scorer,
                metric,
                estimate,
                component=component,
                axis=axis if scorer == "universal" else None,
            )
            for scorer, metric, component, estimate in _shared_figures(
                definition, matrices, fitted, axis.vector
            )
        ]

    inputs = [
        axis.axis_id,
        [own.alignment.alignment_id for own in fitted],
        [member.place for member in members],
        [matrix.grouped_hash for matrix in matrices],
        [definition.direction, definition.universal, definition.seed],
    ]
    return found + steps.figures("shared", inputs, compute)


def shared_rows(matrices: Sequence[Matrix]) -> list[Matrix]:
    """The matrices on the prompts that all of them hold, in the order of the first."""
    if all(matrix.prompt_ids == matrices[0].prompt_ids for matrix in matrices):
        return list(matrices)
    shared = set.intersection(*(set(matrix.prompt_ids) for matrix in matrices))
    order = [prompt_id for prompt_id in matrices[0].prompt_ids if prompt_id in shared]
    places = [
        {prompt_id: index for index, prompt_id in enumerate(matrix.prompt_ids)}
        for matrix in matrices
    ]
    return [
        matrix.take(np.array([place[prompt_id] for prompt_id in order]))
        for matrix, place in zip(matrices, places, strict=True)
    ]


def _shared_figures(
    definition: StudyDefinition,
    matrices: Sequence[Matrix],
    fitted: Sequence[Fitted],
    axis: np.ndarray,
) -> list[tuple[str, str, int | None, Estimate]]:
    """Rows of scorer, metric, component and estimate, of two models and more.

    `matrices` hold the same labelled prompts in the same order, one for each model.

    The gap of the singular values with its p-value under shuffled labels, the singular values and
    gaps of random and of shuffled directions (means with the 5th and 95th percentile), and the
    angle in degrees between the axis and that of resampled prompts (median, 95 % of them).
    """
    models = [
        Mapped(matrix.x, own.alignment.fit.alignment)
        for matrix, own in zip(matrices, fitted, strict=True)
    ]
    labels, groups = matrices[0].labels, matrices[0].groups
    method, count, seed = definition.direction, draw_count(definition.direction), definition.seed
    aligned = np.stack([own.aligned.vector for own in fitted])
    gap = float(singular_value_gap(np.linalg.svd(aligned, compute_uv=False)))
    nulls = {
        "random_direction": random_singular_values(models, count=count, seed=seed),
        "shuffled_labels": shuffled_singular_values(
            models, labels, groups, method=method, count=count, seed=seed
        ),
    }
    found: list[tuple[str, str, int | None, Estimate]] = []
    for scorer, values in nulls.items():
        found += [
            (scorer, "singular_value", component, spread(drawn))
            for component, drawn in enumerate(values.T)
        ]
        found.append((scorer, "singular_value_gap", None, spread(singular_value_gap(values))))
    as_wide = int((singular_value_gap(nulls["shuffled_labels"]) >= gap).sum())
    p_value = (1 + as_wide) / (1 + count)
    found.append(("universal", "singular_value_gap", None, Estimate(gap, p_value=p_value)))
    angles = bootstrap_angles(
        models,
        labels,
        groups,
        axis,
        method=method,
        shared=definition.universal,
        count=count,
        seed=seed,
    )
    middle, low, high = map(float, np.quantile(angles, [0.5, 0.025, 0.975]))
    found.append(("universal", "bootstrap_angle", None, Estimate(middle, low, high)))
    return found


def shuffled_label_rows(definition: StudyDefinition, member: Member, steps: Steps) -> Figures:
    """The native direction refitted on shuffled labels, in sample and out of fold."""
    prompt_set, seed, method = definition.prompts, definition.seed, definition.direction
    matrix = member.labelled[prompt_set]

    def compute() -> Figures:
        null = shuffled_labels(
            matrix.x,
            matrix.labels,
            matrix.groups,
            method=method,
            count=draw_count(method),
            seed=seed,
        )
        where: dict[str, Any] = {
            "member": member,
            "prompt_set": prompt_set,
            "labels": matrix.labels,
        }
        in_sample = {"shuffled_labels": {"auroc": spread(null.in_sample)}}
        held_out = {"shuffled_labels_cross_validated": {"auroc": spread(null.held_out)}}
        return [
            *figure_rows(in_sample, is_in_sample=True, **where),
            *figure_rows(held_out, is_in_sample=False, **where),
        ]

    inputs = [member.place, prompt_set, matrix.grouped_hash, method, seed]
    return steps.figures("shuffled labels", inputs, compute, member=member, prompt_set=prompt_set)


def nested_rows(definition: StudyDefinition, member: Member, steps: Steps) -> Figures:
    """The native direction where the choice of its layer has not seen a row either."""
    if not member.layers:
        return []
    prompt_set, seed, method = definition.prompts, definition.seed, definition.direction
    matrix = member.labelled[prompt_set]

    def compute() -> Figures:
        layers = (layer.read() for layer in member.layers)
        found = select_layers(layers, matrix.labels, matrix.groups, method=method, seed=seed)
        return figure_rows(
            {"native_nested": judge(found.nested, matrix.labels, matrix.groups, seed=seed)},
            member=member,
            prompt_set=prompt_set,
            labels=matrix.labels,
            is_in_sample=False,
        )

    inputs = [member.place, prompt_set, matrix.grouped_hash, method, seed]
    return steps.figures("nested", inputs, compute, member=member, prompt_set=prompt_set)


def erasure_rows(definition: StudyDefinition, member: Member, steps: Steps) -> Figures:
    """What a fresh linear probe finds before and after the concept is erased.

    Left out where a class lies in too few groups for the folds.
    """
    prompt_set, seed = definition.prompts, definition.seed
    matrix = member.labelled[prompt_set]
    if not can_judge_erasure(matrix.labels, matrix.groups):
        return []

    def compute() -> Figures:
        found = erasure_scores(
            matrix.x, matrix.labels, matrix.groups, method=definition.direction, seed=seed
        )
        judged = {
            f"probe_{state}": {"auroc": auroc_interval(scores, matrix.labels, groups=matrix.groups)}
            for state, scores in vars(found).items()
        }
        return figure_rows(
            judged,
            member=member,
            prompt_set=prompt_set,
            labels=matrix.labels,
            is_in_sample=False,
        )

    inputs = [member.place, prompt_set, matrix.grouped_hash, definition.direction, seed]
    return steps.figures("erasure", inputs, compute, member=member, prompt_set=prompt_set)


@dataclass(frozen=True)
class HeldOutScores:
    """One row a model: out-of-fold scores on its own direction and on the shared axes.

    `leave_one_out` is None in a group of one model.
    """

    native: Float[np.ndarray, "model row"]
    universal: Float[np.ndarray, "model row"]
    leave_one_out: Float[np.ndarray, "model row"] | None


def held_out_scores(
    matrices: Sequence[Rows],
    alignments: Sequence[Alignment],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    method: str = "mean_diff",
    shared: str = "svd",
    seed: int = 0,
) -> HeldOutScores:
    """Out-of-fold projections of every model's rows, five folds of whole groups.

    `method` is that of the directions, `shared` that of the axis made of them.

    All matrices hold the same prompts in the same order. Each fold is projected about the middle of
    its training classes, so that folds compare.
    """
    folds = grouped_folds(labels, groups, seed=seed)
    shape = (3, len(matrices), len(labels))
    scores = np.zeros(shape)
    for fold in np.unique(folds):
        seen = folds != fold
        natives = [fit_direction(method, x, labels, groups, seen).vector for x in matrices]
        aligned = np.stack(
            [
                unit(alignment.carry(native)).vector
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
