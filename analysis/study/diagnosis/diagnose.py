"""Diagnose why a shared axis ranks a model's prompts as it does; findings go to `diagnostics`.

docs/methods.md derives what is possible: on the prompts that a difference in means was fitted on,
its cosine with the axis has the sign of the class means' gap along the axis, whatever the
alignment. A positive cosine with an AUROC below one half therefore needs a few rows that dominate
the means, or other prompts, another map or another kind of direction behind one of the two numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from axes.analysis.activations import Matrix, Space, load_matrix
from axes.analysis.registry import read_alignment
from axes.analysis.report.section import latest_study
from axes.analysis.study.diagnosis import checks
from axes.analysis.study.diagnosis.case import Case, Finding, View, look
from axes.analysis.study.fit import paired
from axes.warehouse.axes import read_axes
from axes.warehouse.connection import Connection, rows
from axes.warehouse.errors import AxesError
from axes.warehouse.handle import Warehouse
from axes.warehouse.progress import track
from axes.warehouse.render import finite
from axes.warehouse.writer import rows_table


def find_diagnosed(connection: Connection, name: str | None) -> tuple[str, str | None]:
    """The study that `name` means, and the model if it is one: the last study with that model.

    `name` is the start of a study's id, a model, or None for the last study of all. Raises
    `AxesError` where it is none of them.
    """
    is_start = "select study_id from evaluations where starts_with(study_id, ?) limit 1"
    if name is None or rows(connection, is_start, [name]):
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


_KEYS = ("model", "model_id", "prompt_set", "axis_id")


@dataclass(frozen=True)
class _Evaluated:
    """What a study evaluated of one model on one set; `parameters` is the study's definition."""

    model: str
    model_id: str
    prompt_set: str
    parameters: str
    axis_id: str
    native_id: str
    is_in_sample: bool


def diagnose_study(root: Path, study_id: str, *, memory_limit: int | None = None) -> None:
    """Write the findings of a study, unless they are stored.

    Raises `CoverageError` where activations that the study was evaluated on are missing.
    """
    warehouse = Warehouse.open(root, memory_limit=memory_limit)
    if warehouse.has("diagnostics", study_id):
        return
    evaluated = warehouse.rows(
        _Evaluated,
        """
        select model, model_id, prompt_set, parameters,
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
    with warehouse.run("diagnose", {"study_id": study_id}) as run:
        rows = []
        with track("diagnose", len(evaluated), "prompt sets") as advance:
            for each in evaluated:
                rows += [
                    {
                        **{name: getattr(each, name) for name in _KEYS},
                        "study_id": study_id,
                        "check_name": finding.check,
                        "place": place,
                        "is_fault": finding.is_fault,
                        "verdict": finding.verdict,
                        "figures": json.dumps(finite(finding.figures)),
                        "run_id": run.run_id,
                    }
                    for place, finding in enumerate(diagnose(_case(warehouse, study_id, each)))
                ]
                advance(1)
        warehouse.write("diagnostics", rows_table("diagnostics", rows), name=study_id)
        run.rows += len(rows)


def _case(warehouse: Warehouse, study_id: str, evaluated: _Evaluated) -> Case:
    """What was evaluated in one row of the study, read back from the warehouse."""
    study = json.loads(evaluated.parameters)
    axis, native = read_axes(warehouse, [evaluated.axis_id, evaluated.native_id])

    def read(space: Space, prompt_set: str, limit: int | None = None) -> Matrix:
        # Rows that the study went without are reported by the study.
        return load_matrix(warehouse, space, prompt_set, limit=limit, allow_missing=True)

    def both(prompt_set: str, limit: int | None = None) -> tuple[Matrix, Matrix]:
        return paired(read(native.space, prompt_set, limit), read(axis.space, prompt_set, limit))

    matrix, reference = both(evaluated.prompt_set)
    benign, benign_reference = both(study["align"], study["align_rows"])
    fitted = read(native.space, study["prompts"])
    stored = warehouse.query(
        "select prompt_id, projection, alignment_id from projections "
        "where model = ? and model_id = ? and axis_id = ?",
        [evaluated.model, evaluated.model_id, evaluated.axis_id],
    ).to_pydict()
    projections = dict(zip(stored["prompt_id"], stored["projection"], strict=True))
    alignment = read_alignment(warehouse, stored["alignment_id"][0])
    assert alignment is not None
    # Of the surface the baselines of the axis are meant, and not those of the model's direction.
    premises = warehouse.query(
        """
        select premise, cause
        from v_claim_premises
        where
            study_id = ? and prompt_set = ? and model = ? and at_model = model
            and (
                premise != 'surface'
                or starts_with(scorer, 'universal')
                or list_contains(stops, 'shared')
            )
        order by position, scorer desc
        """,
        [study_id, evaluated.prompt_set, evaluated.model],
    ).to_pydict()
    return Case(
        x=matrix.x,
        labels=matrix.labels,
        groups=matrix.groups,
        reference_x=reference.x,
        fitted_x=fitted.x,
        fitted_labels=fitted.labels,
        benign_x=benign.x,
        benign_reference_x=benign_reference.x,
        alignment=alignment.fit.alignment,
        direction=native.vector,
        axis=axis.vector,
        is_in_sample=evaluated.is_in_sample,
        is_reference=native.space == axis.space,
        premises=dict(zip(premises["premise"], premises["cause"], strict=True)),
        stored=np.array([projections[prompt_id] for prompt_id in matrix.prompt_ids]),
    )


# Causes, in the order in which one explains the next: the first fault is the diagnosis.
_CAUSES: tuple[Callable[[Case, View], Finding], ...] = (
    checks.projection,
    checks.few_rows,
    checks.massive_dimensions,
    checks.signal,
    checks.labels,
    checks.direction,
    checks.class_difference,
    checks.alignment,
    checks.source,
    checks.ridge_lambda,
    checks.intercept,
    checks.premise,
)


def diagnose(case: Case) -> list[Finding]:
    """Whether cosine and AUROC disagree, a finding for every cause, and last the diagnosis.

    The last finding is named `diagnosis`; its verdict starts with the name of the check that found
    the first fault, or with `healthy`.
    """
    view = look(case)
    symptom = checks.disagreement(case, view)
    findings = [check(case, view) for check in _CAUSES]
    faults = [finding for finding in (*findings, symptom) if finding.is_fault]
    verdict = "healthy: no check finds a fault"
    if faults:
        name = "unexplained" if faults[0] is symptom else faults[0].check
        verdict = f"{name}: {faults[0].verdict}"
    return [
        symptom,
        *findings,
        Finding("diagnosis", bool(faults), verdict, {"fault_count": float(len(faults))}),
    ]
