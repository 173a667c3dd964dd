"""Judge what a study fitted: every figure as a row of `evaluations`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
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
from analysis.scores import Estimate, auroc_interval, spread


def evaluate(
    definition: StudyDefinition,
    members: Sequence[Member],
    fitted: Sequence[Fitted],
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
        found += _coverage_rows(definition, member)
        found += _alignment_rows(member, own, axis, reference)
        for prompt_set, matrix in member.labelled.items():
            found += _auroc_rows(definition, member, own, axis, prompt_set, matrix)
    return found


def _coverage_rows(definition: StudyDefinition, member: Member) -> list[dict[str, Any]]:
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


def _alignment_rows(
    member: Member, own: Fitted, universal: Axis, reference: Axis
) -> list[dict[str, Any]]:
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
        _row("aligned", metric, Estimate(value), member=member, axis=own.aligned)
        for metric, value in figures.items()
        if value is not None
    ]
    if fit.r2_shuffled is not None:
        found.append(
            _row("aligned", "r2_shuffled", fit.r2_shuffled, member=member, axis=own.aligned)
        )
    return found


def _auroc_rows(
    definition: StudyDefinition,
    member: Member,
    own: Fitted,
    universal: Axis,
    prompt_set: str,
    matrix: Matrix,
) -> list[dict[str, Any]]:
    labels, seed = matrix.labels, definition.seed
    fitted_on = set(member.labelled[definition.prompts].prompt_ids)
    is_in_sample = not fitted_on.isdisjoint(matrix.prompt_ids)
    scored = {
        "native": (own.native, project(matrix.x, own.native.vector)),
        "universal": (universal, projected(matrix, own, universal)),
    }
    if own.leave_one_out is not None:
        scored["leave_one_out"] = (own.leave_one_out, projected(matrix, own, own.leave_one_out))
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
    if prompt_set == definition.prompts:
        held_out = cross_validated_scores(matrix.x, labels, matrix.groups, seed=seed)
        null = shuffled_labels(matrix.x, labels, matrix.groups, seed=seed)
        found += [
            _row(
                "native_cross_validated",
                "auroc",
                auroc_interval(held_out, labels),
                is_in_sample=False,
                **where,
            ),
            _row("shuffled_labels", "auroc", spread(null.in_sample), is_in_sample=True, **where),
            _row(
                "shuffled_labels_cross_validated",
                "auroc",
                spread(null.held_out),
                is_in_sample=False,
                **where,
            ),
        ]
    return found


def _baseline_rows(definition: StudyDefinition, member: Member) -> list[dict[str, Any]]:
    """What the prompts alone give away; the same for every model."""
    fitted_on = member.labelled[definition.prompts]
    found = []
    for prompt_set, matrix in member.labelled.items():
        texts = matrix.texts.to_pylist()
        if prompt_set == definition.prompts:
            words = bag_of_words_scores(texts, matrix.labels, matrix.groups, seed=definition.seed)
        else:
            words = bag_of_words_transfer(fitted_on.texts.to_pylist(), fitted_on.labels, texts)
        scored = {"bag_of_words": words, "prompt_length": prompt_lengths(texts)}
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
