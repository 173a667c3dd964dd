"""Judge what a study fitted: every figure as a row of `evaluations`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from axes.analysis.activations import Matrix, project
from axes.analysis.methods.nulls import random_directions, shuffled_alignments
from axes.analysis.registry import Axis
from axes.analysis.stats.auroc import Estimate, spread
from axes.analysis.stats.baselines import bag_of_words_scores, bag_of_words_transfer, prompt_lengths
from axes.analysis.stats.evaluate import judge, judge_difference
from axes.analysis.stats.multiple_testing import adjusted
from axes.analysis.study.definition import Fitted, Member, StudyDefinition
from axes.analysis.study.figures import Figures, Steps, figure_row, figure_rows
from axes.analysis.study.fit import paired, projected
from axes.analysis.study.stability import (
    erasure_rows,
    held_out_scores,
    nested_rows,
    shared_rows,
    shuffled_label_rows,
    universal_rows,
)


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
    reference = fitted[at].aligned
    found = [
        figure_row(
            "universal", "singular_value", Estimate(float(value)), component=index, axis=axis
        )
        for index, value in enumerate(singular_values)
    ]
    found += universal_rows(definition, members, fitted, axis, steps)
    found += _baseline_rows(definition, members[0], steps)
    for member, own in zip(members, fitted, strict=True):
        found += _coverage_rows(definition, member)
        found += _alignment_rows(member, own, axis, reference)
        for prompt_set, matrix in member.labelled.items():
            found += _auroc_rows(definition, member, own, axis, prompt_set, matrix, steps)
            found += _null_rows(definition, member, members[at], own, axis, prompt_set, steps)
        found += shuffled_label_rows(definition, member, steps)
        found += erasure_rows(definition, member, steps)
        found += nested_rows(definition, member, steps)
    found += _held_out_rows(definition, members, fitted, steps)
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
    estimates = {metric: Estimate(value) for metric, value in figures.items() if value is not None}
    if fit.r2_shuffled is not None:
        estimates["r2_shuffled"] = fit.r2_shuffled
    return figure_rows({"aligned": estimates}, axes={"aligned": own.aligned}, member=member)


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
        labels, groups, seed = matrix.labels, matrix.groups, definition.seed
        judged = {
            scorer: judge(scores, labels, groups, seed=seed) for scorer, scores in scored.items()
        }
        judged["native_minus_universal"] = judge_difference(
            scored["native"], scored["universal"], labels, groups, seed=seed
        )
        return figure_rows(
            judged,
            axes=axes,
            member=member,
            prompt_set=prompt_set,
            labels=labels,
            is_in_sample=is_in_sample,
        )

    inputs = [
        member.place,
        [axis.axis_id for axis in axes.values()],
        own.alignment.alignment_id,
        prompt_set,
        matrix.grouped_hash,
        is_in_sample,
        definition.seed,
    ]
    return steps.figures("auroc", inputs, compute, member=member, prompt_set=prompt_set)


def _null_rows(
    definition: StudyDefinition,
    member: Member,
    reference: Member,
    own: Fitted,
    universal: Axis,
    prompt_set: str,
    steps: Steps,
) -> Figures:
    """Axes that know nothing: random directions, alignments of shuffled rows, no alignment.

    The last, the universal axis on activations as they are, exists where widths are equal.
    """
    matrix, alignment = member.labelled[prompt_set], own.alignment.fit.alignment
    is_mapped = own.alignment.fit.method != "identity"
    is_as_wide = is_mapped and member.space.d_model == len(universal.vector)

    def compute() -> Figures:
        labels, seed = matrix.labels, definition.seed
        null = random_directions(matrix.x, labels, seed=seed)
        nulls = {"random_direction": {"auroc": spread(null)}}
        if own.alignment.fit.method == "ridge" and alignment.ridge_lambda is not None:
            mine, theirs = paired(member.benign, reference.benign)
            null = shuffled_alignments(
                mine.x,
                theirs.x,
                universal.vector,
                alignment.ridge_lambda,
                matrix.x,
                labels,
                seed=seed,
            )
            nulls["shuffled_alignment"] = {"auroc": spread(null)}
        if is_as_wide:
            scores = project(matrix.x, universal.vector)
            nulls["universal_unaligned"] = judge(scores, labels, matrix.groups, seed=seed)
        return figure_rows(
            nulls, member=member, prompt_set=prompt_set, labels=labels, is_in_sample=False
        )

    inputs = [
        member.place,
        universal.axis_id,
        own.alignment.alignment_id,
        prompt_set,
        matrix.grouped_hash,
        definition.seed,
    ]
    return steps.figures("null axes", inputs, compute, member=member, prompt_set=prompt_set)


def _held_out_rows(
    definition: StudyDefinition,
    members: Sequence[Member],
    fitted: Sequence[Fitted],
    steps: Steps,
) -> Figures:
    """Every model's own and the shared axes on prompts that no direction was fitted on.

    On the prompts that all models have, which are all unless rows are allowed to be missing.
    """
    prompt_set, seed = definition.prompts, definition.seed
    matrices = shared_rows([member.labelled[prompt_set] for member in members])
    labels, groups = matrices[0].labels, matrices[0].groups

    def compute() -> Figures:
        scores = held_out_scores(
            [matrix.x for matrix in matrices],
            [own.alignment.fit.alignment for own in fitted],
            labels,
            groups,
            method=definition.direction,
            shared=definition.universal,
            seed=seed,
        )
        found = []
        for index, member in enumerate(members):
            native, universal = scores.native[index], scores.universal[index]
            judged = {
                "native_cross_validated": judge(native, labels, groups, seed=seed),
                "universal_cross_validated": judge(universal, labels, groups, seed=seed),
                "native_minus_universal_cross_validated": judge_difference(
                    native, universal, labels, groups, seed=seed
                ),
            }
            if scores.leave_one_out is not None:
                judged["leave_one_out_cross_validated"] = judge(
                    scores.leave_one_out[index], labels, groups, seed=seed
                )
            found += figure_rows(
                judged,
                member=member,
                prompt_set=prompt_set,
                labels=labels,
                # A layer that was chosen on these prompts has seen them after all.
                is_in_sample=bool(member.layers),
            )
        return found

    inputs = [
        [member.place for member in members],
        [own.alignment.alignment_id for own in fitted],
        prompt_set,
        [matrix.grouped_hash for matrix in matrices],
        [definition.direction, definition.universal],
        seed,
    ]
    return steps.figures("held out", inputs, compute, prompt_set=prompt_set)


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
