"""Diagnose every model and prompt set of a study, and keep what was found in `diagnostics`.

Why a shared axis ranks a model's prompts as it does, above all where cosine and AUROC disagree.

What is possible at all is in docs/methods.md: on the prompts that a difference in means was fitted
on, its cosine with the axis has the sign of the class means' gap along the axis, whatever the
alignment. A positive cosine beside an AUROC below one half therefore needs rows that carry the
means, or other prompts, another map or another kind of direction behind one of the two numbers.
Each check looks for one cause and says in plain words, with its numbers, whether it is there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from axes.analysis.activations import Matrix, Space, find_space, load_matrix
from axes.analysis.registry import read_alignment
from axes.analysis.report.section import latest_study
from axes.analysis.stats.auroc import Estimate
from axes.analysis.study import diagnosis_checks
from axes.analysis.study import diagnosis_checks as score_checks
from axes.analysis.study.diagnosis_case import Case, Finding, View, look
from axes.analysis.study.fit import paired
from axes.warehouse.connection import Connection, connect, query, rows, vectors
from axes.warehouse.errors import AxesError
from axes.warehouse.progress import track
from axes.warehouse.runs import record_run
from axes.warehouse.writer import data_file, rows_table, write_rows


def find_diagnosed(connection: Connection, name: str | None) -> tuple[str, str | None]:
    """The study that `name` means, and the model if it is one: the last study with that model.

    `name` is the start of a study's id, a model, or None for the last study of all. Raises
    `AxesError` where it is none of them.
    """
    if name is None:
        return latest_study(connection), None
    studies = rows(
        connection,
        "select study_id from evaluations where starts_with(study_id, ?) limit 1",
        [name],
    )
    if studies:
        return latest_study(connection, name), None
    with_model = rows(
        connection,
        """
        select study_id
        from evaluations
        inner join runs using (run_id)
        where model = ? and scorer = 'universal'
        order by started_at desc
        limit 1
        """,
        [name],
    )
    if not with_model:
        raise AxesError(
            f"{name} is neither the start of a study's id nor a model of a study: "
            "see `axes list studies`, which names the models of each"
        )
    return with_model[0]["study_id"], name


def diagnose_study(root: Path, study_id: str, *, memory_limit: int | None = None) -> None:
    """Write the findings of a study, unless they are there.

    Raises `CoverageError` where activations that the study was judged on are gone.
    """
    if data_file(root, "diagnostics", study_id).exists():
        return
    connection = connect(root, memory_limit=memory_limit)
    judged = rows(
        connection,
        """
        select model, model_id, prompt_set, layer, parameters,
            max(axis_id) filter (where scorer = 'universal') as axis_id,
            max(axis_id) filter (where scorer = 'native') as native_id,
            bool_or(is_in_sample) filter (where scorer = 'universal') as is_in_sample
        from evaluations
        where study_id = ? and metric = 'auroc' and scorer in ('universal', 'native')
        group by all
        order by model, prompt_set
        """,
        [study_id],
    )
    with record_run(root, "diagnose", {"study_id": study_id}) as run:
        found = []
        with track("diagnose", len(judged), "prompt sets") as advance:
            for row in judged:
                findings = diagnose(_case(root, connection, study_id, row))
                found += [
                    {
                        **{key: row[key] for key in ("model", "model_id", "prompt_set", "axis_id")},
                        "study_id": study_id,
                        "place": place,
                        **_columns(finding),
                        "run_id": run.run_id,
                    }
                    for place, finding in enumerate(findings)
                ]
                advance(1)
        write_rows(root, "diagnostics", rows_table("diagnostics", found), name=study_id)
        run.rows += len(found)


def _columns(finding: Finding) -> dict[str, Any]:
    figures = {
        name: value if math.isfinite(value) else None for name, value in finding.figures.items()
    }
    return {
        "check_name": finding.check,
        "is_fault": finding.is_fault,
        "verdict": finding.verdict,
        "figures": json.dumps(figures),
    }


def _case(root: Path, connection: Connection, study_id: str, row: dict[str, Any]) -> Case:
    """What was judged in one row of the study, read back from the warehouse."""
    study = json.loads(row["parameters"])
    where = {name: study[name] for name in ("site", "pooling", "template")}
    axis = rows(
        connection,
        "select space_model, space_model_id, layer from axes where axis_id = ?",
        [row["axis_id"]],
    )[0]
    mine = find_space(connection, f"{row['model']}@{row['model_id']}", **where).at(row["layer"])
    name = f"{axis['space_model']}@{axis['space_model_id']}"
    theirs = find_space(connection, name, **where).at(axis["layer"])

    def both(prompt_set: str, limit: int | None = None) -> tuple[Matrix, Matrix]:
        return paired(*(_read(connection, space, prompt_set, limit) for space in (mine, theirs)))

    judged, reference = both(row["prompt_set"])
    benign, benign_reference = both(study["align"], study["align_rows"])
    fitted = _read(connection, mine, study["prompts"])
    stored = rows(
        connection,
        "select prompt_id, projection, alignment_id from projections "
        "where model = ? and model_id = ? and axis_id = ?",
        [row["model"], row["model_id"], row["axis_id"]],
    )
    projections = {item["prompt_id"]: item["projection"] for item in stored}
    alignment = read_alignment(root, connection, stored[0]["alignment_id"])
    assert alignment is not None
    return Case(
        x=judged.x,
        labels=judged.labels,
        groups=judged.groups,
        reference_x=reference.x,
        fitted_x=fitted.x,
        fitted_labels=fitted.labels,
        benign_x=benign.x,
        benign_reference_x=benign_reference.x,
        alignment=alignment.fit.alignment,
        direction=_vector(connection, row["native_id"]),
        axis=_vector(connection, row["axis_id"]),
        is_in_sample=row["is_in_sample"],
        is_reference=mine == theirs,
        bag_of_words=_bag_of_words(connection, study_id, row["prompt_set"]),
        stored=np.array([projections[prompt_id] for prompt_id in judged.prompt_ids]),
    )


def _read(
    connection: Connection, space: Space, prompt_set: str, limit: int | None = None
) -> Matrix:
    # Rows that the study went without are reported by the study.
    return load_matrix(connection, space, prompt_set, limit=limit, allow_missing=True)


def _vector(connection: Connection, axis_id: str) -> np.ndarray:
    table = query(connection, "select vector from axes where axis_id = ?", [axis_id])
    return vectors(table.column("vector"))[0].astype(np.float64)


def _bag_of_words(connection: Connection, study_id: str, prompt_set: str) -> Estimate | None:
    found = rows(
        connection,
        """
        select estimate, lower, upper
        from evaluations
        where study_id = ? and prompt_set = ? and scorer = 'bag_of_words' and metric = 'auroc'
        """,
        [study_id, prompt_set],
    )
    return Estimate(**found[0]) if found else None


# Causes, in the order in which one explains the next: the first fault is the diagnosis.
_CAUSES: tuple[Callable[[Case, View], Finding], ...] = (
    score_checks.projection,
    score_checks.few_rows,
    diagnosis_checks.massive_dimensions,
    score_checks.signal,
    score_checks.labels,
    score_checks.direction,
    score_checks.class_difference,
    diagnosis_checks.alignment,
    score_checks.source,
    diagnosis_checks.ridge_lambda,
    diagnosis_checks.intercept,
)

HEALTHY = "healthy"


def diagnose(case: Case) -> list[Finding]:
    """Whether cosine and AUROC disagree, every cause looked for, and last the diagnosis.

    The last finding is named `diagnosis`; its verdict starts with the name of the check that found
    the first fault, or with `healthy`.
    """
    view = look(case)
    symptom = score_checks.disagreement(case, view)
    found = [check(case, view) for check in _CAUSES]
    faults = [finding for finding in (*found, symptom) if finding.is_fault]
    verdict = f"{HEALTHY}: no check finds a fault"
    if faults:
        verdict = f"{faults[0].check}: {faults[0].verdict}"
        if symptom.is_fault and faults[0] is symptom:
            verdict = f"unexplained: {symptom.verdict}"
    return [
        symptom,
        *found,
        Finding("diagnosis", bool(faults), verdict, {"fault_count": float(len(faults))}),
    ]
