"""Routing policies compared offline: the outcome and the cost that each would have had.

Policies are evaluated on prompts that every model has completed and that no calibration has seen.
Policies on raw projections are included to show why calibration is needed. The cost and the quality
of a completion are a column of the models, of the completions, or of a user's table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import duckdb
import numpy as np
import pyarrow.types as kinds
from jaxtyping import Bool, Float

from axes.analysis.registry import store_rows
from axes.analysis.routing.response_scores import (
    SOURCES,
    Scoring,
    ScoringRequest,
    scoring_run,
)
from axes.analysis.routing.responses import Completions
from axes.analysis.routing.router import (
    BEST_SINGLE,
    ORACLE,
    RANDOM,
    Limits,
    Router,
    best_single,
    choose,
    evaluate_policies,
    one_hot_shares,
)
from axes.analysis.stats.auroc import Estimate
from axes.warehouse.connection import query
from axes.warehouse.errors import CoverageError, ModelError, QueryError
from axes.warehouse.handle import Warehouse
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key

TOKENS = "tokens"
_MODEL_COLUMNS = tuple(
    field.name
    for field in TABLES["models"].schema
    if kinds.is_integer(field.type) and not field.nullable
)


@dataclass(frozen=True)
class _Policies:
    """Shares of each policy, and its reasons where it has any; `costs` are of the completions."""

    shares: dict[str, Float[np.ndarray, "prompt model"]]
    reasons: dict[str, list[str]]
    costs: Float[np.ndarray, "prompt model"]
    is_allowed: Bool[np.ndarray, "prompt model"]


def run_routing(
    warehouse: Warehouse,
    request: ScoringRequest,
    *,
    cost: str = "parameter_count",
    quality: str | None = None,
    limits: Limits | None = None,
) -> tuple[str, tuple[str, ...]]:
    """Compare the policies on a prompt set; return the id of the routing and its notes.

    Decisions are in `routings`, their results in `routing_evaluations` and `v_routing`. `cost`
    and `quality` are as `read_values` takes them. Raises as `score_completions` and `read_values`
    do, and `ModelError` where a prompt has no model within the limits.
    """
    limits = limits or Limits()
    parameters = {**request.parameters, "cost": cost, "quality": quality, **asdict(limits)}
    with scoring_run(warehouse, "route", request, parameters) as (run, scoring):
        costs = read_values(warehouse, scoring.completions, cost)
        qualities = np.zeros(costs.shape)
        if quality is not None:
            qualities = read_values(warehouse, scoring.completions, quality)
        routing_id = content_key(
            scoring.scoring_id,
            cost,
            costs.tolist(),
            quality,
            qualities.tolist(),
            asdict(limits),
            request.seed,
        )
        if not warehouse.has("routing_evaluations", routing_id):
            fitted_costs = read_values(warehouse, scoring.fitted_on, cost)
            policies = _policies(scoring, costs, fitted_costs, qualities, limits)
            estimates = _evaluate(scoring, policies, request.seed)
            keys = {
                "routing_id": routing_id,
                "scoring_id": scoring.scoring_id,
                "prompt_set": request.prompt_set,
                "axis_id": request.query.axis_id,
            }
            decisions = (keys | row for row in _routing_rows(scoring, policies))
            store_rows(warehouse, run, "routings", routing_id, decisions)
            evaluations = (
                {
                    **keys,
                    "policy": policy,
                    "metric": metric,
                    **asdict(estimate),
                    "prompt_count": len(scoring.completions.rows),
                    "parameters": json.dumps(parameters, sort_keys=True),
                }
                for (policy, metric), estimate in estimates.items()
            )
            store_rows(warehouse, run, "routing_evaluations", routing_id, evaluations)
    return routing_id, scoring.notes


def _policies(
    scoring: Scoring,
    costs: Float[np.ndarray, "prompt model"],
    fitted_costs: Float[np.ndarray, "prompt model"],
    qualities: Float[np.ndarray, "prompt model"],
    limits: Limits,
) -> _Policies:
    completions, shape = scoring.completions, costs.shape
    is_allowed = limits.allowed(costs, qualities)
    is_always_allowed = np.asarray(is_allowed.all(axis=0))
    if not is_always_allowed.any():
        raise ModelError("no model is within the limits for every prompt: relax the limits")
    best = best_single(scoring.fitted_on.outcome, fitted_costs, is_always_allowed)
    shares = {
        **{
            f"always {model}": one_hot_shares(column, shape)
            for column, model in enumerate(completions.models)
            if is_always_allowed[column]
        },
        BEST_SINGLE: one_hot_shares(best, shape),
        RANDOM: is_allowed / is_allowed.sum(axis=1, keepdims=True),
    }
    reasons = {}
    for source in SOURCES:
        policy = f"{source}_projection"
        calibrations = {model: scoring.calibrations[source, model] for model in completions.models}
        router = Router(calibrations, limits, source)
        projections = completions.projection(source)
        decisions = [
            router.choose(*(dict(zip(completions.models, row, strict=True)) for row in prompt))
            for prompt in zip(projections, costs, qualities, strict=True)
        ]
        chosen = np.array([completions.models.index(decision.model) for decision in decisions])
        shares[policy] = one_hot_shares(chosen, shape)
        reasons[policy] = [decision.why for decision in decisions]
        raw = choose(projections, costs, is_allowed)
        shares[f"{policy}_raw"] = one_hot_shares(raw, shape)
    shares[ORACLE] = one_hot_shares(choose(completions.outcome, costs, is_allowed), shape)
    return _Policies(shares, reasons, costs, is_allowed)


def _evaluate(scoring: Scoring, policies: _Policies, seed: int) -> dict[tuple[str, str], Estimate]:
    """(policy, metric) -> estimate; the metric `cost_of_choice` counts what a policy needs to run.

    Projections of completions, and the oracle, need a completion of every allowed model before they
    can choose; the other policies need that of the chosen model.
    """
    completions = scoring.completions
    values = {"outcome": completions.outcome, "cost": policies.costs}
    if completions.refusal is not None:
        values["refusal"] = completions.refusal
    estimates = evaluate_policies(policies.shares, values, groups=completions.groups, seed=seed)
    cost_of_all = float(np.where(policies.is_allowed, policies.costs, 0.0).sum(axis=1).mean())
    for policy in policies.shares:
        needs_all = policy.startswith("answer_projection") or policy == ORACLE
        cost = cost_of_all if needs_all else estimates[policy, "cost"].estimate
        estimates[policy, "cost_of_choice"] = Estimate(cost)
    return estimates


def _routing_rows(scoring: Scoring, policies: _Policies) -> list[dict[str, object]]:
    """One row per policy, prompt and model that the prompt goes to."""
    completions = scoring.completions
    return [
        {
            "policy": policy,
            "model": completions.models[column],
            "model_id": completions.rows[row][column].model_id,
            "prompt_id": completions.rows[row][column].prompt_id,
            "share": float(shares[row, column]),
            "cost": float(policies.costs[row, column]),
            "why": policies.reasons[policy][row] if policy in policies.reasons else None,
        }
        for policy, shares in policies.shares.items()
        for row, column in np.argwhere(shares > 0).tolist()
    ]


def read_values(
    warehouse: Warehouse, completions: Completions, name: str
) -> Float[np.ndarray, "prompt model"]:
    """The cost or the quality of every completion.

    `name` is `tokens` (generated ones), a number of the table models such as `parameter_count`, or
    `RELATION:COLUMN`: a table or view of the warehouse, or a CSV, Parquet or JSON file, with the
    columns `model`, COLUMN and, where the value differs between prompts, `prompt_id`. Raises
    `QueryError` for anything else, `CoverageError` where a value is missing or stored twice.
    """
    if name == TOKENS:
        return completions.values("token_count")
    relation, _, column = name.rpartition(":")
    if not relation and column not in _MODEL_COLUMNS:
        raise QueryError(
            f"no column {name} to weigh models by: give {TOKENS}, "
            f"{', '.join(_MODEL_COLUMNS)} or FILE:COLUMN"
        )
    parameters: list[Any] = []
    source = relation if re.fullmatch(r"\w+", relation) else _quoted(relation, "'")
    if not relation:
        source, parameters = "models where list_contains(?, model_id)", [completions.model_ids]
    # A file that the user named is none of the warehouse's, whose connection reads no other.
    is_file = source.startswith("'")
    ask = partial(query, duckdb.connect()) if is_file else warehouse.query
    columns = ask(f"select * from {source} limit 0", parameters).column_names
    for required in ("model", column):
        if required not in columns:
            raise QueryError(f"{relation} has no column {required}: it needs model and {column}")
    prompt_id = "prompt_id" if "prompt_id" in columns else "null"
    table = ask(
        f"select model, {prompt_id}, {_quoted(column, chr(34))}::double from {source}", parameters
    )
    values: dict[tuple[str, str | None], float] = {}
    for *key, value in zip(*(values.to_pylist() for values in table.columns), strict=True):
        model, prompt = key
        if (model, prompt) in values:
            raise CoverageError(f"{name} has two values for {' and '.join(filter(None, key))}")
        if value is not None:
            values[model, prompt] = value
    return _matrix(completions, values, name)


def _matrix(
    completions: Completions, values: Mapping[tuple[str, str | None], float], name: str
) -> Float[np.ndarray, "prompt model"]:
    """The value of each prompt and model, else that of the model; raises `CoverageError`."""
    matrix = np.empty((len(completions.rows), len(completions.models)))
    for row, prompt_id in enumerate(completions.prompt_ids):
        for column, model in enumerate(completions.models):
            value = values.get((model, prompt_id), values.get((model, None)))
            if value is None:
                raise CoverageError(f"{name} has no value for {model} (prompt {prompt_id})")
            matrix[row, column] = value
    return matrix


def _quoted(name: str, mark: str) -> str:
    return mark + name.replace(mark, 2 * mark) + mark
