"""Figures of a study's shared axis: what each model puts in, its nulls, and how firm it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.definition import Fitted, Member, StudyDefinition
from analysis.scores import Estimate, spread
from analysis.universal import singular_value_gap, universal_axis
from analysis.universal_nulls import (
    Mapped,
    bootstrap_angles,
    random_singular_values,
    shuffled_singular_values,
)

# Draws of a null or resamples; the methods that are fitted anew each time take fewer.
_DRAWS, _DRAWS_OF_SLOW = 200, 40


def draw_count(direction: str) -> int:
    """How many shufflings or resamples a direction's nulls rest on."""
    return _DRAWS if direction in ("mean_diff", "whitened") else _DRAWS_OF_SLOW


def model_weights(definition: StudyDefinition, fitted: Sequence[Fitted]) -> np.ndarray:
    """What each model's aligned direction counts for in the universal axis."""
    aligned = np.stack([own.aligned.vector for own in fitted])
    return universal_axis(aligned, definition.universal).weights


def shared_figures(
    definition: StudyDefinition,
    members: Sequence[Member],
    fitted: Sequence[Fitted],
    axis: np.ndarray,
) -> list[tuple[str, str, int | None, Estimate]]:
    """Rows of scorer, metric, component and estimate, of two models and more.

    The gap of the singular values with its p-value under shuffled labels, the singular values and
    gaps of random and of shuffled directions (means with the 5th and 95th percentile), and the
    angle in degrees between the axis and that of resampled prompts (median, 95 % of them).
    """
    models, labels, groups = shared_rows(definition, members, fitted)
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


def shared_rows(
    definition: StudyDefinition, members: Sequence[Member], fitted: Sequence[Fitted]
) -> tuple[list[Mapped], np.ndarray, np.ndarray]:
    """Every model's rows of the prompts that all models have, with their labels and groups."""
    matrices = [member.labelled[definition.prompts] for member in members]
    shared = set(matrices[0].prompt_ids).intersection(*(each.prompt_ids for each in matrices))
    if any(len(each.prompt_ids) > len(shared) for each in matrices):
        matrices = [
            each.take(np.array([row for row, name in enumerate(each.prompt_ids) if name in shared]))
            for each in matrices
        ]
    models = [
        Mapped(matrix.x, own.alignment.fit.alignment)
        for matrix, own in zip(matrices, fitted, strict=True)
    ]
    return models, matrices[0].labels, matrices[0].groups
