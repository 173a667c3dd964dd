"""Rules that choose a model for a prompt, and what each rule would have brought.

`Router` chooses the model with the lowest calibrated probability of the outcome. A policy is a
matrix of shares `[prompt, model]`: the part of a prompt that each model gets, one-hot for a rule
that chooses, uniform for one that draws at random. The mean outcome of a policy is then exact, and
policies are compared on the same prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import draw_counts, percentile_interval
from axes.analysis.stats.calibration import Calibration
from axes.warehouse.errors import ModelError

BEST_SINGLE = "best_single"
ORACLE = "oracle"
RANDOM = "random"


@dataclass(frozen=True)
class Limits:
    """Which models may get a prompt: a maximal cost and a minimal quality.

    Of the models within `tolerance` of the lowest score the cheapest is chosen.
    """

    max_cost: float | None = None
    min_quality: float | None = None
    tolerance: float = 0.0

    def allowed(
        self, cost: Float[np.ndarray, "prompt model"], quality: Float[np.ndarray, "prompt model"]
    ) -> Bool[np.ndarray, "prompt model"]:
        """Whether each model may get each prompt; raises `ModelError` for a prompt without any."""
        is_allowed = np.ones(cost.shape, dtype=bool)
        conditions = []
        if self.max_cost is not None:
            is_allowed &= cost <= self.max_cost
            conditions.append(f"costs at most {self.max_cost:g} (the cheapest {cost.min():g})")
        if self.min_quality is not None:
            is_allowed &= quality >= self.min_quality
            conditions.append(f"has a quality of {self.min_quality:g} (the best {quality.max():g})")
        if not is_allowed.any(axis=1).all():
            raise ModelError(
                f"a prompt has no model that {' and '.join(conditions)}: relax the limits"
            )
        return is_allowed


@dataclass(frozen=True)
class Decision:
    """The chosen model of a prompt, its probability, why it was chosen, and all probabilities."""

    model: str
    probability: float
    why: str
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Router:
    """Sends a prompt to the model of the lowest calibrated probability, within `limits`.

    `source` (prompt or answer) says what is projected.

    >>> def line(intercept: float) -> Calibration:
    ...     parameters = {"slope": 1.0, "intercept": intercept}
    ...     return Calibration("platt", "balanced_accuracy", -intercept, parameters, 1, 1)
    >>> Router({"a": line(0.0), "b": line(-9.0)}).choose({"a": 2.0, "b": 8.0}).model
    'b'
    """

    calibrations: Mapping[str, Calibration]
    limits: Limits = field(default_factory=Limits)
    source: str = "answer"

    def choose(
        self,
        projections: Mapping[str, float],
        costs: Mapping[str, float] | None = None,
        qualities: Mapping[str, float] | None = None,
    ) -> Decision:
        """The decision for one prompt by its projections, costs and qualities by model.

        Raises `ModelError` for a model without calibration or where none is within the limits.
        """
        if unknown := sorted(projections.keys() - self.calibrations.keys()):
            raise ModelError(
                f"{unknown[0]} has no calibration (calibrated: {', '.join(self.calibrations)})"
            )
        models = [model for model in self.calibrations if model in projections]
        cost, quality = (
            np.array([[values[model] if values else 0.0 for model in models]])
            for values in (costs, qualities)
        )
        is_allowed = self.limits.allowed(cost, quality)
        probabilities = {
            model: float(self.calibrations[model].probability(np.array([projections[model]]))[0])
            for model in models
        }
        scores = np.array([list(probabilities.values())])
        chosen = models[int(choose(scores, cost, is_allowed, self.limits.tolerance)[0])]
        allowed = {
            model: probabilities[model]
            for model, may_answer in zip(models, is_allowed[0], strict=True)
            if may_answer
        }
        why = self._why(chosen, allowed, len(models))
        return Decision(chosen, probabilities[chosen], why, probabilities)

    def _why(self, chosen: str, allowed: Mapping[str, float], count: int) -> str:
        lowest = min(allowed, key=lambda model: allowed[model])
        reason = f"{self.source} projection gives {allowed[chosen]:.3f}"
        outside = f"; {count - len(allowed)} outside the limits" if len(allowed) < count else ""
        if allowed[chosen] > allowed[lowest]:
            return (
                f"{reason}, cheapest within {self.limits.tolerance:g} of {lowest}'s "
                f"{allowed[lowest]:.3f}{outside}"
            )
        others = {model: value for model, value in allowed.items() if model != chosen}
        if not others:
            return f"{reason}, the only one within the limits"
        second = min(others, key=lambda model: others[model])
        if others[second] == allowed[chosen]:
            return f"{reason}, equal to {second}'s; chosen by cost, then by order{outside}"
        return f"{reason}, next {second} with {others[second]:.3f}{outside}"


def choose(
    scores: Float[np.ndarray, "prompt model"],
    cost: Float[np.ndarray, "prompt model"],
    is_allowed: Bool[np.ndarray, "prompt model"],
    tolerance: float = 0.0,
) -> Int[np.ndarray, " prompt"]:
    """Per prompt the allowed model of the lowest score, or the cheapest within `tolerance` of it.

    Equal costs are decided by the score, equal scores by the order of the models.

    >>> scores, cost = np.array([[0.10, 0.12, 0.9]]), np.array([[5.0, 1.0, 0.0]])
    >>> everything = np.ones((1, 3), dtype=bool)
    >>> choose(scores, cost, everything), choose(scores, cost, everything, tolerance=0.05)
    (array([0]), array([1]))
    """
    allowed_scores = np.where(is_allowed, scores, np.inf)
    lowest = allowed_scores.min(axis=1, keepdims=True)
    is_near = is_allowed & (allowed_scores <= lowest + tolerance)
    near_costs = np.where(is_near, cost, np.inf)
    is_cheapest = is_near & (near_costs == near_costs.min(axis=1, keepdims=True))
    return np.where(is_cheapest, scores, np.inf).argmin(axis=1)


def best_single(
    outcome: Float[np.ndarray, "prompt model"],
    cost: Float[np.ndarray, "prompt model"],
    is_allowed: Bool[np.ndarray, " model"],
) -> int:
    """The model that is best for all prompts together: the lowest mean outcome, then the cheapest.

    `outcome` and `cost` are of calibration prompts; `is_allowed` says which models may get every
    prompt that is routed.
    """
    means, costs = outcome.mean(axis=0), cost.mean(axis=0)
    return int(choose(means[None], costs[None], is_allowed[None])[0])


def one_hot_shares(
    chosen: Int[np.ndarray, " prompt"] | int, shape: tuple[int, int]
) -> Float[np.ndarray, "prompt model"]:
    """The shares of a rule that sends every prompt to one model."""
    return np.eye(shape[1])[np.broadcast_to(chosen, shape[0])]


def evaluate_policies(
    policies: Mapping[str, Float[np.ndarray, "prompt model"]],
    values: Mapping[str, Float[np.ndarray, "prompt model"]],
    *,
    groups: Int[np.ndarray, " prompt"],
    seed: int = 0,
) -> dict[tuple[str, str], Estimate]:
    """(policy, metric) -> the mean over prompts, with an interval; all on the same resamples.

    `values` must hold `outcome`. Three differences are added, each on the same prompts and tested
    against 0: `regret` is the outcome minus that of the oracle, `gain` the outcome of the best
    single model minus the policy's, `over_raw` that of the same policy on raw projections (named
    POLICY_raw) minus the policy's. Resamples draw complete groups; fitted maps are held fixed.
    """
    per_prompt = {
        (policy, metric): (shares * matrix).sum(axis=1)
        for policy, shares in policies.items()
        for metric, matrix in values.items()
    }
    differences = {}
    for policy in policies:
        outcome = per_prompt[policy, "outcome"]
        differences[policy, "regret"] = outcome - per_prompt[ORACLE, "outcome"]
        differences[policy, "gain"] = per_prompt[BEST_SINGLE, "outcome"] - outcome
        if f"{policy}_raw" in policies:
            differences[policy, "over_raw"] = per_prompt[f"{policy}_raw", "outcome"] - outcome
    # [resample, prompt] counts times a column: the sum of every resample at once.
    counts = draw_counts(len(groups), groups=groups, seed=seed)
    sizes = counts.sum(axis=1)
    return {
        key: percentile_interval(
            float(column.mean()),
            counts @ column / sizes,
            is_tested=key in differences,
            count=None if key in differences else len(np.unique(groups)),
        )
        for key, column in (per_prompt | differences).items()
    }
