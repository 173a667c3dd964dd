"""Why a shared axis ranks a model's prompts as it does, above all where cosine and AUROC disagree.

What is possible at all is in docs/methods.md: on the prompts that a difference in means was fitted
on, its cosine with the axis has the sign of the class means' gap along the axis, whatever the
alignment. A positive cosine beside an AUROC below one half therefore needs rows that carry the
means, or other prompts, another map or another kind of direction behind one of the two numbers.
Each check looks for one cause and says in plain words, with its numbers, whether it is there.
"""

from __future__ import annotations

from collections.abc import Callable

from axes.analysis.study import diagnosis_checks as score_checks
from axes.analysis.study import map_checks
from axes.analysis.study.diagnosis_case import Case, Finding, View, look

# Causes, in the order in which one explains the next: the first fault is the diagnosis.
_CAUSES: tuple[Callable[[Case, View], Finding], ...] = (
    score_checks.projection,
    score_checks.few_rows,
    map_checks.massive_dimensions,
    score_checks.signal,
    score_checks.labels,
    score_checks.direction,
    score_checks.class_difference,
    map_checks.alignment,
    score_checks.source,
    map_checks.ridge_lambda,
    map_checks.intercept,
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
