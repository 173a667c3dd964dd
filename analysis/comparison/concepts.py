"""Several concepts at once: which of them differs within a pair, how their axes overlap.

Each concept is a study of its own, over the same models, alignments and layers. This step reads the
activations of all of them and evaluates k-way: out of fold by each model's own axes, and by axes of
the other models, mapped by alignments that saw no label. The same items in word counts and in other
features of the surface are the baselines. Its rows in `evaluations` have metrics of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from axes.analysis.comparison.kway import (
    Concepts,
    Counterparts,
    Items,
    axis_cosines,
    balanced_accuracy,
    permutation_p_value,
    permuted_accuracies,
    predict_concepts,
)
from axes.analysis.stats.auroc import Estimate, Groups, null_interval, share_estimate
from axes.analysis.stats.baselines import baseline_fitter, text_kernels
from axes.analysis.stats.minimize import one_thread
from axes.analysis.stats.splits import grouped_folds, out_of_fold
from axes.analysis.study.definition import StudyDefinition
from axes.analysis.study.evaluations import Evaluation, corrected, evaluate_once
from axes.analysis.study.fit import Member, align_member, read_members
from axes.warehouse.errors import DefinitionError
from axes.warehouse.handle import Warehouse
from axes.warehouse.progress import track
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key

# Raised whenever the rows of unchanged studies would change.
_VERSION = 1
# Accuracies are of all concepts: they are fitted and evaluated on no single one.
ALL = "*"


def run_concepts(
    root: Path, studies: Mapping[str, StudyDefinition], *, memory_limit: int | None = None
) -> str:
    """Evaluate k-way what some studies fitted, by id; the id of the rows in `evaluations`.

    The studies differ in their prompts only. Stored rows are not computed again. Raises
    `DefinitionError` for fewer than two concepts, or layers that differ between them.
    """
    definitions = list(studies.values())
    first = definitions[0]
    if len(studies) < 2 or len({replace(each, prompts="") for each in definitions}) > 1:
        raise DefinitionError("concepts are two or more studies that differ in their prompts only")
    if first.layer_policy != "fraction":
        raise DefinitionError(
            "concepts are compared at one layer of each model: layer_policy is "
            f"{first.layer_policy}, fraction is needed"
        )
    warehouse = Warehouse.open(root, memory_limit=memory_limit)
    concept_id = content_key("concepts", _VERSION, list(studies))
    parameters = {
        **asdict(first),
        "prompts": ", ".join(each.prompts for each in definitions),
        "concepts": {each.prompts: study_id for study_id, each in studies.items()},
    }

    def compute(run: Run) -> list[Evaluation]:
        pool = _read_pool(warehouse, run, definitions)
        with one_thread():
            rows = [*_accuracy_rows(pool, first), *_baseline_rows(pool)]
            return [*rows, *_overlap_rows(pool, first)]

    evaluate_once(warehouse, "study concepts", concept_id, parameters, compute)
    return concept_id


@dataclass(frozen=True)
class _Pool:
    """The items of all concepts: each model's, in its own space and mapped into the reference's."""

    names: list[str]
    members: list[Member]
    texts: list[list[str]]
    counterparts: list[Counterparts]
    concepts: Concepts
    folds: Groups
    own: list[Items]
    mapped: list[Items]


def _read_pool(warehouse: Warehouse, run: Run, definitions: Sequence[StudyDefinition]) -> _Pool:
    first = definitions[0]
    of_concept = [read_members(warehouse, each) for each in definitions]
    parts = [
        members[0].labelled[each.prompts]
        for members, each in zip(of_concept, definitions, strict=True)
    ]
    folds = [grouped_folds(part.labels, part.groups, seed=first.seed) for part in parts]
    counterparts = [
        Counterparts.of(part.labels, part.groups, fold)
        for part, fold in zip(parts, folds, strict=True)
    ]
    members = of_concept[0]
    reference = members[first.models.index(first.reference)]
    own, mapped = [], []
    with track("concepts", len(members), "models") as advance:
        for index, member in enumerate(members):
            matrices = (
                group[index].labelled[each.prompts]
                for group, each in zip(of_concept, definitions, strict=True)
            )
            alignment = align_member(warehouse, run, first, member, reference).fit.alignment
            own.append(_differences(counterparts, (matrix.x[:] for matrix in matrices)))
            mapped.append(alignment.map(own[-1]))
            advance(1)
    rows = [each.positives for each in counterparts]
    return _Pool(
        names=[each.prompts for each in definitions],
        members=members,
        texts=[part.texts.to_pylist() for part in parts],
        counterparts=counterparts,
        concepts=np.repeat(np.arange(len(rows)), [len(each) for each in rows]),
        folds=np.concatenate([fold[each] for fold, each in zip(folds, rows, strict=True)]),
        own=own,
        mapped=mapped,
    )


def _differences(counterparts: Sequence[Counterparts], blocks: Iterable[np.ndarray]) -> Items:
    """The items of all concepts from the rows of each."""
    pairs = zip(counterparts, blocks, strict=True)
    return np.concatenate([pairing.differences(block) for pairing, block in pairs])


def _accuracy_rows(pool: _Pool, definition: StudyDefinition) -> Iterator[Evaluation]:
    """k-way, of each model by its own axes and by those of the other models."""
    with track("k-way", len(pool.members), "models") as advance:
        for index, member in enumerate(pool.members):
            others = [items for other, items in enumerate(pool.mapped) if other != index]
            scorers: dict[str, tuple[Items, list[Items]]] = {"native": (pool.own[index], [])}
            if others:
                scorers["leave_one_out"] = (pool.mapped[index], others)
            for scorer, (items, sources) in scorers.items():
                given = partial(
                    predict_concepts,
                    items,
                    folds=pool.folds,
                    sources=sources,
                    universal=definition.universal,
                )
                null = permuted_accuracies(given, pool.concepts, pool.folds, seed=definition.seed)
                yield from _predicted_rows(pool, scorer, given(pool.concepts), null, member)
            advance(1)


def _predicted_rows(
    pool: _Pool,
    scorer: str,
    predicted: Concepts,
    null: np.ndarray | None = None,
    member: Member | None = None,
) -> Iterator[Evaluation]:
    """The accuracy, its null, and the share of each concept's items predicted as each."""
    row = partial(Evaluation.of, scorer, member=member, is_in_sample=False)
    total = partial(row, fitted_on=ALL, judged_on=ALL, positive_count=len(predicted))
    accuracy = balanced_accuracy(predicted, pool.concepts)
    if null is not None:
        accuracy = replace(accuracy, p_value=permutation_p_value(accuracy.estimate, null))
        yield total("kway_accuracy_shuffled", null_interval(null))
    yield total("kway_accuracy", accuracy)
    for concept, name in enumerate(pool.names):
        of_concept = predicted[pool.concepts == concept]
        # The prompt set too, so that a subset without that set goes without the step's rows.
        cell = partial(row, "confusion", judged_on=name, prompt_set=name)
        for other, other_name in enumerate(pool.names):
            share = share_estimate(float((of_concept == other).sum()), len(of_concept))
            yield cell(share, fitted_on=other_name, positive_count=len(of_concept))


def _baseline_rows(pool: _Pool) -> Iterator[Evaluation]:
    """The same items in features of the surface, each concept against the rest by ridge."""
    kernels = text_kernels([text for texts in pool.texts for text in texts])
    ends = np.cumsum([len(texts) for texts in pool.texts])[:-1]
    for scorer, kernel in kernels.items():
        half = _differences(pool.counterparts, np.split(kernel, ends))
        items = _differences(pool.counterparts, np.split(half.T, ends))
        is_of_concept = np.arange(len(pool.names))[:, None] == pool.concepts
        (scores,) = out_of_fold(baseline_fitter([items], is_of_concept), pool.folds)
        yield from _predicted_rows(pool, scorer, scores.argmax(axis=0))


def _overlap_rows(pool: _Pool, definition: StudyDefinition) -> list[Evaluation]:
    """Cosines between concepts' axes, of each model in its own space, and of the shared axes."""
    rows: list[Evaluation] = []
    spaces: list[tuple[str, Member | None, list[Items]]] = [("universal", None, pool.mapped)]
    spaces += [
        ("native", member, [items]) for member, items in zip(pool.members, pool.own, strict=True)
    ]
    for scorer, member, sources in spaces:
        cosines, null = axis_cosines(
            sources, pool.concepts, universal=definition.universal, seed=definition.seed
        )
        for first, second in combinations(range(len(pool.names)), 2):
            value, drawn = float(cosines[first, second]), null[:, first, second]
            row = partial(
                Evaluation.of,
                scorer,
                member=member,
                fitted_on=pool.names[first],
                judged_on=pool.names[second],
            )
            tested = Estimate(value, p_value=permutation_p_value(abs(value), np.abs(drawn)))
            rows.append(row("concept_cosine", tested))
            rows.append(row("concept_cosine_shuffled", null_interval(drawn)))
    return corrected(rows, by=("metric", "scorer", "model"))
