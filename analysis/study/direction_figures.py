"""Figures of one model's own direction: its null, its choice of layer, and its erasure."""

from __future__ import annotations

from typing import Any

from axes.analysis.methods.erasure import can_judge_erasure, erasure_scores
from axes.analysis.methods.layer_selection import select_layers
from axes.analysis.methods.nulls import draw_count, shuffled_labels
from axes.analysis.stats.auroc import auroc_interval, spread
from axes.analysis.stats.evaluate import judge
from axes.analysis.study.definition import Member, StudyDefinition
from axes.analysis.study.figures import figure_rows
from axes.analysis.study.steps import Figures, Steps


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
