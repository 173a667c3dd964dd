"""Policies of routing compared offline: what each would have brought, and at what cost.

They are judged on prompts that every model has answered already and that no calibration has seen.
Raw projections are routed by beside calibrated ones, to show why calibration is needed.

What an answer costs, or how good it is: a column of the models, of the answers, or a user's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.types as kinds
from jaxtyping import Bool, Float

from axes.analysis.routing.response_scores import SOURCES, Scoring, score_answers
from axes.analysis.routing.responses import AnswerQuery, Answers
from axes.analysis.routing.router import (
    BEST_SINGLE,
    ORACLE,
    RANDOM,
    Limits,
    Router,
    best_single,
    choose,
    evenly,
    judge_policies,
    no_model,
    wholly,
)
from axes.analysis.stats.auroc import Estimate
from axes.warehouse.connection import Connection, connect, query
from axes.warehouse.errors import CoverageError, ModelError, QueryError
from axes.warehouse.runs import Run, record_run
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, data_file, rows_table, write_rows


def run_routing(
    root: Path,
    prompt_set: str,
    asked: AnswerQuery,
    *,
    calibrate_on: str | None = None,
    fraction: float = 0.5,
    method: str = "platt",
    cost: str = "parameter_count",
    quality: str | None = None,
    limits: Limits | None = None,
    seed: int = 0,
) -> tuple[str, tuple[str, ...]]:
    """Compare the policies on a prompt set; the routing's id, and what a reader has to know.

    Decisions are in `routings`, what they bring in `routing_evaluations` and `v_routing`. `cost`
    and `quality` are as `read_values` takes them. Raises as `score_answers` and `read_values` do,
    and `ModelError` where a prompt has no model within the limits.
    """
    connection = connect(root)
    limits = limits or Limits()
    parameters = {
        "prompt_set": prompt_set,
        **asdict(asked),
        "calibrate_on": calibrate_on or prompt_set,
        "fraction": fraction if calibrate_on in (None, prompt_set) else None,
        "method": method,
        "cost": cost,
        "quality": quality,
        **asdict(limits),
    }
    with record_run(root, "route", parameters, seed=seed) as run:
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
        costs = read_values(connection, scoring.answers, cost)
        fitted_costs = read_values(connection, scoring.fitted_on, cost)
        qualities = (
            np.zeros(costs.shape)
            if quality is None
            else read_values(connection, scoring.answers, quality)
        )
        routing_id = content_key(
            scoring.scoring_id,
            cost,
            costs.tolist(),
            quality,
            qualities.tolist(),
            asdict(limits),
            seed,
        )
        if not data_file(root, "routing_evaluations", routing_id).exists():
            is_allowed = limits.allowed(costs, qualities)
            if not is_allowed.any(axis=1).all():
                raise ModelError(no_model(limits, costs, qualities))
            policies, reasons = _policies(
                scoring, costs, fitted_costs, qualities, is_allowed, limits
            )
            judged = judge_policies(
                policies,
                _values(scoring.answers, costs),
                groups=scoring.answers.groups,
                seed=seed,
            )
            judged |= _cost_of_choice(policies, costs, is_allowed)
            names = {"routing_id": routing_id, "scoring_id": scoring.scoring_id}
            _write_routings(root, run, scoring, names, policies, reasons, costs)
            _write_evaluations(root, run, scoring, names, judged, parameters)
    return routing_id, scoring.notes


def _policies(
    scoring: Scoring,
    costs: Float[np.ndarray, "prompt model"],
    fitted_costs: Float[np.ndarray, "prompt model"],
    qualities: Float[np.ndarray, "prompt model"],
    is_allowed: Bool[np.ndarray, "prompt model"],
    limits: Limits,
) -> tuple[dict[str, Float[np.ndarray, "prompt model"]], dict[str, list[str]]]:
    """Policy -> shares, and policy -> reasons of those that have any."""
    answers = scoring.answers
    shape = answers.outcome.shape
    is_open = np.logical_and.reduce(is_allowed, axis=0)
    if not is_open.any():
        raise ModelError("no model may answer every prompt, so there is no best single one")
    policies = {
        f"always {model}": wholly(column, shape)
        for column, model in enumerate(answers.models)
        if is_open[column]
    }
    policies[BEST_SINGLE] = wholly(
        best_single(scoring.fitted_on.outcome, fitted_costs, is_open), shape
    )
    policies[RANDOM] = evenly(is_allowed)
    reasons = {}
    for source in SOURCES:
        router = Router.of(scoring, source=source, cost=costs, quality=qualities, limits=limits)
        decisions = [router.choose(prompt_id) for prompt_id in answers.prompt_ids]
        places = np.array([answers.models.index(decision.model) for decision in decisions])
        policies[f"{source}_projection"] = wholly(places, shape)
        reasons[f"{source}_projection"] = [decision.why for decision in decisions]
        raw = choose(answers.projection(source), costs, is_allowed)
        policies[f"{source}_projection_raw"] = wholly(raw, shape)
    policies[ORACLE] = wholly(choose(answers.outcome, costs, is_allowed), shape)
    return policies, reasons


def _values(
    answers: Answers, costs: Float[np.ndarray, "prompt model"]
) -> dict[str, Float[np.ndarray, "prompt model"]]:
    values = {"outcome": answers.outcome, "cost": costs}
    return values if answers.refusal is None else {**values, "refusal": answers.refusal}


def _cost_of_choice(
    policies: Mapping[str, Float[np.ndarray, "prompt model"]],
    costs: Float[np.ndarray, "prompt model"],
    is_allowed: Bool[np.ndarray, "prompt model"],
) -> dict[tuple[str, str], Estimate]:
    """What the answers cost that a policy needs before it can choose: of one model, or of all.

    Projections of answers, and the oracle, need an answer of every allowed model.
    """
    of_all = float(np.where(is_allowed, costs, 0.0).sum(axis=1).mean())
    return {
        (policy, "cost_of_choice"): Estimate(
            of_all
            if policy.startswith("answer_projection") or policy == ORACLE
            else float((shares * costs).sum(axis=1).mean())
        )
        for policy, shares in policies.items()
    }


def _write_routings(
    root: Path,
    run: Run,
    scoring: Scoring,
    names: dict[str, str],
    policies: Mapping[str, Float[np.ndarray, "prompt model"]],
    reasons: Mapping[str, list[str]],
    costs: Float[np.ndarray, "prompt model"],
) -> None:
    answers = scoring.answers
    described = [
        {
            **names,
            "policy": policy,
            "model": answers.models[column],
            "model_id": answers.model_ids[column],
            "prompt_set": answers.prompt_set,
            "prompt_id": answers.prompt_ids[row],
            "axis_id": scoring.asked.axis_id,
            "share": float(shares[row, column]),
            "cost": float(costs[row, column]),
            "why": reasons[policy][row] if policy in reasons else None,
            "run_id": run.run_id,
        }
        for policy, shares in policies.items()
        for row, column in np.argwhere(shares > 0).tolist()
    ]
    write_rows(root, "routings", rows_table("routings", described), name=names["routing_id"])
    run.rows += len(described)


def _write_evaluations(
    root: Path,
    run: Run,
    scoring: Scoring,
    names: dict[str, str],
    judged: Mapping[tuple[str, str], Estimate],
    parameters: dict[str, Any],
) -> None:
    described = [
        {
            **names,
            "policy": policy,
            "prompt_set": scoring.answers.prompt_set,
            "axis_id": scoring.asked.axis_id,
            "metric": metric,
            **asdict(estimate),
            "prompt_count": len(scoring.answers.prompt_ids),
            "parameters": json.dumps(parameters, sort_keys=True),
            "run_id": run.run_id,
        }
        for (policy, metric), estimate in judged.items()
    ]
    table = rows_table("routing_evaluations", described)
    write_rows(root, "routing_evaluations", table, name=names["routing_id"])
    run.rows += len(described)


TOKENS = "tokens"
_MODEL_COLUMNS = tuple(
    field.name
    for field in TABLES["models"].schema
    if kinds.is_integer(field.type) and not field.nullable
)


def read_values(
    connection: Connection, answers: Answers, named: str
) -> Float[np.ndarray, "prompt model"]:
    """The value of every answer.

    `named` is `tokens` (generated ones), a number of the table models such as `parameter_count`, or
    `RELATION:COLUMN`: a table or view of the warehouse, or a CSV, Parquet or JSON file, with the
    columns `model`, COLUMN and, where the value differs between prompts, `prompt_id`. Raises
    `QueryError` for anything else, `CoverageError` where a value is missing or there twice.
    """
    if named == TOKENS:
        return answers.token_count
    relation, _, column = named.rpartition(":")
    if not relation:
        if named not in _MODEL_COLUMNS:
            raise QueryError(
                f"no column {named} to weigh models by: give {TOKENS}, "
                f"{', '.join(_MODEL_COLUMNS)} or FILE:COLUMN"
            )
        table = query(
            connection,
            f"select model, {named}::double as value from models where list_contains(?, model_id)",
            [list(answers.model_ids)],
        )
        return _filled(answers, table.to_pylist(), named)
    place = relation if re.fullmatch(r"\w+", relation) else _quoted(relation, "'")
    found = query(connection, f"select * from {place}")
    for wanted in ("model", column):
        if wanted not in found.column_names:
            raise QueryError(f"{relation} has no column {wanted}: it needs model and {column}")
    value = _quoted(column, '"')
    prompt = "prompt_id" if "prompt_id" in found.column_names else "null"
    table = query(
        connection, f"select model, {prompt} as prompt_id, {value}::double as value from {place}"
    )
    return _filled(answers, table.to_pylist(), named)


def _filled(answers: Answers, found: list[dict], named: str) -> Float[np.ndarray, "prompt model"]:
    values: dict[tuple[str, str | None], float] = {}
    for row in found:
        key = (row["model"], row.get("prompt_id"))
        if key in values:
            raise CoverageError(f"{named} has two values for {' and '.join(filter(None, key))}")
        if row["value"] is not None:
            values[key] = row["value"]
    filled = np.array(
        [
            [
                values.get((model, prompt_id), values.get((model, None), np.nan))
                for model in answers.models
            ]
            for prompt_id in answers.prompt_ids
        ]
    )
    if np.isnan(filled).any():
        row, column = np.argwhere(np.isnan(filled))[0]
        raise CoverageError(
            f"{named} has no value for {answers.models[column]} (prompt {answers.prompt_ids[row]})"
        )
    return filled


def _quoted(name: str, mark: str) -> str:
    return mark + name.replace(mark, 2 * mark) + mark
