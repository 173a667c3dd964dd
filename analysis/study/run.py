"""The whole chain over a group of models, as one idempotent step: fit, align, project, evaluate.

Per model a difference-in-means direction at every layer; at the study's layer a ridge alignment
into the reference, the aligned unit directions stacked and decomposed into the universal axis, and
one axis more per model with that model left out. Everything is written back, and what is printed
is read back with SQL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from axes.analysis.drift.trajectories import project_tokens
from axes.analysis.study.claims import PUBLISHED, write_published
from axes.analysis.study.definition import Member, StudyDefinition, read_member
from axes.analysis.study.evaluate import evaluate
from axes.analysis.study.figures import STEP_VERSION, Steps, write_figures
from axes.analysis.study.fit import METHOD_VERSION, align, fit_axes, project
from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.errors import AxesError
from axes.warehouse.progress import track
from axes.warehouse.runs import record_run
from axes.warehouse.writer import content_key, data_file


def run_study(
    root: Path,
    definition: StudyDefinition,
    *,
    published: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    memory_limit: int | None = None,
) -> str:
    """Run what is not there yet and return the study's id; its numbers are in `evaluations`.

    `published` (model -> figure -> value) are figures of others, stored beside the study's own.
    `memory_limit` (bytes) moves large matrices to the disk and changes no number.
    Raises `CoverageError`, `ModelError`, `PromptError` or `LabelError` where rows are missing or
    do not fit.
    """
    connection = connect(root, memory_limit=memory_limit)
    members = [read_member(connection, definition, name) for name in definition.models]
    study_id = _study_id(definition, members)
    if not data_file(root, "evaluations", study_id).exists():
        parameters = {"study_id": study_id, **asdict(definition)}
        with record_run(root, "study", parameters, seed=definition.seed) as run:
            reference = members[definition.models.index(definition.reference)]
            aligned = []
            with track("align", len(members), "models") as advance:
                for member in members:
                    aligned.append(align(root, connection, run, definition, member, reference))
                    advance(1)
            universal, fitted = fit_axes(root, connection, run, definition, members, aligned)
            project(root, connection, run, definition, members, fitted, universal)
            steps = Steps(root, connection, run)
            figures = evaluate(definition, members, fitted, universal, steps)
            write_figures(root, run, study_id, figures, asdict(definition))
    if published:
        write_published(root, study_id, definition, published)
    project_tokens(root, study_id, memory_limit=memory_limit)
    return study_id


def study_result(root: Path, study_id: str) -> dict[str, Any]:
    """A study's numbers as nested dicts, read with SQL; the keys are described in the README."""
    connection = connect(root)
    found = rows(
        connection,
        "select * from evaluations where study_id = ? order by component, model, prompt_set",
        [study_id],
    )
    parameters = json.loads(found[0]["parameters"])
    models: dict[str, Any] = {
        name.partition("@")[0]: {"layer": None, "ridge_lambda": None, "auroc": {}}
        for name in parameters["models"]
    }
    baselines: dict[str, dict[str, float]] = {}
    shared: dict[str, dict[str, Any]] = {}
    counts: dict[str, dict[str, dict[str, int]]] = {"missing_count": {}, "alignment_overlap": {}}
    for row in found:
        metric, scorer, estimate = row["metric"], row["scorer"], row["estimate"]
        name = scorer if metric == "auroc" else f"{scorer}_{metric}"
        if metric in counts:
            counts[metric].setdefault(row["model"], {})[row["prompt_set"]] = int(estimate)
        elif metric.endswith(PUBLISHED):
            figures = models[row["model"]].setdefault("published", {})
            figures[row["scorer"]] = estimate
        elif row["prompt_set"] is not None and row["model"] is None:
            baselines.setdefault(row["prompt_set"], {})[name] = estimate
        elif row["prompt_set"] is not None:
            area = models[row["model"]]["auroc"].setdefault(row["prompt_set"], {})
            area[name] = estimate
            for end in ("lower", "upper", "p_value", "p_value_adjusted"):
                if row[end] is not None:
                    area[f"{name}_{end}"] = row[end]
            area["is_in_sample"] = row["is_in_sample"] or area.get("is_in_sample", False)
            models[row["model"]]["layer"] = row["layer"]
        elif row["model"] is None:
            _add_shared(shared.setdefault(scorer, {}), row)
        else:
            name = "alignment_r2" if metric == "r2_held_out" else metric
            models[row["model"]][name] = estimate
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


def _add_shared(figures: dict[str, Any], row: dict[str, Any]) -> None:
    """A figure of the whole group; those with components are lists in their order."""
    metric = row["metric"]
    if row["component"] is not None:
        figures.setdefault(metric, []).append(row["estimate"])
        return
    figures[metric] = row["estimate"]
    for end in ("lower", "upper", "p_value", "p_value_adjusted"):
        if row[end] is not None:
            figures[f"{metric}_{end}"] = row[end]


def find_study(connection: Connection, definition: StudyDefinition) -> str:
    """The id of a study that has been run; raises `AxesError` where it has not."""
    members = [read_member(connection, definition, name) for name in definition.models]
    study_id = _study_id(definition, members)
    if not rows(connection, "from evaluations where study_id = ? limit 1", [study_id]):
        raise AxesError(
            f"the study of {definition.label} on {definition.prompts} has not been run: "
            "give it to `axes study` first"
        )
    return study_id


def read_definition(connection: Connection, study_id: str) -> StudyDefinition:
    """The definition of a study that has been run, as its rows state it."""
    found = rows(
        connection, "select parameters from evaluations where study_id = ? limit 1", [study_id]
    )
    stated: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in json.loads(found[0]["parameters"]).items()
    }
    return StudyDefinition(**stated)


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
