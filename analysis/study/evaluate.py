"""Evaluate what a study fitted: every metric as a row of `evaluations`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial

import numpy as np

from axes.analysis.activations import Matrix, project, row_norms
from axes.analysis.methods.directions import cosine
from axes.analysis.methods.nulls import random_directions, shuffled_alignments
from axes.analysis.stats.auroc import Estimate, Scores, null_interval
from axes.analysis.stats.baselines import (
    TEXT_BASELINES,
    baseline_fitter,
    model_kernels,
    text_kernels,
)
from axes.analysis.stats.evaluate import evaluate_scores
from axes.analysis.stats.neighbours import mutual_knn
from axes.analysis.stats.splits import has_near_duplicate
from axes.analysis.study.evaluations import Evaluation, Steps, corrected
from axes.analysis.study.fit import FittedModel, FittedStudy, Member, paired
from axes.analysis.study.robustness.shifts import paraphrases, shift_rows
from axes.analysis.study.robustness.stability import (
    direction_rows,
    held_out_rows,
    refitter,
    shared_axis_rows,
)


def evaluate(study: FittedStudy, steps: Steps) -> list[Evaluation]:
    """Every metric of the study; steps that are stored are not computed."""
    rows = [
        Evaluation.of(
            "universal",
            "singular_value",
            Estimate(float(value)),
            component=index,
            axis=study.universal,
        )
        for index, value in enumerate(study.singular_values)
    ]
    # Paraphrases of the prompts that directions are fitted on are evaluated in `shift_rows`.
    originals = paraphrases(study, steps.warehouse)
    copies = _copies(study.reference.member)
    evaluated = [name for name in study.definition.labelled_sets if name not in originals]
    rows += shared_axis_rows(study, steps)
    rows += _baseline_rows(study, evaluated, steps)
    for model in study.models:
        rows += _coverage_rows(study, model.member)
        rows += _copy_rows(model.member, copies)
        rows += _alignment_rows(study, model)
        rows += _neighbour_rows(study, model, steps)
        for prompt_set in evaluated:
            rows += _auroc_rows(study, model, prompt_set, steps)
            rows += _null_rows(study, model, prompt_set, steps)
        rows += direction_rows(study.definition, model.member, steps)
    refits = cache(partial(refitter, study, study.matrices))
    rows += held_out_rows(study, steps, refits)
    rows += shift_rows(study, steps, originals, refits)
    return corrected(rows, by=("metric", "is_in_sample"))


def _coverage_rows(study: FittedStudy, member: Member) -> list[Evaluation]:
    """Missing rows, where they are allowed, and rows used twice.

    A prompt that the alignment is fitted on and that is evaluated too is no test of the alignment.
    """
    aligned_on = set(member.benign.prompt_ids)
    counts = [(study.definition.align, "missing_count", member.benign.missing_count)]
    for prompt_set, matrix in member.labelled.items():
        overlap = len(aligned_on.intersection(matrix.prompt_ids))
        counts.append((prompt_set, "missing_count", matrix.missing_count))
        counts.append((prompt_set, "alignment_overlap", overlap))
    return [
        Evaluation.of(
            "coverage", metric, Estimate(float(count)), member=member, prompt_set=prompt_set
        )
        for prompt_set, metric, count in counts
        if count
    ]


def _copies(member: Member) -> dict[str, float]:
    """Labelled set -> the share of its prompts that an alignment prompt is nearly the same as.

    Prompts of both, which `alignment_overlap` counts, are not among them.
    """
    benign, shares = member.benign.texts.to_pylist(), {}
    aligned_on = set(member.benign.prompt_ids)
    for prompt_set, matrix in member.labelled.items():
        is_copy = has_near_duplicate(matrix.texts.to_pylist(), benign)
        is_same = np.array([each in aligned_on for each in matrix.prompt_ids])
        shares[prompt_set] = float((is_copy & ~is_same).mean())
    return shares


def _copy_rows(member: Member, copies: Mapping[str, float]) -> list[Evaluation]:
    return [
        Evaluation.of(
            "coverage", "alignment_copies", Estimate(share), member=member, prompt_set=prompt_set
        )
        for prompt_set, share in copies.items()
        if share
    ]


def _alignment_rows(study: FittedStudy, model: FittedModel) -> list[Evaluation]:
    fit, vector = model.alignment.fit, model.aligned.vector
    values = {
        "cosine_universal": cosine(vector, study.universal.vector),
        "cosine_reference": cosine(vector, study.reference.aligned.vector),
        "r2_held_out": fit.r2_held_out,
        "r2_uniform": fit.r2_uniform,
        "ridge_lambda": fit.alignment.ridge_lambda,
        "effective_rank": fit.alignment.effective_rank,
        "rank": fit.rank,
        "alignment_rows": float(len(model.member.benign.prompt_ids)),
    }
    estimates = {metric: Estimate(value) for metric, value in values.items() if value is not None}
    if fit.r2_shuffled is not None:
        estimates["r2_shuffled"] = fit.r2_shuffled
    axes = {"aligned": model.aligned}
    return Evaluation.of_scorers({"aligned": estimates}, axes=axes, member=model.member)


def _neighbour_rows(study: FittedStudy, model: FittedModel, steps: Steps) -> list[Evaluation]:
    """Whether the model and the reference find the same benign prompts near each other."""
    member, reference = model.member, study.reference.member
    if member is reference:
        return []
    seed = study.definition.seed

    def compute() -> list[Evaluation]:
        benign, targets = paired(member.benign, reference.benign)
        shared, null = mutual_knn(benign.x, targets.x, seed=seed)
        metrics = {"aligned": {"mutual_knn": shared, "mutual_knn_shuffled": null}}
        return Evaluation.of_scorers(metrics, member=member)

    inputs = [
        [each.location for each in (member, reference)],
        [each.benign.row_set_hash for each in (member, reference)],
        seed,
    ]
    return steps.compute("neighbours", inputs, compute, member=member)


def _auroc_rows(
    study: FittedStudy, model: FittedModel, prompt_set: str, steps: Steps
) -> list[Evaluation]:
    member, matrix = model.member, model.member.labelled[prompt_set]
    fitted_on = set(member.labelled[study.definition.prompts].prompt_ids)
    is_in_sample = not fitted_on.isdisjoint(matrix.prompt_ids)
    axes = {"native": model.native, "universal": study.universal}
    if model.leave_one_out is not None:
        axes["leave_one_out"] = model.leave_one_out
    seed = study.definition.seed

    def compute() -> list[Evaluation]:
        scores = {scorer: model.project(matrix, axis) for scorer, axis in axes.items()}
        compared = [("native", "universal")]
        if prompt_set != study.definition.prompts:
            baselines = _baseline_scores(member.labelled[study.definition.prompts], matrix)
            compared += [(axis, name) for axis in axes for name in baselines]
            scores |= baselines
        metrics = evaluate_scores(
            scores, matrix.labels, matrix.groups, compared=compared, seed=seed
        )
        return Evaluation.of_scorers(
            # What is the same for every model is a row without a model, in `_baseline_rows`.
            {name: metrics[name] for name in metrics if name not in TEXT_BASELINES},
            axes=axes,
            member=member,
            prompt_set=prompt_set,
            labels=matrix.labels,
            is_in_sample=is_in_sample,
        )

    inputs = [
        member.location,
        [axis.axis_id for axis in axes.values()],
        model.alignment.alignment_id,
        prompt_set,
        matrix.grouped_hash,
        is_in_sample,
        seed,
    ]
    return steps.compute("auroc", inputs, compute, member=member, prompt_set=prompt_set)


def _null_rows(
    study: FittedStudy, model: FittedModel, prompt_set: str, steps: Steps
) -> list[Evaluation]:
    """Uninformative axes: random directions, alignments of shuffled rows, no alignment.

    The last, the universal axis on activations as they are, exists where widths are equal.
    """
    member, fit, universal = model.member, model.alignment.fit, study.universal
    matrix, seed = member.labelled[prompt_set], study.definition.seed
    ridge_lambda = fit.alignment.ridge_lambda

    def compute() -> list[Evaluation]:
        labels = matrix.labels
        null = random_directions(matrix.x, labels, seed=seed)
        metrics = {"random_direction": {"auroc": null_interval(null)}}
        if fit.method == "ridge" and ridge_lambda is not None:
            benign, targets = paired(member.benign, study.reference.member.benign)
            null = shuffled_alignments(
                benign.x, targets.x, universal.vector, ridge_lambda, matrix.x, labels, seed=seed
            )
            metrics["shuffled_alignment"] = {"auroc": null_interval(null)}
        if fit.method != "identity" and member.space.d_model == len(universal.vector):
            scores = {"universal_unaligned": project(matrix.x, universal.vector)}
            metrics |= evaluate_scores(scores, labels, matrix.groups, seed=seed)
        return Evaluation.of_scorers(
            metrics, member=member, prompt_set=prompt_set, labels=labels, is_in_sample=False
        )

    inputs = [
        member.location,
        universal.axis_id,
        model.alignment.alignment_id,
        prompt_set,
        matrix.grouped_hash,
        seed,
    ]
    return steps.compute("null axes", inputs, compute, member=member, prompt_set=prompt_set)


def _baseline_rows(
    study: FittedStudy, prompt_sets: Sequence[str], steps: Steps
) -> list[Evaluation]:
    """What the prompts alone tell, on sets that nothing was fitted on (else `held_out_rows`)."""
    labelled, seed = study.members[0].labelled, study.definition.seed
    fitted_on = labelled[study.definition.prompts]
    rows = []
    for prompt_set in prompt_sets:
        matrix = labelled[prompt_set]

        def compute(matrix: Matrix = matrix, prompt_set: str = prompt_set) -> list[Evaluation]:
            scores = _baseline_scores(fitted_on, matrix)
            texts = {name: values for name, values in scores.items() if name in TEXT_BASELINES}
            metrics = evaluate_scores(texts, matrix.labels, matrix.groups, seed=seed)
            return Evaluation.of_scorers(
                metrics, prompt_set=prompt_set, labels=matrix.labels, is_in_sample=False
            )

        if matrix is not fitted_on:
            inputs = [fitted_on.grouped_hash, prompt_set, matrix.grouped_hash, seed]
            rows += steps.compute("baselines", inputs, compute, prompt_set=prompt_set)
    return rows


def _baseline_scores(fitted_on: Matrix, matrix: Matrix) -> dict[str, Scores]:
    """Scores of the rows of one matrix by baselines fitted on another one of the same model."""
    count = len(fitted_on.labels)
    texts = text_kernels([*fitted_on.texts.to_pylist(), *matrix.texts.to_pylist()])
    norms = np.concatenate([row_norms(fitted_on.x), row_norms(matrix.x)])
    kernels = texts | model_kernels(texts, norms)
    labels = np.concatenate([fitted_on.labels, matrix.labels])
    scores = baseline_fitter(list(kernels.values()), labels)(np.arange(len(labels)) < count)
    return dict(zip(kernels, scores[:, count:], strict=True))
