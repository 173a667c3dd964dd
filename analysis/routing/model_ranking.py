"""Models ranked by their completions of the same prompts, with warnings about the ranking.

Each model is calibrated on its own completions; models are ranked by the mean probability of the
outcome, with an interval from resamples of prompts that all models share. Next to the rank are
the values that can contradict it: the labelled outcome, and the quality of each model's alignment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from axes.analysis.registry import store_rows
from axes.analysis.routing.response_scores import Scoring, ScoringRequest, scoring_run
from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import draw_counts, percentile_interval
from axes.warehouse.handle import Warehouse

# Below these a model is hardly in the shared space, or the axis hardly ranks its prompts.
MIN_R2 = 0.5
HIGH_COSINE = 0.8
MIN_AUROC = 0.6


class RankedMetric(NamedTuple):
    """A metric of one model, and why it makes the ranking unsafe to read, if it does."""

    metric: str
    estimate: Estimate
    warning: str | None = None


def run_comparison(warehouse: Warehouse, request: ScoringRequest) -> tuple[str, tuple[str, ...]]:
    """Rank the models on a prompt set; return the id of the scoring and its notes.

    The metrics are in `comparisons` and `v_comparison`. Raises as `score_completions` does.
    """
    parameters = request.parameters
    with scoring_run(warehouse, "compare", request, parameters) as (run, scoring):
        ranks = rank_models(scoring, seed=request.seed)
        axis_id = request.query.axis_id
        alignments = _alignment_quality(warehouse, axis_id)
        diagnoses = _diagnoses(warehouse, axis_id)
        rows = [
            {
                "scoring_id": scoring.scoring_id,
                "model": model,
                "model_id": model_id,
                "prompt_set": request.prompt_set,
                "axis_id": axis_id,
                "metric": metric,
                **asdict(estimate),
                "warning": warning,
                "prompt_count": len(scoring.completions.rows),
                "parameters": json.dumps(parameters, sort_keys=True),
            }
            for column, (model, model_id) in enumerate(
                zip(scoring.completions.models, scoring.completions.model_ids, strict=True)
            )
            for metric, estimate, warning in (
                *map(RankedMetric, *zip(*ranks[model].items(), strict=True)),
                _calibration_range(scoring, column),
                *_with_warnings(alignments.get(model, {})),
                *diagnoses.get(model, ()),
            )
        ]
        # Always rewritten: a later study may add to what is stored of the alignments.
        store_rows(warehouse, run, "comparisons", scoring.scoring_id, rows)
    return scoring.scoring_id, scoring.notes


def rank_models(scoring: Scoring, *, seed: int = 0) -> dict[str, dict[str, Estimate]]:
    """Model -> metric -> estimate; `rank_1`, ... are the shares of resamples with that rank.

    Ties share the mean of their ranks, and the places that they hold together. Resamples draw
    complete groups; calibrations are held fixed.
    """
    completions = scoring.completions
    counts = draw_counts(len(completions.rows), groups=completions.groups, seed=seed)
    sizes = counts.sum(axis=1)
    optional = {"refusal": completions.refusal, "elevation": _elevation(scoring)}
    matrices = {
        "probability": scoring.probability("answer"),
        "prompt_probability": scoring.probability("prompt"),
        "outcome": completions.outcome,
        **{metric: matrix for metric, matrix in optional.items() if matrix is not None},
    }
    # [resample, prompt] @ [prompt, model]: the means of every resample at once.
    resampled = {metric: counts @ matrix / sizes[:, None] for metric, matrix in matrices.items()}
    rank = rankdata(matrices["probability"].mean(axis=0))
    resampled_ranks, lowest, highest = (
        rankdata(resampled["probability"], method=ties, axis=1)
        for ties in ("average", "min", "max")
    )
    metrics: dict[str, dict[str, Estimate]] = {}
    for column, model in enumerate(completions.models):
        ranks = resampled_ranks[:, column]
        metrics[model] = {
            metric: percentile_interval(
                float(matrix[:, column].mean()),
                resampled[metric][:, column],
                count=len(np.unique(completions.groups)),
            )
            for metric, matrix in matrices.items()
        }
        metrics[model]["rank"] = Estimate(float(rank[column]))
        metrics[model]["rank_mean"] = percentile_interval(float(ranks.mean()), ranks)
        for place in range(1, len(completions.models) + 1):
            first, last = lowest[:, column], highest[:, column]
            shares = ((first <= place) & (place <= last)) / (last - first + 1)
            metrics[model][f"rank_{place}"] = Estimate(float(shares.mean()))
    return metrics


def _elevation(scoring: Scoring) -> Float[np.ndarray, "prompt model"] | None:
    """Projections in units of the model's own completions of negative calibration prompts."""
    labels = scoring.fitted_on.is_positive
    if labels is None or (~labels).sum() < 2:
        return None
    negative = scoring.fitted_on.projection("answer")[~labels]
    deviation = negative.std(axis=0, ddof=1)
    if (deviation == 0).any():
        return None
    return (scoring.completions.projection("answer") - negative.mean(axis=0)) / deviation


def _calibration_range(scoring: Scoring, column: int) -> RankedMetric:
    """The range of a model's probabilities over the evaluated completions."""
    width = float(np.ptp(scoring.probability("answer")[:, column]))
    flat = "its calibration is flat: the probability is its base rate for every completion"
    return RankedMetric("calibration_span", Estimate(width), None if width else flat)


def _alignment_quality(warehouse: Warehouse, axis_id: str) -> dict[str, dict[str, float]]:
    """Model -> R2 and cosine of its alignment and its AUROC, by the last study of the axis.

    The AUROC is that on a held-out set where the study evaluated on one.
    """
    table = warehouse.query(
        """
        with
        studies as (
            select study_id, max(run_id) as run_id
            from evaluations where axis_id = ? and metric = 'auroc'
            group by study_id
            order by run_id desc
            limit 1
        ),
        evaluated as (
            select evaluations.*
            from evaluations
            inner join studies using (study_id)
        )
        select model, metric, estimate
        from evaluated
        where metric in ('r2_held_out', 'cosine_universal') and model is not null
        union all
        select model, 'auroc', estimate
        from evaluated
        where metric = 'auroc' and scorer = 'universal'
        qualify row_number() over (partition by model order by is_in_sample, prompt_set) = 1
        order by all
        """,
        [axis_id],
    )
    quality: dict[str, dict[str, float]] = {}
    for model, metric, estimate in zip(*table.to_pydict().values(), strict=True):
        quality.setdefault(model, {})[metric] = estimate
    return quality


def _diagnoses(warehouse: Warehouse, axis_id: str) -> dict[str, list[RankedMetric]]:
    """Model -> what `axes diagnose` says of the axis: 1 with its verdict for a fault, else 0."""
    table = warehouse.query(
        """
        select model, is_fault::double as is_fault, if(is_fault, verdict, null) as verdict
        from diagnostics
        where axis_id = ? and check_name = 'diagnosis'
        qualify row_number() over (partition by model order by run_id desc, prompt_set) = 1
        """,
        [axis_id],
    )
    return {
        model: [RankedMetric("diagnosis", Estimate(is_fault), verdict)]
        for model, is_fault, verdict in zip(*table.to_pydict().values(), strict=True)
    }


def _with_warnings(quality: Mapping[str, float]) -> Iterator[RankedMetric]:
    """Each metric of an alignment, with a warning where it makes the ranking unsafe to read."""
    cosine = quality.get("cosine_universal", 0.0)
    for metric, value in quality.items():
        warning = None
        if metric == "r2_held_out" and value < MIN_R2:
            warning = f"alignment predicts {value:.2f} of the reference's variance (R2)"
        elif metric == "cosine_universal" and value < 0:
            warning = f"its direction points against the axis (cosine {value:.2f})"
        elif metric == "auroc" and value < 0.5:
            warning = f"the axis ranks its prompts in the wrong order (AUROC {value:.2f})"
        elif metric == "auroc" and value < MIN_AUROC and cosine >= HIGH_COSINE:
            warning = f"cosine {cosine:.2f} with the axis but AUROC {value:.2f}: they disagree"
        yield RankedMetric(metric, Estimate(value), warning)
