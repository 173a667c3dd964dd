"""A study's axes under a shift: on parts of the prompts left out of the fits, and in other words.

A part is a source, a category, or the shorter or longer half of the groups; fits see no group that
has a row of it. A set whose column `source` is `paraphrase of SET` has the prompts of SET in other
words, matched by `pair_id` and class: both are projected on axes fitted without the pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from axes.analysis.activations import Matrix, concatenate
from axes.analysis.stats.auroc import (
    Estimate,
    Groups,
    Labels,
    Scores,
    auroc_difference,
    auroc_interval,
    share_estimate,
)
from axes.analysis.stats.baselines import STRONGEST
from axes.analysis.stats.splits import grouped_folds, out_of_fold
from axes.analysis.study.evaluations import Evaluation, Steps
from axes.analysis.study.fit import FittedStudy
from axes.analysis.study.robustness.held_out import MIN_ROWS
from axes.analysis.study.robustness.stability import SHARED_AXES, Refits, refit_inputs, refitter
from axes.warehouse.errors import PromptError
from axes.warehouse.handle import Warehouse

_PARAPHRASES = """
select others.prompt_set, others.prompt_id, prompts.prompt_id as original
from v_prompts as others
inner join v_prompts as prompts using (pair_id, is_positive)
where prompts.prompt_set = ? and others.source = 'paraphrase of ' || prompts.prompt_set
"""


def paraphrases(study: FittedStudy, warehouse: Warehouse) -> dict[str, dict[str, str]]:
    """Set -> prompt -> the prompt that it says in other words, of the sets evaluated on."""
    originals: dict[str, dict[str, str]] = {}
    for row in warehouse.query(_PARAPHRASES, [study.definition.prompts]).to_pylist():
        if row["prompt_set"] in study.definition.evaluate:
            originals.setdefault(row["prompt_set"], {})[row["prompt_id"]] = row["original"]
    return originals


def shift_rows(
    study: FittedStudy,
    steps: Steps,
    originals: Mapping[str, Mapping[str, str]],
    refits: Callable[[], Refits],
) -> list[Evaluation]:
    """`AXIS_shifted`, by what it was fitted and judged on: every part, and every paraphrase."""
    prompts, inputs = study.definition.prompts, refit_inputs(study)
    parts = _parts(steps.warehouse, prompts, study.matrices[0])
    rows_of_parts = {name: np.flatnonzero(part).tolist() for name, part in parts.items()}
    compute = partial(_left_out, study, parts, refits)
    rows = steps.compute("shifts", [inputs, rows_of_parts], compute, prompt_set=prompts)
    for name, original in originals.items():
        matrices = [member.labelled[name] for member in study.members]
        stated = [name, matrices[0].grouped_hash, dict(original)]
        compute = partial(_in_other_words, study, name, matrices, original)
        rows += steps.compute("paraphrases", [inputs, stated], compute, prompt_set=prompts)
    return rows


def _parts(warehouse: Warehouse, prompt_set: str, matrix: Matrix) -> dict[str, Labels]:
    """The rows of each part, where it and the rest hold `MIN_ROWS` rows of each class."""
    columns = warehouse.query(
        "select prompt_id, source, category from prompts where prompt_set = ?", [prompt_set]
    ).to_pydict()
    group = np.unique(matrix.groups, return_inverse=True)[1]
    characters = [len(text) for text in matrix.texts.to_pylist()]
    lengths = np.bincount(group, characters) / np.bincount(group)
    kinds = {"length": np.where(lengths > np.median(lengths), "long", "short")[group]}
    for kind in ("source", "category"):
        by_id = dict(zip(columns["prompt_id"], columns[kind], strict=True))
        kinds[kind] = np.array([by_id[prompt_id] or "" for prompt_id in matrix.prompt_ids])
    parts = {}
    for kind, names in kinds.items():
        for name in np.unique(names):
            part = names == name
            rest = ~np.isin(matrix.groups, matrix.groups[part])
            sizes = [np.bincount(matrix.labels[at], minlength=2) for at in (part, rest)]
            if np.min(sizes) >= MIN_ROWS:
                parts[f"{kind} {name}"] = part
    return parts


def _left_out(
    study: FittedStudy, parts: Mapping[str, Labels], refits: Callable[[], Refits]
) -> list[Evaluation]:
    """Each part by axes fitted on the groups without a row of it."""
    labels, groups = study.matrices[0].labels, study.matrices[0].groups
    fit, place = refits()
    rows = []
    for name, at in parts.items():
        scores = fit(~np.isin(groups, groups[at])[None])[0][:, None, at]
        rows += _rows(study, place, scores, labels[at], groups[at], (f"no {name}", name))
    return rows


def _in_other_words(
    study: FittedStudy, name: str, matrices: Sequence[Matrix], original: Mapping[str, str]
) -> list[Evaluation]:
    """Prompts and their paraphrases by axes fitted on the prompts of the other folds.

    Raises `PromptError` for a set with fewer than `MIN_ROWS` of a class.
    """
    prompts, ids = study.matrices[0], matrices[0].prompt_ids
    places = {prompt_id: row for row, prompt_id in enumerate(prompts.prompt_ids)}
    matched = np.array(
        [row for row, key in enumerate(ids) if original.get(key) in places], dtype=np.int64
    )
    of = np.array([places[original[ids[row]]] for row in matched], dtype=np.int64)
    if (count := np.bincount(prompts.labels[of], minlength=2).min()) < MIN_ROWS:
        raise PromptError(
            f"{name} has paraphrases of {count} prompts of a class of {study.definition.prompts}, "
            f"and {MIN_ROWS} are needed: leave it out of --evaluate"
        )
    # Each model's prompts, and below them their paraphrases, which no axis is fitted on.
    stacked = [
        replace(
            matrix,
            read=partial(concatenate, [matrix.x, others.take(matched).x]),
            texts=pa.concat_arrays([matrix.texts, others.texts.take(pa.array(matched))]),
            is_positive=np.concatenate([matrix.labels, matrix.labels[of]]),
            groups=np.concatenate([matrix.groups, matrix.groups[of]]),
        )
        for matrix, others in zip(study.matrices, matrices, strict=True)
    ]
    fit, place = refitter(study, stacked)
    folds = grouped_folds(prompts.labels, prompts.groups, seed=study.definition.seed)
    is_original = np.arange(len(folds) + len(of)) < len(folds)
    scores = out_of_fold(
        lambda seen: fit((seen & is_original)[None])[0], np.append(folds, folds[of])
    )
    both = np.stack([scores[:, ~is_original], scores[:, of]], axis=1)
    between = (study.definition.prompts, name)
    return _rows(study, place, both, prompts.labels[of], prompts.groups[of], between)


def _rows(
    study: FittedStudy,
    place: Mapping[tuple[str | None, str], int],
    scores: Float[np.ndarray, "scorer wording row"],
    labels: Labels,
    groups: Groups,
    between: tuple[str, str],
) -> list[Evaluation]:
    """Metrics of the axes and of the words; `between`: what they were fitted and judged on.

    A second wording is that of the prompts themselves, whose pairs move the fits as well.
    """
    rows = []
    for member in study.members:
        for scorer in (*SHARED_AXES, STRONGEST):
            at = place.get((member.name, scorer), place.get((None, scorer)))
            if at is None:
                continue
            judged, has_originals = scores[at, 0], scores.shape[1] > 1
            area = auroc_interval(judged, labels, groups, is_out_of_fold=has_originals)
            agreement = {}
            if has_originals and scorer != STRONGEST:
                agreement = agreement_with(judged, scores[at, 1], labels, groups)
            rows += Evaluation.of_scorers(
                {f"{scorer}_shifted": {"auroc": area, **agreement}},
                member=member,
                prompt_set=study.definition.prompts,
                labels=labels,
                fitted_on=between[0],
                judged_on=between[1],
                # A layer that was chosen on these prompts has seen them after all.
                is_in_sample=bool(member.layers),
            )
    return rows


def agreement_with(
    scores: Scores, originals: Scores, labels: Labels, groups: Groups
) -> dict[str, Estimate]:
    """What paraphrases' AUROC exceeds that of their prompts by, and how the scores agree.

    `correlation` is within classes, `same_side` the share of prompts on the side of 0 that their
    paraphrase is on. Their intervals, Fisher's and the exact one, count as many rows as groups.
    """
    count = len(np.unique(groups))
    within = [
        each - np.where(labels, each[labels].mean(), each[~labels].mean())
        for each in (scores, originals)
    ]
    correlation = float(np.corrcoef(within)[0, 1])
    # Copies correlate perfectly, where Fisher's transform is infinite.
    bounded = np.clip(correlation, -1 + 1e-12, 1 - 1e-12)
    ends = np.tanh(np.arctanh(bounded) + np.array([-1.96, 1.96]) / np.sqrt(max(count - 3, 1)))
    is_same = (scores > 0) == (originals > 0)
    return {
        "auroc_gain": auroc_difference(scores, originals, labels, groups, is_out_of_fold=True),
        "correlation": Estimate(correlation, *map(float, ends)),
        "same_side": share_estimate(float(is_same.mean() * count), count),
    }
