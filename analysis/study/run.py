"""The whole chain over a group of models, as one idempotent step: fit, align, project, evaluate.

Per model a direction at every layer; at the study's layer an alignment into the reference, the
aligned unit directions decomposed into the universal axis, and one more axis per model with that
model left out. Everything is written to the warehouse, and results are read back with SQL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from axes.analysis.drift.token_projections import project_tokens
from axes.analysis.stats.minimize import one_thread
from axes.analysis.study.claims import PUBLISHED, write_published
from axes.analysis.study.definition import EVERY_MODEL, StudyDefinition
from axes.analysis.study.evaluate import evaluate
from axes.analysis.study.evaluations import (
    STEP_VERSION,
    Evaluation,
    Steps,
    evaluate_once,
    stored_parameters,
)
from axes.analysis.study.fit import METHOD_VERSION, Member, fit_study, read_members
from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.errors import AxesError
from axes.warehouse.handle import Warehouse
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key

_INTERVAL = ("lower", "upper", "p_value", "p_value_adjusted")


def run_study(
    root: Path,
    definition: StudyDefinition,
    *,
    concepts: Sequence[str] = (),
    published: Mapping[str, dict[str, float]] = MappingProxyType({}),
    memory_limit: int | None = None,
) -> str:
    """Run what is not stored and return the study's id; its numbers are in `evaluations`.

    `concepts` are prompt sets to be studied next, whose vectors are read in the same pass.
    `published` (model, or `*` for every model -> metric -> value) are stored next to the study's.
    `memory_limit` (bytes) moves large matrices to the disk and changes no number.
    Raises `CoverageError`, `ModelError`, `PromptError` or `LabelError` where rows are missing or
    do not fit.
    """
    warehouse = Warehouse.open(root, memory_limit=memory_limit)
    members = read_members(warehouse, definition)
    study_id = _study_id(definition, members)

    def compute(run: Run) -> list[Evaluation]:
        study = fit_study(warehouse, run, definition, members, concepts)
        with one_thread():
            return evaluate(study, Steps(warehouse, run))

    evaluate_once(warehouse, "study", study_id, asdict(definition), compute, {"study_id": study_id})
    if published:
        write_published(warehouse, study_id, definition, published)
    project_tokens(warehouse, study_id)
    return study_id


def find_study(warehouse: Warehouse, definition: StudyDefinition) -> str:
    """The id of a study that has been run; raises `AxesError` where it has not."""
    members = read_members(warehouse, definition)
    study_id = _study_id(definition, members)
    if not warehouse.has("evaluations", study_id):
        raise AxesError(
            f"the study of {definition.label} on {definition.prompts} has not been run: "
            "give it to `axes study` first"
        )
    return study_id


def _study_id(definition: StudyDefinition, members: Sequence[Member]) -> str:
    return content_key(
        METHOD_VERSION,
        STEP_VERSION,
        asdict(definition),
        [
            (
                member.space.model_id,
                [matrix.row_set_hash for matrix in member.labelled.values()],
                member.benign.row_set_hash,
            )
            for member in members
        ],
    )


def read_definition(connection: Connection, study_id: str) -> StudyDefinition:
    """The definition of a study that has been run, as its rows state it."""
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in stored_parameters(connection, study_id).items()
    }
    return StudyDefinition(**settings)


def study_result(root: Path, study_id: str) -> dict[str, Any]:
    """A study's numbers as nested dicts, read with SQL; the keys are described in the README."""
    stored = rows(
        connect(root),
        "select * from evaluations where study_id = ? and judged_on is null "
        "order by component, model, prompt_set",
        [study_id],
    )
    parameters = json.loads(stored[0]["parameters"])
    models: dict[str, Any] = {
        name.partition("@")[0]: {"layer": None, "ridge_lambda": None, "auroc": {}}
        for name in parameters["models"]
    }
    baselines: dict[str, dict[str, float]] = {}
    shared: dict[str, dict[str, Any]] = {}
    counts: dict[str, dict[str, dict[str, int]]] = {"missing_count": {}, "alignment_overlap": {}}
    for row in stored:
        metric, scorer, estimate = row["metric"], row["scorer"], row["estimate"]
        model, prompt_set = row["model"], row["prompt_set"]
        name = scorer if metric == "auroc" else f"{scorer}_{metric}"
        if metric in counts:
            counts[metric].setdefault(model, {})[prompt_set] = int(estimate)
        elif metric.endswith(PUBLISHED):
            # An earlier version stored `*` as the name of a model; it sorts before any other.
            for each in models if model == EVERY_MODEL else (model,):
                models[each].setdefault("published", {})[scorer] = estimate
        elif prompt_set is not None and model is None:
            baselines.setdefault(prompt_set, {})[name] = estimate
        elif prompt_set is not None:
            area = models[model]["auroc"].setdefault(prompt_set, {})
            area |= _with_interval(name, row)
            area["is_in_sample"] = row["is_in_sample"] or area.get("is_in_sample", False)
            models[model]["layer"] = row["layer"]
        elif model is not None:
            key = "alignment_r2" if metric == "r2_held_out" else metric
            models[model][key if scorer == "aligned" else f"{scorer}_{key}"] = estimate
        elif row["component"] is not None:
            shared.setdefault(scorer, {}).setdefault(metric, []).append(estimate)
        else:
            shared.setdefault(scorer, {}).update(_with_interval(metric, row))
    return {
        "study_id": study_id,
        "definition": parameters,
        "models": models,
        "singular_values": shared["universal"]["singular_value"],
        "shared": shared,
        "baselines": baselines,
        "missing": counts["missing_count"],
        "alignment_overlap": counts["alignment_overlap"],
    }


def _with_interval(name: str, row: Mapping[str, Any]) -> dict[str, float]:
    """An estimate under its name, and the ends and p-values that it has."""
    ends = {f"{name}_{end}": row[end] for end in _INTERVAL if row[end] is not None}
    return {name: row["estimate"], **ends}
