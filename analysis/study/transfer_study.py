"""`axes transfer`: the threshold-transfer matrix and the curve of one axis, into `evaluations`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from axes.analysis.labelled_scores import LabelledScores, read_scores
from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.calibration import BALANCED_ACCURACY
from axes.analysis.stats.multiple_testing import adjusted
from axes.analysis.stats.near_duplicates import LEAST_OVERLAP, near_duplicate_clusters
from axes.analysis.stats.splits import held_out_groups, joined_groups
from axes.analysis.study.figures import write_figures
from axes.analysis.study.thresholds import ModelScores, Transfer, labelled_curve, transfer_matrix
from axes.warehouse.connection import Connection
from axes.warehouse.errors import CoverageError, ModelError
from axes.warehouse.runs import record_run
from axes.warehouse.writer import content_key, data_file

# Raised whenever the figures of an unchanged definition would change.
_VERSION = 1

_METRICS = ("balanced_accuracy", "false_positive_rate", "false_positive_shift", "accuracy_loss")


@dataclass(frozen=True)
class TransferDefinition:
    """What is asked; `fraction` of the prompt groups are calibration rows, the rest is judged."""

    axis_id: str
    model_ids: tuple[str, ...]
    prompt_set: str
    target: str = BALANCED_ACCURACY
    fraction: float = 0.5
    least_overlap: float = LEAST_OVERLAP
    seed: int = 0
    allow_missing: bool = False


def run_transfer(root: Path, connection: Connection, definition: TransferDefinition) -> str:
    """Judge every model's threshold on every model; the id that the figures are stored under.

    Prompts that are nearly the same text, or of one pair, are all calibration rows or all judged.
    Nothing is computed again that is there. Raises `CoverageError` where projections are missing,
    or where there are not two models.
    """
    scores = [
        read_scores(
            connection,
            definition.axis_id,
            model_id,
            definition.prompt_set,
            allow_missing=definition.allow_missing,
        )
        for model_id in definition.model_ids
    ]
    if len(scores) < 2:
        raise CoverageError("a threshold is transferred between models: two are the least")
    names = [of.model for of in scores]
    if len(set(names)) < len(names):
        raise ModelError(
            f"two versions of one model among {', '.join(names)}: say which with --model NAME@ID"
        )
    scores = _on_shared_prompts(scores)
    study_id = content_key(
        "transfer", _VERSION, asdict(definition), [of.row_set_hash for of in scores]
    )
    if data_file(root, "evaluations", study_id).exists():
        return study_id
    with record_run(root, "transfer", asdict(definition), seed=definition.seed) as run:
        first = scores[0]
        labels = first.labels
        clusters = near_duplicate_clusters(
            first.texts.to_pylist(), least_overlap=definition.least_overlap
        )
        groups = joined_groups(first.groups, clusters)
        is_calibration = held_out_groups(
            labels, groups, fraction=definition.fraction, seed=definition.seed
        )
        named = [ModelScores(of.model, of.values) for of in scores]
        options: dict[str, Any] = {"target": definition.target, "seed": definition.seed}
        cells = transfer_matrix(named, labels, groups, is_calibration, **options)
        points = labelled_curve(named, labels, groups, is_calibration, **options)
        figures = [
            *_matrix_rows(cells),
            *(
                _row(
                    point.method,
                    "balanced_accuracy_by_labelled",
                    point.balanced_accuracy,
                    point.judged_on,
                    fitted_on=f"{point.labelled_count} prompts",
                    component=point.labelled_count,
                )
                for point in points
            ),
        ]
        judged = labels[~is_calibration]
        by_model = {of.model: of for of in scores}
        common = {
            "prompt_set": definition.prompt_set,
            "axis_id": definition.axis_id,
            "positive_count": int(judged.sum()),
            "negative_count": int((~judged).sum()),
            # Whether the axis was fitted on them: the thresholds never were.
            "is_in_sample": bool(first.is_in_sample[~is_calibration].any()),
        }
        described = [
            {**row, **common, "model_id": by_model[row["model"]].model_id} for row in figures
        ]
        write_figures(root, run, study_id, described, asdict(definition))
    return study_id


def _on_shared_prompts(scores: Sequence[LabelledScores]) -> list[LabelledScores]:
    """Every model's rows of the prompts that all have, in one order."""
    shared = set.intersection(*(set(of.prompt_ids) for of in scores))
    order = [prompt_id for prompt_id in scores[0].prompt_ids if prompt_id in shared]
    taken = []
    for of in scores:
        place = {prompt_id: index for index, prompt_id in enumerate(of.prompt_ids)}
        taken.append(of.take(np.array([place[prompt_id] for prompt_id in order])))
    return taken


def _matrix_rows(cells: Sequence[Transfer]) -> list[dict[str, Any]]:
    """A row for each metric of each cell; p-values adjusted (Holm) over the pairs of a method."""
    found = []
    for method in dict.fromkeys(cell.method for cell in cells):
        of_method = [cell for cell in cells if cell.method == method]
        for metric in _METRICS:
            estimates: list[Estimate] = [getattr(cell, metric) for cell in of_method]
            # A model's threshold on the model itself is no test of transfer.
            p_values = np.array(
                [
                    np.nan
                    if estimate.p_value is None or cell.fitted_on == cell.judged_on
                    else estimate.p_value
                    for cell, estimate in zip(of_method, estimates, strict=True)
                ]
            )
            for cell, estimate, p_value, corrected in zip(
                of_method, estimates, p_values, adjusted(p_values), strict=True
            ):
                is_test = not np.isnan(p_value)
                row = _row(method, metric, estimate, cell.judged_on, fitted_on=cell.fitted_on)
                row |= {
                    "p_value": float(p_value) if is_test else None,
                    "p_value_adjusted": float(corrected) if is_test else None,
                }
                found.append(row)
    return found


def _row(
    scorer: str, metric: str, estimate: Estimate, model: str, **columns: Any
) -> dict[str, Any]:
    return {"scorer": scorer, "metric": metric, "model": model, **asdict(estimate), **columns}
