"""Judge what a study fitted: every figure as a row of `evaluations`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from analysis.axis_evaluation import axis_rows, held_out_rows, native_rows, null_rows
from analysis.baselines import (
    bag_of_words_scores,
    bag_of_words_transfer,
    prompt_lengths,
)
from analysis.definition import Fitted, Member, StudyDefinition
from analysis.erasure import can_judge_erasure, erasure_scores
from analysis.figures import figure_row, figure_rows, place
from analysis.judging import judge
from analysis.matrices import Matrix
from analysis.multiple_testing import adjusted
from analysis.records import Axis
from analysis.scores import Estimate, auroc_interval
from analysis.shared_figures import model_weights, shared_figures
from analysis.steps import Figures, Steps


def evaluate(
    definition: StudyDefinition,
    members: Sequence[Member],
    fitted: Sequence[Fitted],
    universal: tuple[Axis, np.ndarray],
    steps: Steps,
) -> Figures:
    """Every figure of the study as a row of `evaluations`; what `steps` has is not computed."""
    axis, singular_values = universal
    at = definition.models.index(definition.reference)
    found = [
        figure_row(
            "universal", "singular_value", Estimate(float(value)), component=index, axis=axis
        )
        for index, value in enumerate(singular_values)
    ]
    found += _shared_rows(definition, members, fitted, axis, steps)
    found += _baseline_rows(definition, members[0], steps)
    for member, own in zip(members, fitted, strict=True):
        found += _coverage_rows(definition, member)
        found += _alignment_rows(member, own, axis, fitted[at].aligned)
        for prompt_set in member.labelled:
            found += axis_rows(definition, member, own, axis, prompt_set, steps)
            found += null_rows(definition, member, members[at], own, axis, prompt_set, steps)
        found += native_rows(definition, member, steps)
        found += _erasure_rows(definition, member, steps)
    found += held_out_rows(definition, members, fitted, steps)
    return _corrected(found)


def _corrected(found: Figures) -> Figures:
    """The p-values of one metric of the study adjusted together (Holm)."""
    p_values = np.array([math.nan if row["p_value"] is None else row["p_value"] for row in found])
    metrics = np.array([row["metric"] for row in found])
    for metric in set(metrics[~np.isnan(p_values)]):
        at = np.flatnonzero((metrics == metric) & ~np.isnan(p_values))
        for index, value in zip(at, adjusted(p_values[at]), strict=True):
            found[index] = {**found[index], "p_value_adjusted": float(value)}
    return found


def _shared_rows(
    definition: StudyDefinition,
    members: Sequence[Member],
    fitted: Sequence[Fitted],
    axis: Axis,
    steps: Steps,
) -> Figures:
    """What each model puts into the universal axis, its nulls and its stability."""
    weights = model_weights(definition, fitted)
    found = [
        figure_row("aligned", "universal_weight", Estimate(float(weight)), member=member, axis=axis)
        for member, weight in zip(members, weights, strict=True)
    ]
    if len(members) < 2:
        return found

    def compute() -> Figures:
        return [
            figure_row(
                scorer,
                metric,
                estimate,
                component=component,
                axis=axis if scorer == "universal" else None,
            )
            for scorer, metric, component, estimate in shared_figures(
                definition, members, fitted, axis.vector
            )
        ]

    inputs = [
        axis.axis_id,
        [own.alignment.alignment_id for own in fitted],
        [place(member) for member in members],
        [member.labelled[definition.prompts].grouped_hash for member in members],
        [definition.direction, definition.universal, definition.seed],
    ]
    return found + steps.figures("shared", inputs, compute)


def _erasure_rows(definition: StudyDefinition, member: Member, steps: Steps) -> Figures:
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
            judged, member=member, prompt_set=prompt_set, labels=matrix.labels, is_in_sample=False
        )

    inputs = [place(member), prompt_set, matrix.grouped_hash, definition.direction, seed]
    return steps.figures("erasure", inputs, compute, member=member, prompt_set=prompt_set)


def _coverage_rows(definition: StudyDefinition, member: Member) -> Figures:
    """Rows that figures go without, where that was allowed, and rows used twice.

    A prompt that the alignment is fitted on and that is judged too is no test of the alignment.
    """
    matrices = {**member.labelled, definition.align: member.benign}
    counts = {
        (prompt_set, "missing_count"): matrix.missing_count
        for prompt_set, matrix in matrices.items()
    }
    aligned_on = set(member.benign.prompt_ids)
    for prompt_set, matrix in member.labelled.items():
        counts[prompt_set, "alignment_overlap"] = len(aligned_on.intersection(matrix.prompt_ids))
    return [
        figure_row("coverage", metric, Estimate(float(count)), member=member, prompt_set=prompt_set)
        for (prompt_set, metric), count in counts.items()
        if count
    ]


def _alignment_rows(member: Member, own: Fitted, universal: Axis, reference: Axis) -> Figures:
    fit = own.alignment.fit
    figures = {
        "cosine_universal": float(own.aligned.vector @ universal.vector),
        "cosine_reference": float(own.aligned.vector @ reference.vector),
        "r2_held_out": fit.r2_held_out,
        "r2_uniform": fit.r2_uniform,
        "ridge_lambda": fit.alignment.ridge_lambda,
        "effective_rank": fit.alignment.effective_rank,
        "rank": fit.rank,
        "alignment_rows": float(len(member.benign.prompt_ids)),
    }
    found = [
        figure_row("aligned", metric, Estimate(value), member=member, axis=own.aligned)
        for metric, value in figures.items()
        if value is not None
    ]
    if fit.r2_shuffled is not None:
        found.append(
            figure_row("aligned", "r2_shuffled", fit.r2_shuffled, member=member, axis=own.aligned)
        )
    return found


def _baseline_rows(definition: StudyDefinition, member: Member, steps: Steps) -> Figures:
    """What the prompts alone give away; the same for every model."""
    fitted_on = member.labelled[definition.prompts]
    found = []
    for prompt_set, matrix in member.labelled.items():
        compute = partial(_baselines, fitted_on, matrix, prompt_set, definition.seed)
        inputs = [fitted_on.grouped_hash, prompt_set, matrix.grouped_hash, definition.seed]
        found += steps.figures("baselines", inputs, compute, prompt_set=prompt_set)
    return found


def _baselines(fitted_on: Matrix, matrix: Matrix, prompt_set: str, seed: int) -> Figures:
    texts = matrix.texts.to_pylist()
    if matrix is fitted_on:
        words = bag_of_words_scores(texts, matrix.labels, matrix.groups, seed=seed)
    else:
        words = bag_of_words_transfer(fitted_on.texts.to_pylist(), fitted_on.labels, texts)
    scored = {"bag_of_words": words, "prompt_length": prompt_lengths(texts)}
    judged = {
        scorer: judge(scores, matrix.labels, matrix.groups, seed=seed)
        for scorer, scores in scored.items()
    }
    return figure_rows(judged, prompt_set=prompt_set, labels=matrix.labels, is_in_sample=False)
