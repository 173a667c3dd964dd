"""`axes evaluate`: one model's directions on prompts, layers and sources they have not seen.

In-sample figures stand only beside held-out ones and say what they are. Prompts that are nearly the
same text, or of one pair, are never parted.

Fit on one source of prompts, judge on another: does a direction tell the classes or the sources?

In most sets a source brings one class only, so a direction may tell sources apart and look as if it
told classes. A contrast is the smallest thing that a direction can be fitted on: a source of both
classes by itself, or a source of positive prompts with one of negative prompts. Every contrast is
judged on every other, out of fold: no prompt, and nothing of its group, is in the fit that scores
it, so that cells on the diagonal, or that share a source, are held out too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.activations import Matrix, Space, find_space, load_matrix, require_classes
from axes.analysis.methods.layer_selection import LayerSelection, select_layers
from axes.analysis.methods.nulls import fitted_scores
from axes.analysis.stats.auroc import Estimate, auroc_difference, auroc_interval
from axes.analysis.stats.baselines import bag_of_words_fits, bag_of_words_scores
from axes.analysis.stats.evaluate import judge, judge_difference
from axes.analysis.stats.multiple_testing import adjusted
from axes.analysis.stats.splits import (
    LEAST_OVERLAP,
    grouped_folds,
    joined_groups,
    near_duplicate_clusters,
)
from axes.analysis.study.figures import write_figures
from axes.warehouse.connection import Connection, rows
from axes.warehouse.errors import LabelError
from axes.warehouse.layers import Rows
from axes.warehouse.progress import track
from axes.warehouse.runs import record_run
from axes.warehouse.writer import content_key, data_file

# Raised whenever the figures of an unchanged definition would change.
_VERSION = 1


@dataclass(frozen=True)
class EvaluationDefinition:
    """What is asked; prompts of further sets join those of the first in the matrix of sources.

    `by` is the prompts' column that says where they come from: source, category or split.
    """

    model: str
    prompt_sets: tuple[str, ...]
    by: str = "source"
    layer_fraction: float = 0.8
    correction: str = "holm"
    site: str = "resid_post"
    pooling: str = "last5_mean"
    template: str = "raw"
    least_overlap: float = LEAST_OVERLAP
    seed: int = 0
    allow_missing: bool = False


@dataclass(frozen=True)
class _Pool:
    """Prompts of all sets at one layer."""

    x: np.ndarray
    texts: list[str]
    labels: Bool[np.ndarray, " row"]
    groups: Int[np.ndarray, " row"]
    sources: list[str | None]


def run_evaluation(root: Path, connection: Connection, definition: EvaluationDefinition) -> str:
    """Judge a model out of fold, by layer and by source; the id of its figures in `evaluations`.

    Nothing is computed again that is there. Raises `CoverageError`, `LabelError` or `PromptError`
    where rows are missing or do not fit.
    """
    space = find_space(
        connection,
        definition.model,
        site=definition.site,
        pooling=definition.pooling,
        template=definition.template,
    ).at_fraction(definition.layer_fraction)
    matrices = [_labelled(connection, space, name, definition) for name in definition.prompt_sets]
    study_id = content_key(
        "evaluate",
        _VERSION,
        asdict(definition),
        space.model_id,
        [matrix.row_set_hash for matrix in matrices],
    )
    if data_file(root, "evaluations", study_id).exists():
        return study_id
    with record_run(root, "evaluate", asdict(definition), seed=definition.seed) as run:
        figures = _layer_rows(connection, space, definition, matrices[0])
        figures += _source_rows(connection, space, definition, matrices)
        first = definition.prompt_sets[0]
        common = {"model": space.model, "model_id": space.model_id, "prompt_set": first}
        described = [{"fitted_on": first, **row, **common} for row in figures]
        write_figures(root, run, study_id, described, asdict(definition))
    return study_id


def _labelled(
    connection: Connection, space: Space, prompt_set: str, definition: EvaluationDefinition
) -> Matrix:
    matrix = load_matrix(connection, space, prompt_set, allow_missing=definition.allow_missing)
    require_classes(matrix, prompt_set)
    return matrix


def _layer_rows(
    connection: Connection, space: Space, definition: EvaluationDefinition, first: Matrix
) -> list[dict[str, Any]]:
    """Every layer out of fold and in sample, and the layer chosen inside the training part."""
    prompt_set, seed = definition.prompt_sets[0], definition.seed
    texts, labels = first.texts.to_pylist(), first.labels
    clusters = near_duplicate_clusters(texts, least_overlap=definition.least_overlap)
    groups = joined_groups(first.groups, clusters)
    with track(f"layers of {space.model}", space.layer_count, "layers") as advance:

        def layers() -> Iterator[Rows]:
            for layer in range(space.layer_count):
                yield _labelled(connection, space.at(layer), prompt_set, definition).x
                advance(1)

        selection = select_layers(layers(), labels, groups, seed=seed)
    words = bag_of_words_scores(texts, labels, groups, seed=seed)
    counts = _counts(labels)
    found = _tested_layers(selection, words, labels, groups, definition.correction)
    judged = {
        "native_layer_chosen": judge(selection.nested, labels, groups, seed=seed),
        "bag_of_words": judge(words, labels, groups, seed=seed),
        "native_layer_chosen_minus_bag_of_words": judge_difference(
            selection.nested, words, labels, groups, seed=seed
        ),
    }
    found += [
        {**_row(scorer, metric, estimate), "is_in_sample": False}
        for scorer, figures in judged.items()
        for metric, estimate in figures.items()
    ]
    return [{**row, **counts} for row in found]


def _tested_layers(
    selection: LayerSelection,
    words: Float[np.ndarray, " row"],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    correction: str,
) -> list[dict[str, Any]]:
    """Each layer's AUROC, and its difference to a bag of words, corrected for so many layers."""
    differences = [
        auroc_difference(scores, words, labels, groups=groups)
        for scores in selection.cross_validated
    ]
    p_values = np.array(
        [np.nan if found.p_value is None else found.p_value for found in differences]
    )
    found = []
    for layer, corrected in enumerate(adjusted(p_values, correction)):
        area = auroc_interval(selection.cross_validated[layer], labels, groups=groups)
        in_sample = Estimate(float(selection.in_sample[layer]))
        found += [
            {**_row("native_cross_validated", "auroc", area), "is_in_sample": False},
            {**_row("native", "auroc", in_sample), "is_in_sample": True},
            {
                **_row("native_minus_bag_of_words", "auroc_difference", differences[layer]),
                "p_value_adjusted": None if np.isnan(corrected) else float(corrected),
                "is_in_sample": False,
            },
        ]
        for row in found[-3:]:
            row["layer"] = layer
    return found


def _source_rows(
    connection: Connection,
    space: Space,
    definition: EvaluationDefinition,
    matrices: Sequence[Matrix],
) -> list[dict[str, Any]]:
    """The matrix of sources, of the direction and of a bag of words; empty where none is usable."""
    pool = _pooled(connection, definition, matrices)
    contrasts = source_contrasts(pool.sources, pool.labels)
    if len(contrasts) < 2:
        return []

    def native(seen: Bool[np.ndarray, "fit row"]) -> Float[np.ndarray, "fit row"]:
        return fitted_scores(pool.x, np.tile(pool.labels, (len(seen), 1)), seen)

    def words(seen: Bool[np.ndarray, "fit row"]) -> Float[np.ndarray, "fit row"]:
        return bag_of_words_fits(pool.texts, pool.labels, seen)

    fits: dict[str, Fit] = {"native": native, "bag_of_words": words}
    return [
        {
            **_row(scorer, "auroc", cell.auroc),
            "layer": space.layer if scorer == "native" else None,
            "fitted_on": cell.fitted_on,
            "judged_on": cell.judged_on,
            "positive_count": cell.positive_count,
            "negative_count": cell.negative_count,
            "is_in_sample": False,
        }
        for scorer, fit in fits.items()
        for cell in source_matrix(fit, pool.labels, pool.groups, contrasts, seed=definition.seed)
    ]


def _pooled(
    connection: Connection, definition: EvaluationDefinition, matrices: Sequence[Matrix]
) -> _Pool:
    """The prompts of all sets, those that are in several once, each with its source."""
    known: set[str] = set()
    parts: list[Matrix] = []
    sources: list[str | None] = []
    for prompt_set, matrix in zip(definition.prompt_sets, matrices, strict=True):
        new = [i for i, prompt_id in enumerate(matrix.prompt_ids) if prompt_id not in known]
        known.update(matrix.prompt_ids)
        part = matrix.take(np.array(new, dtype=np.int64))
        offset = 1 + max(
            (int(other.groups.max()) for other in parts if len(other.groups)), default=0
        )
        parts.append(replace(part, groups=part.groups + offset))
        named = _sources(connection, prompt_set, definition.by)
        sources += [named[prompt_id] for prompt_id in part.prompt_ids]
    texts = [text for part in parts for text in part.texts.to_pylist()]
    groups = np.concatenate([part.groups for part in parts])
    clusters = near_duplicate_clusters(texts, least_overlap=definition.least_overlap)
    return _Pool(
        x=np.concatenate([part.x[:] for part in parts]),
        texts=texts,
        labels=np.concatenate([part.labels for part in parts]),
        groups=joined_groups(groups, clusters),
        sources=sources,
    )


def _sources(connection: Connection, prompt_set: str, by: str) -> dict[str, str | None]:
    """Prompt id -> where the prompt comes from."""
    found = rows(
        connection,
        "select prompt_id, source, category, split from prompts where prompt_set = ?",
        [prompt_set],
    )
    return {row["prompt_id"]: row[by] for row in found}


def _counts(labels: Bool[np.ndarray, " row"]) -> dict[str, int]:
    positive_count = int(labels.sum())
    return {"positive_count": positive_count, "negative_count": len(labels) - positive_count}


def _row(scorer: str, metric: str, estimate: Estimate) -> dict[str, Any]:
    return {"scorer": scorer, "metric": metric, **asdict(estimate)}


LEAST_ROWS = 20

Fit = Callable[[Bool[np.ndarray, "fit row"]], Float[np.ndarray, "fit row"]]


@dataclass(frozen=True)
class Contrast:
    """Rows of one source, or of a positive and a negative one (`positive | negative`)."""

    name: str
    is_member: Bool[np.ndarray, " row"]


@dataclass(frozen=True)
class Cell:
    """AUROC on the contrast `judged_on` of the direction fitted on `fitted_on`, held out."""

    fitted_on: str
    judged_on: str
    auroc: Estimate
    positive_count: int
    negative_count: int


def source_contrasts(
    sources: Sequence[str | None], labels: Bool[np.ndarray, " row"], *, least: int = LEAST_ROWS
) -> list[Contrast]:
    """All contrasts of a set; a class of a source with fewer than `least` rows is left out.

    >>> found = source_contrasts(["a", "a", "b", "c"], np.array([1, 0, 1, 0], bool), least=1)
    >>> [contrast.name for contrast in found]
    ['a', 'b | c']
    """
    names = np.array([source or "" for source in sources], dtype=object)
    counts = {
        name: (int((labels & (names == name)).sum()), int((~labels & (names == name)).sum()))
        for name in sorted(set(names))
    }
    both = [name for name, found in counts.items() if min(found) >= least]
    positive = [name for name, (count, _) in counts.items() if count >= least and name not in both]
    negative = [name for name, (_, count) in counts.items() if count >= least and name not in both]
    return [Contrast(name, names == name) for name in both] + [
        Contrast(f"{one} | {other}", ((names == one) & labels) | ((names == other) & ~labels))
        for one in positive
        for other in negative
    ]


def source_matrix(
    fit: Fit,
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    contrasts: Sequence[Contrast],
    *,
    seed: int = 0,
) -> list[Cell]:
    """Every contrast judged on every contrast by what `fit` makes of it, with DeLong's interval.

    `fit` gets masks of rows to fit on, one a row, and gives every row's score by each fit. Raises
    `LabelError` where a contrast lies in so few groups that a fold takes a class of it away.
    """
    if not contrasts:
        raise LabelError(
            f"no source, and no pair of sources, brings {LEAST_ROWS} prompts of each class"
        )
    folds = grouped_folds(labels, groups, seed=seed)
    names = np.unique(folds)
    seen = np.stack(
        [contrast.is_member & (folds != name) for contrast in contrasts for name in names]
    )
    if not ((seen & labels).any(axis=1) & (seen & ~labels).any(axis=1)).all():
        raise LabelError("a source lies in too few groups to be held out: use larger sources")
    by_contrast = fit(seen).reshape(len(contrasts), len(names), len(labels))
    held_out = by_contrast[:, np.searchsorted(names, folds), np.arange(len(labels))]
    return [
        _cell(fitted_on, judged_on, row, labels, groups)
        for fitted_on, row in zip(contrasts, held_out, strict=True)
        for judged_on in contrasts
    ]


def _cell(
    fitted_on: Contrast,
    judged_on: Contrast,
    scores: Float[np.ndarray, " row"],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
) -> Cell:
    rows = judged_on.is_member
    area = auroc_interval(scores[rows], labels[rows], groups=groups[rows])
    positive_count = int(labels[rows].sum())
    return Cell(
        fitted_on.name, judged_on.name, area, positive_count, int(rows.sum()) - positive_count
    )
