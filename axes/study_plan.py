"""A study from a user's options or file: its models, and the rows that are missing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from axes.analysis.activations import is_covered
from axes.analysis.study.definition import (
    StudyDefinition,
    StudyFile,
    find_study_file,
    packaged_studies,
    read_study_file,
)
from axes.ingest.models.registry import ModelSpec, group_members, known_as, resolve
from axes.warehouse.connection import is_imported, rows
from axes.warehouse.errors import DefinitionError
from axes.warehouse.handle import Warehouse
from axes.warehouse.names import did_you_mean
from axes.warehouse.storage.store import store_at

_MODEL_KEYS = {"group", "models", "reference"}
_PROMPT_KEYS = {"prompts", "concepts"}
# What a study may be repeated with: how a prompt is written and which of its tokens are read.
CHOICES = ("pooling", "template")


@dataclass(frozen=True)
class PlannedStudy:
    """A study to run; `origins` says how the user named each model.

    `concepts` are the prompt sets of the studies that are evaluated k-way with it.
    """

    definition: StudyDefinition
    origins: dict[str, str]
    published: Mapping[str, dict[str, float]]
    concepts: tuple[str, ...] = ()


def plan_studies(
    name: str | Path | None, options: Mapping[str, Any], *, hints: Iterable[str] = ()
) -> list[PlannedStudy]:
    """The studies of a file (its path, or the name of one of the package), or of options alone.

    `options` go before the keys of the file; several poolings or templates, with commas, are a
    study for each. Raises `DefinitionError` for a file that does not
    exist or is wrong; `hints` are other words that could have been meant.
    """
    file = StudyFile(Path(), ({},), {})
    if name is not None:
        path = find_study_file(str(name))
        if path is None:
            packaged = packaged_studies()
            raise DefinitionError(
                f"no study file {name}{did_you_mean(str(name), [*packaged, *hints])}: "
                f"give the path of one, {' or '.join(packaged)}"
            )
        file = read_study_file(path)
    replaced = _MODEL_KEYS if _MODEL_KEYS & options.keys() else set()
    replaced = replaced | (_PROMPT_KEYS if _PROMPT_KEYS & options.keys() else set())
    if options.keys() >= _PROMPT_KEYS:
        raise DefinitionError("give --prompts or --concepts, not both")
    listed = {name: options[name].split(",") for name in CHOICES if name in options}
    if "concepts" in options:
        listed["prompts"] = options["concepts"]
    planned = []
    for settings in file.studies:
        kept = {key: value for key, value in settings.items() if key not in replaced}
        for values in itertools.product(*listed.values()):
            chosen = dict(zip(listed, values, strict=True))
            planned.append(_plan_study({**kept, **options, **chosen}, file.published))
    return list({each.definition: each for each in planned}.values())


def _plan_study(
    settings: dict[str, Any], published: Mapping[str, dict[str, float]]
) -> PlannedStudy:
    """The study of some settings: fields of `StudyDefinition`, and group, or models and reference.

    Raises `DefinitionError` where one is missing or wrong, `ModelError` for an unknown group.
    """
    group, models = settings.pop("group", None), settings.pop("models", ())
    reference, concepts = settings.pop("reference", None), settings.pop("concepts", ())
    if concepts and len(set(concepts)) < 2:
        raise DefinitionError(f"concepts are two or more prompt sets, found {', '.join(concepts)}")
    for name in ("prompts", "align"):
        if name not in settings:
            raise DefinitionError(f"give --{name}, or a study file")
    if (group is None) == (not models):
        raise DefinitionError("give --group, or --model for each model")
    if group is not None:
        models, group_reference = group_members(group)
        reference = reference or group_reference
    if reference is None:
        raise DefinitionError("give --reference with --model")
    origins = {known_as(model): model for model in models}
    definition = StudyDefinition(
        models=tuple(origins),
        reference=known_as(reference),
        label=group or known_as(reference).partition("@")[0],
        **settings,
    )
    return PlannedStudy(definition, origins, published, tuple(concepts))


def run_planned(
    root: Path,
    studies: Sequence[PlannedStudy],
    *,
    no_ingest: bool = False,
    sensitivity: bool = False,
    memory_limit: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Iterator[str]:
    """Run studies in turn, after their missing rows are ingested unless `no_ingest`; yields ids.

    Before the first model runs, the prompt sets of all studies are imported and the hub is asked
    for all models to run, so that a licence that is not accepted is an error of the first minute.
    """
    from axes.analysis.study.robustness.sensitivity import measure_sensitivity
    from axes.analysis.study.run import run_study

    if not no_ingest:
        from axes.ingest.models.download import require_access

        import_sets(root, studies)
        require_access(spec for planned in studies for spec in _missing_models(root, planned))
    store_at(root).require()
    for planned in studies:
        if not no_ingest:
            _ingest_missing(root, planned, device, dtype)
        definition, published = planned.definition, planned.published
        is_first = definition.prompts in planned.concepts[:1]
        study_id = run_study(
            root,
            definition,
            concepts=planned.concepts if is_first else (),
            published=published,
            memory_limit=memory_limit,
        )
        if sensitivity:
            measure_sensitivity(root, study_id, definition, memory_limit=memory_limit)
        yield study_id


def run_concepts(
    root: Path,
    studies: Sequence[PlannedStudy],
    study_ids: Sequence[str],
    *,
    memory_limit: int | None = None,
) -> list[str]:
    """Evaluate k-way the studies that share their concepts and all but their prompts; their ids."""
    from axes.analysis.comparison import concepts

    groups: dict[Any, dict[str, StudyDefinition]] = {}
    for planned, study_id in zip(studies, study_ids, strict=True):
        if planned.concepts:
            key = (planned.concepts, replace(planned.definition, prompts=""))
            groups.setdefault(key, {})[study_id] = planned.definition
    return [
        concepts.run_concepts(root, group, memory_limit=memory_limit) for group in groups.values()
    ]


def direction_angles(
    root: Path, studies: Sequence[PlannedStudy], study_ids: Sequence[str]
) -> list[dict[str, Any]]:
    """Angles between each model's directions by the poolings and templates of several studies."""
    definitions = [planned.definition for planned in studies]
    if len({tuple(getattr(each, name) for name in CHOICES) for each in definitions}) < 2:
        return []
    return rows(
        Warehouse.open(root).connection,
        """
        select distinct angles.* exclude (axis_id, other_axis_id, model_id, site)
        from v_direction_angles as angles
        inner join v_study_axes as study using (axis_id)
        inner join v_study_axes as other on angles.other_axis_id = other.axis_id
        where list_contains($1, study.study_id) and list_contains($1, other.study_id)
        order by all
        """,
        [study_ids],
    )


def report_file(
    report: Path, planned: PlannedStudy, studies: Sequence[PlannedStudy], study_id: str
) -> Path:
    """The file of a study's report: as given for the only one, else with its group in its name."""
    if len(studies) == 1:
        return report
    labels = [each.definition.label for each in studies]
    label = planned.definition.label
    name = label if labels.count(label) == 1 else f"{label}-{study_id[:8]}"
    return report.with_stem(f"{report.stem}-{name}")


def import_sets(root: Path, studies: Iterable[PlannedStudy]) -> None:
    """Import the ready prompt sets of studies that are not stored."""
    from axes.ingest.prompts import import_ready_sets

    store_at(root).init()
    for planned in studies:
        import_ready_sets(root, prompt_limits(planned.definition))


def prompt_limits(definition: StudyDefinition) -> dict[str, int | None]:
    """The prompt sets of a study, and how many of each set's first prompts it takes."""
    return {definition.align: definition.align_rows, **dict.fromkeys(definition.labelled_sets)}


def _missing_models(root: Path, planned: PlannedStudy) -> list[ModelSpec]:
    """The models of a study whose rows are incomplete, but for those with imported rows."""
    definition, warehouse = planned.definition, Warehouse.open(root)
    limits = prompt_limits(definition)
    where = (definition.site, definition.pooling, definition.template)
    return [
        resolve(origin)
        for model, origin in planned.origins.items()
        if not is_imported(warehouse.connection, model)
        and not is_covered(warehouse, model, limits, *where)
    ]


def _ingest_missing(
    root: Path, planned: PlannedStudy, device: str | None, dtype: str | None
) -> None:
    """Run each model whose rows are incomplete."""
    if not (missing := _missing_models(root, planned)):
        return  # What is imported next takes seconds.
    from axes.ingest.activations import ingest_activations
    from axes.ingest.requests import ActivationRequest

    definition = planned.definition
    template, *template_options = definition.template.split("+")
    for spec in missing:
        request = ActivationRequest(
            prompt_sets=prompt_limits(definition),
            sites=(definition.site,),
            poolings=(definition.pooling,),
            template=template,
            template_options=template_options,
            device=device,
            dtype=dtype,
            skip_unusable=definition.allow_missing,
        )
        ingest_activations(root, spec, request)
