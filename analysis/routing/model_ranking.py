"""Models ranked by what they answer to the same prompts, and whether the ranking may be read.

Every model's answers are calibrated on answers of its own; the ranking is by the mean chance of the
outcome, its uncertainty by resamples of prompts that all models share. Beside it stands what would
contradict it: the labelled outcome itself, and the quality of each model's alignment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from axes.analysis.routing.response_scores import Scoring, score_answers
from axes.analysis.routing.responses import AnswerQuery
from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import RESAMPLE_COUNT, draw_counts, percentile_interval
from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.runs import record_run
from axes.warehouse.writer import rows_table, write_rows

# Below these a model is hardly in the shared space, or the axis hardly ranks its prompts.
LEAST_R2 = 0.5
HIGH_COSINE = 0.8
LEAST_AUROC = 0.6


def run_comparison(
    root: Path,
    prompt_set: str,
    asked: AnswerQuery,
    *,
    calibrate_on: str | None = None,
    fraction: float = 0.5,
    method: str = "platt",
    seed: int = 0,
) -> tuple[str, tuple[str, ...]]:
    """Rank the models on a prompt set; the scoring's id, and what a reader has to know.

    The figures are in `comparisons` and `v_comparison`. Raises as `score_answers` does.
    """
    connection = connect(root)
    parameters = {
        "prompt_set": prompt_set,
        **asdict(asked),
        "calibrate_on": calibrate_on or prompt_set,
        "fraction": fraction if calibrate_on in (None, prompt_set) else None,
        "method": method,
    }
    with record_run(root, "compare", parameters, seed=seed) as run:
        scoring = score_answers(
            root,
            connection,
            run,
            prompt_set,
            asked,
            calibrate_on=calibrate_on,
            fraction=fraction,
            method=method,
            seed=seed,
        )
        run.messages += scoring.notes
        judged = rank_models(scoring, seed=seed)
        quality = alignment_quality(connection, asked.axis_id)
        diagnoses = read_diagnoses(connection, asked.axis_id)
        described = [
            {
                "scoring_id": scoring.scoring_id,
                "model": model,
                "model_id": scoring.answers.model_ids[column],
                "prompt_set": prompt_set,
                "axis_id": asked.axis_id,
                "metric": metric,
                "estimate": estimate.estimate,
                "lower": estimate.lower,
                "upper": estimate.upper,
                "warning": warning,
                "prompt_count": len(scoring.answers.prompt_ids),
                "parameters": json.dumps(parameters, sort_keys=True),
                "run_id": run.run_id,
            }
            for column, model in enumerate(scoring.answers.models)
            for metric, estimate, warning in [
                *((metric, figure, None) for metric, figure in judged[model].items()),
                _calibration_span(scoring, model),
                *_with_warnings(quality.get(model, {})),
                *diagnoses.get(model, []),
            ]
        ]
        # Written anew each time: a study that came since may say more of the alignments.
        table = rows_table("comparisons", described)
        write_rows(root, "comparisons", table, name=scoring.scoring_id)
        run.rows += len(described)
    return scoring.scoring_id, scoring.notes


def rank_models(
    scoring: Scoring, *, count: int = RESAMPLE_COUNT, seed: int = 0
) -> dict[str, dict[str, Estimate]]:
    """Model -> metric -> figure; `rank_1`, ... are the shares of resamples that end so.

    Ties share the mean of their places. Resamples draw whole groups; calibrations are held fixed.
    """
    answers = scoring.answers
    counts = draw_counts(len(answers.prompt_ids), groups=answers.groups, count=count, seed=seed)
    sizes = counts.sum(axis=1)
    matrices = {
        "probability": scoring.probability("answer"),
        "prompt_probability": scoring.probability("prompt"),
        "outcome": answers.outcome,
    }
    if answers.refusal is not None:
        matrices["refusal"] = answers.refusal
    if (elevation := _elevation(scoring)) is not None:
        matrices["elevation"] = elevation
    resampled = {metric: counts @ matrix / sizes[:, None] for metric, matrix in matrices.items()}
    whole = rankdata(matrices["probability"].mean(axis=0))
    ranks = rankdata(resampled["probability"], axis=1)
    found: dict[str, dict[str, Estimate]] = {}
    for column, model in enumerate(answers.models):
        figures = {
            metric: percentile_interval(
                float(matrix[:, column].mean()), resampled[metric][:, column]
            )
            for metric, matrix in matrices.items()
        }
        own = ranks[:, column]
        figures["rank"] = Estimate(float(whole[column]))
        figures["rank_mean"] = percentile_interval(float(own.mean()), own)
        figures |= {
            f"rank_{place}": Estimate(float((np.floor(own) == place).mean()))
            for place in range(1, len(answers.models) + 1)
        }
        found[model] = figures
    return found


def _elevation(scoring: Scoring) -> Float[np.ndarray, "prompt model"] | None:
    """Projections in units of the model's own answers to negative calibration prompts."""
    labels = scoring.fitted_on.is_positive
    if labels is None or (~labels).sum() < 2:
        return None
    negative = scoring.fitted_on.answer_projection[~labels]
    width = negative.std(axis=0, ddof=1)
    if (width == 0).any():
        return None
    return (scoring.answers.answer_projection - negative.mean(axis=0)) / width


def _calibration_span(scoring: Scoring, model: str) -> tuple[str, Estimate, str | None]:
    """How far the model's chances reach, from its lowest to its highest answer judged."""
    column = scoring.answers.models.index(model)
    span = float(np.ptp(scoring.probability("answer")[:, column]))
    flat = "its calibration is flat: its chance is its base rate, whatever it answers"
    return "calibration_span", Estimate(span), flat if span == 0 else None


def alignment_quality(connection: Connection, axis_id: str) -> dict[str, dict[str, float]]:
    """Model -> what the axis's study says of its alignment and of its AUROC on the axis.

    The AUROC is that on the set that the study judged on last: a held-out one where there is any.
    """
    found = rows(
        connection,
        """
        with
        studies as (
            select study_id, max(run_id) as run_id
            from evaluations where axis_id = ? and metric = 'auroc'
            group by study_id
            order by run_id desc
            limit 1
        ),
        judged as (
            select evaluations.*
            from evaluations
            inner join studies using (study_id)
        )
        select model, metric, estimate
        from judged
        where metric in ('r2_held_out', 'cosine_universal') and model is not null
        union all
        select model, 'auroc', estimate
        from judged
        where metric = 'auroc' and scorer = 'universal'
        qualify row_number() over (partition by model order by is_in_sample, prompt_set) = 1
        order by all
        """,
        [axis_id],
    )
    quality: dict[str, dict[str, float]] = {}
    for row in found:
        quality.setdefault(row["model"], {})[row["metric"]] = row["estimate"]
    return quality


def read_diagnoses(
    connection: Connection, axis_id: str
) -> dict[str, list[tuple[str, Estimate, str | None]]]:
    """Model -> what `axes diagnose` found on the axis: 1 with its verdict for a fault, else 0."""
    found = rows(
        connection,
        """
        select model, is_fault, verdict
        from diagnostics
        where axis_id = ? and check_name = 'diagnosis'
        qualify row_number() over (partition by model order by run_id desc, prompt_set) = 1
        """,
        [axis_id],
    )
    return {
        row["model"]: [
            (
                "diagnosis",
                Estimate(float(row["is_fault"])),
                row["verdict"] if row["is_fault"] else None,
            )
        ]
        for row in found
    }


def _with_warnings(
    quality: Mapping[str, float],
) -> Iterator[tuple[str, Estimate, str | None]]:
    """Each figure with the reason why it makes the ranking unsafe to read, if it does."""
    cosine = quality.get("cosine_universal", 0.0)
    for metric, value in quality.items():
        warning = None
        if metric == "r2_held_out" and value < LEAST_R2:
            warning = f"alignment predicts {value:.2f} of the reference's variance (R2)"
        elif metric == "cosine_universal" and value < 0:
            warning = f"its direction points against the axis (cosine {value:.2f})"
        elif metric == "auroc" and value < 0.5:
            warning = f"the axis ranks its prompts the wrong way round (AUROC {value:.2f})"
        elif metric == "auroc" and value < LEAST_AUROC and cosine >= HIGH_COSINE:
            warning = f"cosine {cosine:.2f} with the axis but AUROC {value:.2f}: they disagree"
        yield metric, Estimate(value), warning
