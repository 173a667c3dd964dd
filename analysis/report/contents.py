"""What the page of a report holds, in order: parts, and the sections of each."""

from __future__ import annotations

from axes.analysis.report import provenance_tables
from axes.analysis.report import tables as study_tables
from axes.analysis.report.charts import (
    areas,
    cosines,
    densities,
    drift,
    layer_areas,
    layer_norms,
    roc,
    sensitivity,
    singular_values,
    thresholds,
    trajectories,
)
from axes.analysis.report.section import Section

PARTS: dict[str, tuple[Section, ...]] = {
    "Results": (study_tables.STUDY, areas.SECTION, study_tables.CLAIMS, study_tables.WARNINGS),
    "How well the classes are told": (
        roc.SECTION,
        densities.SECTION,
        layer_areas.SECTION,
        layer_norms.SECTION,
        study_tables.BESIDE,
        study_tables.ERASURE,
    ),
    "How far the models share it": (
        cosines.SECTION,
        study_tables.ALIGNMENTS,
        singular_values.SECTION,
        study_tables.DIAGNOSES,
        sensitivity.SECTION,
        thresholds.SECTION,
    ),
    "While the models speak": (trajectories.SECTION, drift.SECTION),
    "Where the numbers come from": (
        provenance_tables.DEFINITION,
        provenance_tables.MODELS,
        provenance_tables.PROMPT_SETS,
        provenance_tables.COVERAGE,
        provenance_tables.AXES,
        provenance_tables.RUNS,
        provenance_tables.LIBRARIES,
        study_tables.PUBLISHED,
    ),
}
