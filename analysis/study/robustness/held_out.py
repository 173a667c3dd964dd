"""`axes evaluate`: one model's directions on prompts, layers and sources they have not seen.

In-sample metrics are shown only next to held-out ones. In most sets a source brings one class only,
so a direction may separate sources and look as if it separated classes. A contrast is the smallest
set that a direction can be fitted on: a source of both classes by itself, or one of positive with
one of negative prompts. Every contrast is evaluated on every other, out of fold: no prompt, and
nothing of its group, is in the fit that scores it, so that cells on the diagonal are held out too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from axes.analysis.activations import (
    Matrix,
    Space,
    concatenate,
    find_space,
    layers_of,
    load_matrix,
    require_classes,
)
from axes.analysis.methods.layer_selection import LayerSelection, select_layers
from axes.analysis.methods.nulls import fitted_scores
from axes.analysis.stats.auroc import (
    Estimate,
    Groups,
    Labels,
    Scores,
    auroc_difference,
    auroc_interval,
    null_interval,
)
from axes.analysis.stats.baselines import (
    STRONGEST,
    TEXT_BASELINES,
    baseline_fitter,
    text_scores,
)
from axes.analysis.stats.evaluate import evaluate_scores
from axes.analysis.stats.minimize import one_thread
from axes.analysis.stats.splits import (
    LEAST_OVERLAP,
    grouped_folds,
    out_of_fold,
    unsplit_groups,
)
from axes.analysis.study.evaluations import Evaluation, corrected, evaluate_once
from axes.warehouse.axes import read_axes
from axes.warehouse.errors import DefinitionError, LabelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import Rows, TokenPooling
from axes.warehouse.progress import track
from axes.warehouse.writer import content_key

# Raised whenever the metrics of an unchanged definition would change.
_VERSION = 6
MIN_ROWS = 20


@dataclass(frozen=True)
class EvaluationDefinition:
    """A request; prompts of further sets join those of the first in the matrix of sources.

    `by` is the prompts' column that says where they come from: source, category or split. With
    `max_rank`, subspaces of so many dimensions are evaluated as well.
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
    max_rank: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What goes into the key: without a rank the same as before there were ranks."""
        return {k: v for k, v in asdict(self).items() if k != "max_rank" or v is not None}


def run_evaluation(warehouse: Warehouse, definition: EvaluationDefinition) -> str:
    """Evaluate a model out of fold, by layer and by source; the id of its rows in `evaluations`.

    Stored rows are not computed again. Raises `CoverageError`, `LabelError` or `PromptError` where
    rows are missing or do not fit.
    """
    space = find_space(
        warehouse,
        definition.model,
        site=definition.site,
        pooling=definition.pooling,
        template=definition.template,
    ).at_fraction(definition.layer_fraction)
    _require_unseen(warehouse, space, definition)
    matrices = [_labelled(warehouse, space, name, definition) for name in definition.prompt_sets]
    study_id = content_key(
        "evaluate",
        _VERSION,
        definition.settings,
        space.model_id,
        [matrix.row_set_hash for matrix in matrices],
    )

    def compute(_: object) -> list[Evaluation]:
        with one_thread():
            rows = _layer_rows(warehouse, space, definition, matrices[0])
            rows += _source_rows(warehouse, space, definition, matrices)
            rows += _rank_rows(space, definition, matrices[0])
        first = definition.prompt_sets[0]
        return [
            replace(
                row,
                fitted_on=row.fitted_on or first,
                model=space.model,
                model_id=space.model_id,
                prompt_set=first,
            )
            for row in rows
        ]

    evaluate_once(warehouse, "evaluate", study_id, definition.settings, compute)
    return study_id


def _require_unseen(warehouse: Warehouse, space: Space, definition: EvaluationDefinition) -> None:
    """Raise `DefinitionError` where attention was learned on prompts that are to be evaluated."""
    pooling = TokenPooling.find(space.pooling)
    if pooling is not None and pooling.kind == "tokens_attention":
        learned_on = [
            axis.prompt_set
            for axis in read_axes(warehouse, [pooling.argument or "(tokens_attention@AXIS)"])
        ]
        if set(learned_on) & set(definition.prompt_sets):
            raise DefinitionError(
                f"the attention was learned on {learned_on[0]}: use other prompts"
            )


def _labelled(
    warehouse: Warehouse, space: Space, prompt_set: str, definition: EvaluationDefinition
) -> Matrix:
    matrix = load_matrix(warehouse, space, prompt_set, allow_missing=definition.allow_missing)
    require_classes(matrix, prompt_set)
    return matrix


def _layer_rows(
    warehouse: Warehouse, space: Space, definition: EvaluationDefinition, first: Matrix
) -> list[Evaluation]:
    """Every layer out of fold and in sample, and the layer chosen inside the training part."""
    prompt_set, seed = definition.prompt_sets[0], definition.seed
    texts, labels = first.texts.to_pylist(), first.labels
    groups = unsplit_groups(first.groups, texts, least_overlap=definition.least_overlap)
    places = list(range(space.layer_count))
    if TokenPooling.find(space.pooling) is not None:  # Tokens are kept at a few layers.
        places = layers_of(warehouse, space, prompt_set)
    with track(f"layers of {space.model}", len(places), "layers") as advance:

        def layers() -> Iterator[Rows]:
            for layer in places:
                yield _labelled(warehouse, space.at(layer), prompt_set, definition).x
                advance(1)

        selection = select_layers(layers(), labels, groups, seed=seed)
    words = text_scores(texts, labels, groups, seed=seed)
    metrics = evaluate_scores(
        {"native_layer_chosen": selection.nested, STRONGEST: words},
        labels,
        groups,
        compared=[("native_layer_chosen", STRONGEST)],
        is_out_of_fold=True,
        seed=seed,
    )
    return [
        *_tested_layers(places, selection, words, labels, groups, definition.correction),
        *Evaluation.of_scorers(metrics, labels=labels, is_in_sample=False),
    ]


def _tested_layers(
    places: Sequence[int],
    selection: LayerSelection,
    words: Scores,
    labels: Labels,
    groups: Groups,
    correction: str,
) -> list[Evaluation]:
    """Each layer's AUROC, and its difference to a word pairs, corrected for so many layers."""
    rows = []
    for index, (layer, scores) in enumerate(zip(places, selection.cross_validated, strict=True)):
        row = partial(Evaluation.of, labels=labels, layer=layer, is_in_sample=False)
        in_sample = Estimate(float(selection.in_sample[index]))
        split = (labels, groups)
        area = auroc_interval(scores, *split, is_out_of_fold=True)
        difference = auroc_difference(scores, words, *split, is_out_of_fold=True)
        rows += [
            row("native_cross_validated", "auroc", area),
            row("native", "auroc", in_sample, is_in_sample=True),
            row(f"native_minus_{STRONGEST}", "auroc_difference", difference),
        ]
    return corrected(rows, correction=correction)


def _rank_rows(space: Space, definition: EvaluationDefinition, first: Matrix) -> list[Evaluation]:
    """Subspaces by rank (`component`), out of fold: AUROC, gain by the last dimension, angle.

    `subspace_minus_native` compares with the model's own direction, out of the same folds.
    """
    if definition.max_rank is None:
        return []
    from axes.analysis.subspaces import rank_curve

    texts, labels = first.texts.to_pylist(), first.labels
    groups = unsplit_groups(first.groups, texts, least_overlap=definition.least_overlap)
    curve = rank_curve(first.x, labels, groups, max_rank=definition.max_rank, seed=definition.seed)
    native = select_layers([first.x], labels, groups, seed=definition.seed).cross_validated[0]
    rows, split = [], (labels, groups)
    for index, scores in enumerate(curve.scores):
        row = partial(
            Evaluation.of,
            component=index + 1,
            labels=labels,
            layer=space.layer,
            is_in_sample=False,
        )
        area, norms = (
            auroc_interval(each, *split, is_out_of_fold=True)
            for each in (scores, curve.norms[index])
        )
        difference = auroc_difference(scores, native, *split, is_out_of_fold=True)
        rows += [
            row("subspace", "auroc", area),
            row("subspace_norm", "auroc", norms),
            row("subspace_minus_native", "auroc_difference", difference),
            row("subspace_shuffled_labels", "auroc", null_interval(curve.shuffled[:, index])),
            row("subspace", "angle_of_halves", Estimate(float(curve.angles[index]))),
        ]
        if index:
            gain = auroc_difference(scores, curve.scores[index - 1], *split, is_out_of_fold=True)
            rows.append(row("subspace_gain", "auroc_difference", gain))
    return corrected(rows, ("scorer", "metric"), definition.correction)


def _source_rows(
    warehouse: Warehouse, space: Space, definition: EvaluationDefinition, matrices: Sequence[Matrix]
) -> list[Evaluation]:
    """The matrix of sources, of the direction and of a word pairs; empty with no contrast."""
    pool = _pooled(warehouse, definition, matrices)
    contrasts = source_contrasts(pool.sources, pool.labels)
    if len(contrasts) < 2:
        return []

    fit = baseline_fitter([TEXT_BASELINES[STRONGEST](pool.texts)], pool.labels)

    def words(seen: Bool[np.ndarray, "fit row"]) -> Float[np.ndarray, "fit row"]:
        return np.concatenate([fit(rows) for rows in seen])

    native = partial(fitted_scores, pool.x, pool.labels)
    split, seed = (pool.labels, pool.groups, contrasts), definition.seed
    return [
        *source_matrix("native", native, *split, layer=space.layer, seed=seed),
        *source_matrix(STRONGEST, words, *split, seed=seed),
    ]


@dataclass(frozen=True)
class _Pool:
    """Prompts of all sets at one layer."""

    x: Rows
    texts: list[str]
    labels: Labels
    groups: Groups
    sources: list[str | None]


def _pooled(
    warehouse: Warehouse, definition: EvaluationDefinition, matrices: Sequence[Matrix]
) -> _Pool:
    """The prompts of all sets, those that are in several once, each with its source."""
    pooled_ids: set[str] = set()
    parts: list[Matrix] = []
    sources: list[str | None] = []
    offset = 0
    for prompt_set, matrix in zip(definition.prompt_sets, matrices, strict=True):
        ids = matrix.prompt_ids
        part = matrix.take(np.array([i for i, key in enumerate(ids) if key not in pooled_ids], int))
        pooled_ids.update(ids)
        # Groups are numbered from 0 in every set: moved past those of the sets before.
        parts.append(replace(part, groups=part.groups + offset))
        offset = max(offset, 1 + int(parts[-1].groups.max(initial=0)))
        columns = warehouse.query(
            "select prompt_id, source, category, split from prompts where prompt_set = ?",
            [prompt_set],
        ).to_pydict()
        by_id = dict(zip(columns["prompt_id"], columns[definition.by], strict=True))
        sources += [by_id[prompt_id] for prompt_id in part.prompt_ids]
    texts = [text for part in parts for text in part.texts.to_pylist()]
    groups = np.concatenate([part.groups for part in parts])
    return _Pool(
        x=concatenate([part.x for part in parts]),
        texts=texts,
        labels=np.concatenate([part.labels for part in parts]),
        groups=unsplit_groups(groups, texts, least_overlap=definition.least_overlap),
        sources=sources,
    )


Fit = Callable[[Bool[np.ndarray, "fit row"]], Float[np.ndarray, "fit row"]]


def source_contrasts(
    sources: Sequence[str | None], labels: Labels, *, min_rows: int = MIN_ROWS
) -> dict[str, Labels]:
    """The rows of all contrasts of a set: of one source, or `positive source | negative source`.

    A class of a source with fewer than `min_rows` rows is left out.

    >>> list(source_contrasts(["a", "a", "b", "c"], np.array([1, 0, 1, 0], bool), min_rows=1))
    ['a', 'b | c']
    """
    names = np.array([source or "" for source in sources], dtype=object)
    classes = {
        name: (labels & (names == name), ~labels & (names == name)) for name in sorted(set(names))
    }
    usable = {name: tuple(rows.sum() >= min_rows for rows in classes[name]) for name in classes}
    contrasts = {name: names == name for name, is_usable in usable.items() if all(is_usable)}
    positive, negative = (
        [name for name, is_usable in usable.items() if is_usable == kind]
        for kind in ((True, False), (False, True))
    )
    return contrasts | {
        f"{first} | {second}": classes[first][0] | classes[second][1]
        for first in positive
        for second in negative
    }


def source_matrix(
    scorer: str,
    fit: Fit,
    labels: Labels,
    groups: Groups,
    contrasts: Mapping[str, Labels],
    *,
    layer: int | None = None,
    seed: int = 0,
) -> list[Evaluation]:
    """Every contrast evaluated on every contrast by what `fit` fits on it, with DeLong's interval.

    `fit` gets masks of rows to fit on, one a contrast, and gives every row's score by each fit.
    Raises `LabelError` where a contrast lies in so few groups that a fold takes a class of it away.
    """
    if not contrasts:
        raise LabelError(f"no source, or pair of sources, has {MIN_ROWS} prompts of each class")

    def fit_contrasts(seen: Labels) -> Float[np.ndarray, "contrast row"]:
        rows = seen & np.stack(list(contrasts.values()))
        if not ((rows & labels).any(axis=1) & (rows & ~labels).any(axis=1)).all():
            raise LabelError("a source lies in too few groups to be held out: use larger sources")
        return fit(rows)

    held_out = out_of_fold(fit_contrasts, grouped_folds(labels, groups, seed=seed))
    return [
        Evaluation.of(
            scorer,
            "auroc",
            auroc_interval(scores[rows], labels[rows], groups[rows], is_out_of_fold=True),
            layer=layer,
            fitted_on=fitted_on,
            judged_on=judged_on,
            labels=labels[rows],
            is_in_sample=False,
        )
        for fitted_on, scores in zip(contrasts, held_out, strict=True)
        for judged_on, rows in contrasts.items()
    ]
