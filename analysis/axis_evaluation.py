"""How a study's axes do on labelled prompts: in sample, out of fold, beside what knows nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.blocks import project
from analysis.definition import Fitted, Member, StudyDefinition
from analysis.figures import figure_rows, place
from analysis.fitting import paired, projected
from analysis.held_out_axes import held_out_scores
from analysis.judging import judge, judge_difference
from analysis.layer_selection import select_layers
from analysis.nulls import (
    cross_validated_scores,
    random_directions,
    shuffled_alignments,
    shuffled_labels,
)
from analysis.records import Axis
from analysis.scores import spread
from analysis.shared_figures import draw_count, shared_rows
from analysis.steps import Figures, Steps


def axis_rows(
    definition: StudyDefinition,
    member: Member,
    own: Fitted,
    universal: Axis,
    prompt_set: str,
    steps: Steps,
) -> Figures:
    """Native, universal and leave-one-out on a set, and native against universal on its rows."""
    matrix = member.labelled[prompt_set]
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
        place(member),
        [axis.axis_id for axis in axes.values()],
        own.alignment.alignment_id,
        prompt_set,
        matrix.grouped_hash,
        is_in_sample,
        definition.seed,
    ]
    return steps.figures("auroc", inputs, compute, member=member, prompt_set=prompt_set)


def null_rows(
    definition: StudyDefinition,
    member: Member,
    reference: Member,
    own: Fitted,
    universal: Axis,
    prompt_set: str,
    steps: Steps,
) -> Figures:
    """Axes that know nothing: random directions, alignments of shuffled rows, no alignment.

    Shuffled rows are of ridge alignments. The last, the universal axis on activations as they are,
    exists where widths are equal.
    """
    matrix, alignment = member.labelled[prompt_set], own.alignment.fit.alignment
    is_as_wide = member is not reference and member.space.d_model == len(universal.vector)

    def compute() -> Figures:
        labels, seed = matrix.labels, definition.seed
        null = random_directions(matrix.x, labels, seed=seed)
        nulls = {"random_direction": {"auroc": spread(null)}}
        if definition.alignment == "ridge" and alignment.ridge_lambda is not None:
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
        place(member),
        universal.axis_id,
        own.alignment.alignment_id,
        prompt_set,
        matrix.grouped_hash,
        definition.seed,
    ]
    return steps.figures("null axes", inputs, compute, member=member, prompt_set=prompt_set)


def native_rows(definition: StudyDefinition, member: Member, steps: Steps) -> Figures:
    """The native direction on prompts it was not fitted on, and refitted on shuffled labels."""
    prompt_set, seed, method = definition.prompts, definition.seed, definition.direction
    matrix = member.labelled[prompt_set]

    def compute() -> Figures:
        labels, groups = matrix.labels, matrix.groups
        null = shuffled_labels(
            matrix.x, labels, groups, method=method, count=draw_count(method), seed=seed
        )
        scores = _out_of_fold_scores(definition, member)
        where: dict[str, Any] = {"member": member, "prompt_set": prompt_set, "labels": labels}
        in_sample = {"shuffled_labels": {"auroc": spread(null.in_sample)}}
        held_out = {
            "native_cross_validated": judge(scores, labels, groups, seed=seed),
            "shuffled_labels_cross_validated": {"auroc": spread(null.held_out)},
        }
        return [
            *figure_rows(in_sample, is_in_sample=True, **where),
            *figure_rows(held_out, is_in_sample=False, **where),
        ]

    inputs = [
        place(member),
        prompt_set,
        matrix.grouped_hash,
        method,
        definition.layer_policy,
        seed,
    ]
    return steps.figures("null", inputs, compute, member=member, prompt_set=prompt_set)


def _out_of_fold_scores(definition: StudyDefinition, member: Member) -> np.ndarray:
    """Scores by directions that have not seen a row's fold; nor has the choice of their layer."""
    matrix, method, seed = (
        member.labelled[definition.prompts],
        definition.direction,
        definition.seed,
    )
    if definition.layer_policy == "fraction":
        return cross_validated_scores(
            matrix.x, matrix.labels, matrix.groups, method=method, seed=seed
        )
    layers = (layer.read() for layer in member.layers)
    return select_layers(layers, matrix.labels, matrix.groups, method=method, seed=seed).nested


def held_out_rows(
    definition: StudyDefinition,
    members: Sequence[Member],
    fitted: Sequence[Fitted],
    steps: Steps,
) -> Figures:
    """The shared axes on prompts that no direction behind them was fitted on, beside native ones.

    On the prompts that all models have. Where layers were chosen on these prompts the figures are
    in sample after all, and say so.
    """
    prompt_set, seed = definition.prompts, definition.seed

    def compute() -> Figures:
        models, labels, groups = shared_rows(definition, members, fitted)
        scores = held_out_scores(
            models,
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
                is_in_sample=definition.layer_policy != "fraction",
            )
        return found

    inputs = [
        [place(member) for member in members],
        [own.alignment.alignment_id for own in fitted],
        prompt_set,
        [member.labelled[prompt_set].grouped_hash for member in members],
        [definition.direction, definition.universal, definition.layer_policy, seed],
    ]
    return steps.figures("held out", inputs, compute, prompt_set=prompt_set)
