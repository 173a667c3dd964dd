"""Answers on a scale that models share: the chance of an outcome, by projection.

A projection compares within one model only. Each model's are calibrated on answers of its own, to
prompts that are disjoint from those that are judged: what comes out is the chance that a labeler
marks the answer, whatever the labeler looks for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import logit

from axes.analysis.routing.responses import AnswerQuery, Answers, as_answers, read_answers
from axes.analysis.stats.calibration import BALANCED_ACCURACY, Calibration, fit_calibration
from axes.analysis.stats.splits import held_out_groups
from axes.warehouse.connection import Connection, rows
from axes.warehouse.errors import CalibrationError, ModelError
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key, data_file, rows_table, write_rows

SOURCES = ("prompt", "answer")
# Those that estimate a chance; a common scale alone says nothing of an outcome.
METHODS = ("platt", "isotonic")


@dataclass(frozen=True)
class Scoring:
    """Answers to judge, with the calibrations fitted on other answers of the same models.

    `calibrations` is (source, model) -> map; `notes` say what a reader has to know.
    """

    scoring_id: str
    asked: AnswerQuery
    answers: Answers
    fitted_on: Answers
    calibrations: dict[tuple[str, str], Calibration]
    is_in_sample: Bool[np.ndarray, " prompt"]
    notes: tuple[str, ...] = ()

    def probability(self, source: str) -> Float[np.ndarray, "prompt model"]:
        """The chance of the outcome by the projections of the `prompt` or of the `answer`."""
        columns = self.answers.projection(source).T
        return np.stack(
            [
                self.calibrations[source, model].probability(column)
                for model, column in zip(self.answers.models, columns, strict=True)
            ],
            axis=1,
        )


def score_answers(
    root: Path,
    connection: Connection,
    run: Run,
    prompt_set: str,
    asked: AnswerQuery,
    *,
    calibrate_on: str | None = None,
    fraction: float = 0.5,
    method: str = "platt",
    seed: int = 0,
) -> Scoring:
    """Calibrate every model's projections, apply that to other prompts, and store both.

    Without `calibrate_on` (a prompt set that shares no prompt and no pair with `prompt_set`) a
    seeded `fraction` of the set's groups is calibrated on and the rest judged. Raises
    `CalibrationError` where the two share anything, `ModelError` for fewer than two models, and as
    `read_answers` does.
    """
    if len(asked.models) < 2:
        there = ", ".join(asked.models) or "none"
        raise ModelError(
            f"models with answers on the axis: {there}; it takes two to choose or compare"
        )
    answers = read_answers(connection, prompt_set, asked)
    if calibrate_on is None or calibrate_on == prompt_set:
        fitted_on, answers = _part(answers, fraction, seed)
    else:
        fitted_on = read_answers(connection, calibrate_on, asked)
    _require_disjoint(fitted_on, answers)
    has_outcome = fitted_on.outcome >= 0.5
    calibrations = {
        (source, model): _fit(
            fitted_on.projection(source)[:, column], has_outcome[:, column], method
        )
        for column, model in enumerate(answers.models)
        for source in SOURCES
    }
    used = [(part.model_ids, part.prompt_set, part.row_set_hash) for part in (fitted_on, answers)]
    settings = {name: value for name, value in asdict(asked).items() if name != "allow_missing"}
    scoring = Scoring(
        content_key(settings, used, method),
        asked,
        answers,
        fitted_on,
        calibrations,
        _fitted_on_prompt(connection, asked.axis_id, answers.prompt_ids),
        tuple(_notes(answers, fitted_on, calibrations)),
    )
    if not data_file(root, "scored_answers", scoring.scoring_id).exists():
        _write(root, connection, run, scoring)
    return scoring


def read_scoring(connection: Connection, scoring_id: str) -> Scoring:
    """A stored scoring (its id, or the start of it) as `score_answers` returned it.

    Raises `CalibrationError` where none or several fit.
    """
    fitted = rows(
        connection,
        "from answer_calibrations where starts_with(scoring_id, ?) order by run_id, model, source",
        [scoring_id],
    )
    names = {row["scoring_id"] for row in fitted}
    if len(names) != 1:
        raise CalibrationError(
            f"{len(names)} scorings fit {scoring_id}: give an id of `axes list scorings`"
        )
    described = rows(
        connection,
        """
        select scored_answers.*, prompts.pair_id, prompts.is_positive
        from scored_answers
        inner join v_prompts as prompts using (prompt_set, prompt_id)
        where scoring_id = ?
        order by is_calibration, prompts.position, model
        """,
        [fitted[0]["scoring_id"]],
    )
    models = tuple(dict.fromkeys(row["model"] for row in described))
    parts = []
    for is_calibration in (False, True):
        by_prompt: dict[str, dict[str, dict[str, Any]]] = {}
        for row in described:
            if row["is_calibration"] == is_calibration:
                by_prompt.setdefault(row["prompt_id"], {})[row["model"]] = row
        one = next(iter(next(iter(by_prompt.values())).values()))
        parts.append(as_answers(one["prompt_set"], models, list(by_prompt.values())))
    answers, fitted_on = parts
    return Scoring(
        scoring_id=fitted[0]["scoring_id"],
        asked=AnswerQuery(
            fitted[0]["axis_id"],
            models,
            fitted[0]["labeler"],
            fitted[0]["statistic"],
            fitted[0]["is_negated"],
        ),
        answers=answers,
        fitted_on=fitted_on,
        calibrations={
            (row["source"], row["model"]): Calibration(
                row["method"],
                BALANCED_ACCURACY,
                row["threshold"],
                json.loads(row["parameters"]),
                row["positive_count"],
                row["negative_count"],
            )
            for row in fitted
        },
        is_in_sample=_fitted_on_prompt(connection, fitted[0]["axis_id"], answers.prompt_ids),
    )


def _part(answers: Answers, fraction: float, seed: int) -> tuple[Answers, Answers]:
    """Answers to calibrate on and answers to judge, whole groups in either."""
    labels = answers.is_positive
    if labels is None:
        labels = np.zeros(len(answers.prompt_ids), dtype=bool)
    is_drawn = held_out_groups(labels, answers.groups, fraction=fraction, seed=seed)
    if is_drawn.all():
        raise CalibrationError(
            f"{len(is_drawn)} answered prompts of {answers.prompt_set} cannot be parted into some "
            "to calibrate on and some to judge: answer more of them"
        )
    return answers.take(np.flatnonzero(is_drawn)), answers.take(np.flatnonzero(~is_drawn))


def _require_disjoint(fitted_on: Answers, answers: Answers) -> None:
    pairs, other_pairs = ({*filter(None, part.pair_ids)} for part in (fitted_on, answers))
    shared = {
        "prompts": {*fitted_on.prompt_ids} & {*answers.prompt_ids},
        "matched pairs": pairs & other_pairs,
    }
    for what, names in shared.items():
        if names:
            raise CalibrationError(
                f"{len(names)} {what} are in {fitted_on.prompt_set}, which is calibrated on, and "
                f"in {answers.prompt_set}, which is judged: leave --calibration-prompts out to "
                "part one set, or give another"
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
            f"{method} gives no chance of an outcome: calibrate by {' or '.join(METHODS)}"
        )
    if 0 < positive_count < len(outcome):
        return fit_calibration(scores, outcome, method)
    chance = (positive_count + 1) / (len(outcome) + 2)
    return Calibration(
        method="platt",
        target=BALANCED_ACCURACY,
        threshold=float(scores.min() if positive_count else np.nextafter(scores.max(), np.inf)),
        parameters={"slope": 0.0, "intercept": float(logit(chance))},
        positive_count=positive_count,
        negative_count=len(outcome) - positive_count,
    )


def _fitted_on_prompt(
    connection: Connection, axis_id: str, prompt_ids: Iterable[str]
) -> Bool[np.ndarray, " prompt"]:
    """Whether the axis was fitted on each prompt."""
    found = rows(
        connection,
        "select prompt_id from prompts inner join axes using (prompt_set) where axis_id = ?",
        [axis_id],
    )
    fitted = {row["prompt_id"] for row in found}
    return np.array([prompt_id in fitted for prompt_id in prompt_ids], dtype=bool)


def _notes(
    answers: Answers, fitted_on: Answers, calibrations: dict[tuple[str, str], Calibration]
) -> Iterator[str]:
    for part in (fitted_on, answers):
        if part.missing_count:
            yield (
                f"{part.missing_count} prompts of {part.prompt_set} are left out: not every model "
                "has an answer, a projection and a label for them"
            )
    for column, model in enumerate(answers.models):
        share = fitted_on.outcome[:, column].mean()
        count = len(fitted_on.prompt_ids)
        if share in (0.0, 1.0):
            which = "all" if share else "none"
            yield f"{which} of {model}'s {count} calibration answers have the outcome"
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


def _write(root: Path, connection: Connection, run: Run, scoring: Scoring) -> None:
    """Calibrations first, so that scored answers are never there without them."""
    name, asked, answers = scoring.scoring_id, scoring.asked, scoring.answers
    calibrations = [
        {
            "scoring_id": name,
            "model": model,
            "model_id": model_id,
            "axis_id": asked.axis_id,
            "source": source,
            "method": scoring.calibrations[source, model].method,
            "parameters": json.dumps(scoring.calibrations[source, model].parameters),
            "threshold": scoring.calibrations[source, model].threshold,
            "labeler": asked.labeler,
            "is_negated": asked.is_negated,
            "statistic": asked.statistic,
            "positive_count": scoring.calibrations[source, model].positive_count,
            "negative_count": scoring.calibrations[source, model].negative_count,
            "run_id": run.run_id,
        }
        for model, model_id in zip(answers.models, answers.model_ids, strict=True)
        for source in SOURCES
    ]
    table = rows_table("answer_calibrations", calibrations)
    write_rows(root, "answer_calibrations", table, name=name)
    chances = {source: scoring.probability(source) for source in SOURCES}
    fitted_in_sample = _fitted_on_prompt(connection, asked.axis_id, scoring.fitted_on.prompt_ids)
    described = [
        *_answer_rows(scoring.fitted_on, {}, fitted_in_sample),
        *_answer_rows(answers, chances, scoring.is_in_sample),
    ]
    same = {"scoring_id": name, "axis_id": asked.axis_id, "run_id": run.run_id}
    described = [{**row, **same} for row in described]
    write_rows(root, "scored_answers", rows_table("scored_answers", described), name=name)
    run.rows += len(described) + len(calibrations)


def _answer_rows(
    answers: Answers,
    chances: Mapping[str, Float[np.ndarray, "prompt model"]],
    is_in_sample: Bool[np.ndarray, " prompt"],
) -> Iterator[dict[str, Any]]:
    """Rows of `scored_answers`; without chances they are calibration rows."""
    for row, column in np.ndindex(answers.outcome.shape):
        yield {
            "model": answers.models[column],
            "model_id": answers.model_ids[column],
            "prompt_set": answers.prompt_set,
            "prompt_id": answers.prompt_ids[row],
            "generation_ids": list(answers.generation_ids[row][column]),
            "prompt_projection": float(answers.prompt_projection[row, column]),
            "answer_projection": float(answers.answer_projection[row, column]),
            **{
                f"{source}_probability": float(matrix[row, column])
                for source, matrix in chances.items()
            },
            "outcome": float(answers.outcome[row, column]),
            "refusal": None if answers.refusal is None else float(answers.refusal[row, column]),
            "token_count": float(answers.token_count[row, column]),
            "is_calibration": not chances,
            "is_in_sample": bool(is_in_sample[row]),
        }
