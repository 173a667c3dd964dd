"""Judge what a study fitted: every figure as a row of `evaluations`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from analysis.baselines import (
    bag_of_words_scores,
    bag_of_words_transfer,
    prompt_lengths,
)
from analysis.blocks import project
from analysis.definition import Fitted, Member, StudyDefinition
from analysis.fitting import projected
from analysis.matrices import Matrix
from analysis.nulls import cross_validated_scores, shuffled_labels
from analysis.records import Axis
from analysis.scores import Estimate, auroc_interval
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
    reference = fitted[definition.models.index(definition.reference)].aligned
    found = [
        _row("universal", "singular_value", Estimate(float(value)), component=index, axis=axis)
        for index, value in enumerate(singular_values)
    ]
    found += _baseline_rows(definition, members[0], steps)
    for member, own in zip(members, fitted, strict=True):
        found += _coverage_rows(definition, member)
        found += _alignment_rows(member, own, axis, reference)
        for prompt_set, matrix in member.labelled.items():
            found += _auroc_rows(definition, member, own, axis, prompt_set, matrix, steps)
        found += _held_out_rows(definition, member, steps)
    return found


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
        _row("coverage", metric, Estimate(float(count)), member=member, prompt_set=prompt_set)
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
        "alignment_rows": float(len(member.benign.prompt_ids)),
    }
    return [
        _row("aligned", metric, Estimate(value), member=member, axis=own.aligned)
        for metric, value in figures.items()
        if value is not None
    ]


def _auroc_rows(
    definition: StudyDefinition,
    member: Member,
    own: Fitted,
    universal: Axis,
    prompt_set: str,
    matrix: Matrix,
    steps: Steps,
) -> Figures:
    fitted_on = set(member.labelled[definition.prompts].prompt_ids)
    is_in_sample = not fitted_on.isdisjoint(matrix.prompt_ids)
    axes = {"native": own.native, "universal": universal}
    if own.leave_one_out is not None:
        axes["leave_one_out"] = own.leave_one_out

    def compute() -> Figures:
        scored = {
            scorer: project(matrix.x, axis.vector)
            if scorer == "native"
            else projected(matrix, own, axis)
            for scorer, axis in axes.items()
        }
        return [
            _row(
                scorer,
                "auroc",
                auroc_interval(scores, matrix.labels),
                member=member,
                prompt_set=prompt_set,
                labels=matrix.labels,
                axis=axes[scorer],
                is_in_sample=is_in_sample,
            )
            for scorer, scores in scored.items()
        ]

    inputs = [
        _place(member),
        [axis.axis_id for axis in axes.values()],
        own.alignment.alignment_id,
        prompt_set,
        matrix.grouped_hash,
        is_in_sample,
    ]
    return steps.figures("auroc", inputs, compute, member=member, prompt_set=prompt_set)


def _held_out_rows(definition: StudyDefinition, member: Member, steps: Steps) -> Figures:
    """The native direction on prompts it was not fitted on, and its null."""
    prompt_set, seed = definition.prompts, definition.seed
    matrix = member.labelled[prompt_set]

    def compute() -> Figures:
        labels = matrix.labels
        held_out = cross_validated_scores(matrix.x, labels, matrix.groups, seed=seed)
        null = shuffled_labels(matrix.x, labels, matrix.groups, seed=seed)
        figures = {
            "native_cross_validated": auroc_interval(held_out, labels),
            "shuffled_labels": _spread(null.in_sample),
            "shuffled_labels_cross_validated": _spread(null.held_out),
        }
        return [
            _row(
                scorer,
                "auroc",
                estimate,
                member=member,
                prompt_set=prompt_set,
                labels=labels,
                is_in_sample=scorer == "shuffled_labels",
            )
            for scorer, estimate in figures.items()
        ]

    inputs = [_place(member), prompt_set, matrix.grouped_hash, seed]
    return steps.figures("null", inputs, compute, member=member, prompt_set=prompt_set)


def _place(member: Member) -> list[Any]:
    """What picks the member's activations."""
    return [*member.space.key, member.space.layer]


def _spread(null: np.ndarray) -> Estimate:
    """The mean of a null, with its 5th and 95th percentile for an interval."""
    return Estimate(float(null.mean()), *map(float, np.quantile(null, [0.05, 0.95])))


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
    return [
        _row(
            scorer,
            "auroc",
            auroc_interval(scores, matrix.labels),
            prompt_set=prompt_set,
            labels=matrix.labels,
            is_in_sample=False,
        )
        for scorer, scores in {
            "bag_of_words": words,
            "prompt_length": prompt_lengths(texts),
        }.items()
    ]


def _row(
    scorer: str,
    metric: str,
    estimate: Estimate,
    *,
    member: Member | None = None,
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
