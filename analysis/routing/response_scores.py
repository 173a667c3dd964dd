"""Completions on a scale that models share: the probability of an outcome, by projection.

Projections are comparable within one model only. Each model's projections are calibrated on its own
completions of prompts that are disjoint from the evaluated ones. The result is the probability that
the labeler assigns the outcome, whatever the labeler looks for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import logit

from axes.analysis.activations import count_prompts
from axes.analysis.registry import store_rows
from axes.analysis.routing.responses import CompletionQuery, Completions, read_completions
from axes.analysis.stats.calibration import BALANCED_ACCURACY, Calibration, fit_calibration
from axes.analysis.stats.splits import held_out_groups
from axes.warehouse.errors import CalibrationError, ModelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key

SOURCES = ("prompt", "answer")
# Those that estimate a probability; a common scale alone says nothing about an outcome.
METHODS = ("platt", "isotonic")


@dataclass(frozen=True)
class ScoringRequest:
    """Which completions of a prompt set to evaluate, and which to calibrate on.

    Without `calibrate_on` (a prompt set that shares no prompt and no pair with `prompt_set`) a
    seeded `fraction` of the set's groups is calibrated on and the rest is evaluated.
    """

    prompt_set: str
    query: CompletionQuery
    calibrate_on: str | None = None
    fraction: float = 0.5
    method: str = "platt"
    seed: int = 0

    @property
    def is_split(self) -> bool:
        """Whether one prompt set is split into calibration and evaluation prompts."""
        return self.calibrate_on in (None, self.prompt_set)

    @property
    def parameters(self) -> dict[str, Any]:
        """The request as the parameters of a run."""
        return {
            "prompt_set": self.prompt_set,
            **asdict(self.query),
            "calibrate_on": self.calibrate_on or self.prompt_set,
            "fraction": self.fraction if self.is_split else None,
            "method": self.method,
        }


@dataclass(frozen=True)
class Scoring:
    """Completions to evaluate, with calibrations fitted on other completions of the same models.

    `calibrations` is (source, model) -> map; `notes` are warnings for the reader.
    """

    scoring_id: str
    query: CompletionQuery
    completions: Completions
    fitted_on: Completions
    calibrations: dict[tuple[str, str], Calibration]
    notes: tuple[str, ...] = ()

    def probability(self, source: str) -> Float[np.ndarray, "prompt model"]:
        """The probability of the outcome, by the projections of the `prompt` or the `answer`."""
        columns = self.completions.projection(source).T
        return np.stack(
            [
                self.calibrations[source, model].probability(column)
                for model, column in zip(self.completions.models, columns, strict=True)
            ],
            axis=1,
        )


@contextmanager
def scoring_run(
    warehouse: Warehouse, command: str, request: ScoringRequest, parameters: Mapping[str, Any]
) -> Iterator[tuple[Run, Scoring]]:
    """A run of `command` with these parameters that begins with the scoring of the request.

    Raises `PromptError` for an unknown prompt set, before there is a run.
    """
    for name in filter(None, (request.prompt_set, request.calibrate_on)):
        count_prompts(warehouse, name)
    with warehouse.run(command, dict(parameters), seed=request.seed) as run:
        scoring = score_completions(warehouse, run, request)
        run.messages += scoring.notes
        yield run, scoring


def score_completions(warehouse: Warehouse, run: Run, request: ScoringRequest) -> Scoring:
    """Calibrate every model's projections, apply the maps to other prompts, and store both.

    Raises `CalibrationError` where calibration and evaluation prompts overlap, `ModelError` for
    fewer than two models, and as `read_completions` does.
    """
    query = request.query
    if len(query.models) < 2:
        names = ", ".join(query.models) or "none"
        raise ModelError(
            f"models with completions on the axis: {names}; routing and comparing need two or more"
        )
    completions = read_completions(warehouse, request.prompt_set, query)
    if request.is_split:
        fitted_on, completions = _split(completions, request.fraction, request.seed)
    else:
        fitted_on = read_completions(warehouse, str(request.calibrate_on), query)
    _require_disjoint(fitted_on, completions)
    has_outcome = fitted_on.outcome >= 0.5
    calibrations = {
        (source, model): _fit(
            fitted_on.projection(source)[:, column], has_outcome[:, column], request.method
        )
        for column, model in enumerate(query.models)
        for source in SOURCES
    }
    used = [
        (part.model_ids, part.prompt_set, part.row_set_hash) for part in (fitted_on, completions)
    ]
    settings = {name: value for name, value in asdict(query).items() if name != "allow_missing"}
    scoring = Scoring(
        content_key(settings, used, request.method),
        query,
        completions,
        fitted_on,
        calibrations,
        tuple(_notes(completions, fitted_on, calibrations)),
    )
    if not warehouse.has("scored_answers", scoring.scoring_id):
        _write(warehouse, run, scoring)
    return scoring


def _split(completions: Completions, fraction: float, seed: int) -> tuple[Completions, Completions]:
    """Completions to calibrate on and completions to evaluate, complete groups in each."""
    labels = completions.is_positive
    if labels is None:
        labels = np.zeros(len(completions.rows), dtype=bool)
    is_drawn = held_out_groups(labels, completions.groups, fraction=fraction, seed=seed)
    if is_drawn.all():
        raise CalibrationError(
            f"{len(is_drawn)} completed prompts of {completions.prompt_set} are too few to split "
            "into calibration and evaluation prompts: complete more of them"
        )
    return completions.take(np.flatnonzero(is_drawn)), completions.take(np.flatnonzero(~is_drawn))


def _require_disjoint(fitted_on: Completions, completions: Completions) -> None:
    pairs, other_pairs = ({*filter(None, part.pair_ids)} for part in (fitted_on, completions))
    shared = {
        "prompts": {*fitted_on.prompt_ids} & {*completions.prompt_ids},
        "matched pairs": pairs & other_pairs,
    }
    for what, names in shared.items():
        if names:
            raise CalibrationError(
                f"{len(names)} {what} are in {fitted_on.prompt_set}, the calibration set, and in "
                f"{completions.prompt_set}, the evaluated set: omit --calibration-prompts "
                "to split one set, or give another set"
            )


def _fit(
    scores: Float[np.ndarray, " row"], outcome: Bool[np.ndarray, " row"], method: str
) -> Calibration:
    """A calibration, flat where all calibration rows are of one class.

    Platt's smoothed targets are then all alike, and their logistic fit is a constant: the rule of
    succession, (positive + 1) / (rows + 2).
    """
    positive_count = int(outcome.sum())
    if method not in METHODS:
        raise CalibrationError(
            f"{method} gives no probability of an outcome: calibrate by {' or '.join(METHODS)}"
        )
    if 0 < positive_count < len(outcome):
        return fit_calibration(scores, outcome, method)
    base_rate = (positive_count + 1) / (len(outcome) + 2)
    return Calibration(
        method="platt",
        target=BALANCED_ACCURACY,
        threshold=float(scores.min() if positive_count else np.nextafter(scores.max(), np.inf)),
        parameters={"slope": 0.0, "intercept": float(logit(base_rate))},
        positive_count=positive_count,
        negative_count=len(outcome) - positive_count,
    )


def _notes(
    completions: Completions,
    fitted_on: Completions,
    calibrations: Mapping[tuple[str, str], Calibration],
) -> Iterator[str]:
    for part in (fitted_on, completions):
        if part.missing_count:
            yield (
                f"{part.missing_count} prompts of {part.prompt_set} are left out: a completion, a "
                "projection or a label of a model is missing"
            )
    for model, share in zip(completions.models, fitted_on.outcome.mean(axis=0), strict=True):
        if share in (0.0, 1.0):
            which, count = "all" if share else "none", len(fitted_on.rows)
            yield f"{which} of {model}'s {count} calibration completions have the outcome"
            continue
        flat = [
            source
            for source in SOURCES
            if calibrations[source, model].method == "platt"
            and calibrations[source, model].parameters["slope"] <= 0
        ]
        if flat:
            yield (
                f"{model}: the outcome does not rise with the projection of the "
                f"{' or of the '.join(flat)}, so the calibration is flat"
            )


def _write(warehouse: Warehouse, run: Run, scoring: Scoring) -> None:
    """Store calibrations first, so that scored completions are never stored without them."""
    query, completions = scoring.query, scoring.completions
    keys = {"scoring_id": scoring.scoring_id, "axis_id": query.axis_id}
    calibrations = [
        {
            **keys,
            **asdict(query),
            **asdict(scoring.calibrations[source, model]),
            "model": model,
            "model_id": model_id,
            "source": source,
            "parameters": json.dumps(scoring.calibrations[source, model].parameters),
        }
        for model, model_id in zip(completions.models, completions.model_ids, strict=True)
        for source in SOURCES
    ]
    in_sample_prompts = set(
        warehouse.column(
            "select prompt_id from prompts inner join axes using (prompt_set) where axis_id = ?",
            [query.axis_id],
        )
    )
    rows = []
    for part, is_calibration in ((scoring.fitted_on, True), (completions, False)):
        # Null probabilities on calibration rows: a map does not evaluate what it was fitted on.
        probabilities = {
            f"{source}_probability": scoring.probability(source).tolist()
            for source in (() if is_calibration else SOURCES)
        }
        part_keys = {**keys, "prompt_set": part.prompt_set, "is_calibration": is_calibration}
        hidden = {"refusal": None} if part.refusal is None else {}
        rows += [
            {
                **part_keys,
                **asdict(row),
                **hidden,
                **{name: matrix[i][j] for name, matrix in probabilities.items()},
                "is_in_sample": row.prompt_id in in_sample_prompts,
            }
            for i, prompt in enumerate(part.rows)
            for j, row in enumerate(prompt)
        ]
    store_rows(warehouse, run, "answer_calibrations", scoring.scoring_id, calibrations)
    store_rows(warehouse, run, "scored_answers", scoring.scoring_id, rows)
