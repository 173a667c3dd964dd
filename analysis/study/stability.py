"""Figures of a study's shared axis: what each model puts in, its nulls, and how firm it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from axes.analysis.activations import Matrix
from axes.analysis.methods.nulls import draw_count
from axes.analysis.methods.universal import singular_value_gap, universal_axis
from axes.analysis.methods.universal_nulls import (
    Mapped,
    bootstrap_angles,
    random_singular_values,
    shuffled_singular_values,
)
from axes.analysis.registry import Axis
from axes.analysis.stats.auroc import Estimate, spread
from axes.analysis.study.definition import Fitted, Member, StudyDefinition
from axes.analysis.study.figures import figure_row
from axes.analysis.study.steps import Figures, Steps


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
