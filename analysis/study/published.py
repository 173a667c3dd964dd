"""Figures that others published for a study's models, as rows beside the study's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from axes.analysis.study.definition import StudyDefinition
from axes.warehouse.connection import connect, rows
from axes.warehouse.runs import record_run
from axes.warehouse.writer import content_key, rows_table, write_rows

# How the metric of a published figure ends: `auroc_published`, `cosine_universal_published`.
PUBLISHED = "_published"


def write_published(
    root: Path,
    study_id: str,
    definition: StudyDefinition,
    published: Mapping[str, Mapping[str, float]],
) -> None:
    """Write the figures, model -> figure -> value, unless they are there as they are now."""
    wanted = {
        (model, figure): value for model, of in published.items() for figure, value in of.items()
    }
    found = rows(
        connect(root),
        "select model, scorer, estimate from evaluations "
        "where study_id = ? and ends_with(metric, ?)",
        [study_id, PUBLISHED],
    )
    if {(row["model"], row["scorer"]): row["estimate"] for row in found} == wanted:
        return
    with record_run(root, "study published", {"study_id": study_id, "figures": published}) as run:
        described = [
            {
                "study_id": study_id,
                "model": model,
                "prompt_set": None if figure.startswith("cosine") else definition.prompts,
                "scorer": figure,
                "metric": ("cosine" if figure.startswith("cosine") else "auroc") + PUBLISHED,
                "estimate": value,
                "parameters": json.dumps(asdict(definition), sort_keys=True),
                "run_id": run.run_id,
            }
            for (model, figure), value in wanted.items()
        ]
        name = content_key(study_id, "published")
        write_rows(root, "evaluations", rows_table("evaluations", described), name=name)
        run.rows = len(described)
