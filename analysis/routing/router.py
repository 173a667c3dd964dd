"""The rule of routing: the model whose calibrated projection says the outcome is least likely.

Which model answers which prompt: rules of choice, and what each of them would have brought.

A policy is a matrix of shares `[prompt, model]`: how much of a prompt goes to a model, all of it
for a rule that chooses, equal parts for one that draws at random. What a policy brings on average
is then exact, and policies are compared on the same prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.routing.response_scores import Scoring
from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import RESAMPLE_COUNT, draw_counts, percentile_interval
from axes.analysis.stats.calibration import Calibration
from axes.warehouse.errors import CoverageError, ModelError


@dataclass(frozen=True)
class Decision:
    """Where a prompt goes, and why.

    `probability`, `projection` and `cost` are of the chosen model; the mappings hold those of every
    model that could have been chosen.
    """

    model: str
    probability: float
    projection: float
    cost: float
    why: str
    probabilities: Mapping[str, float]
    projections: Mapping[str, float]
    costs: Mapping[str, float]
    prompt_id: str | None = None


@dataclass(frozen=True)
class Candidates:
    """What is known of a stored prompt: per model a projection, a cost and a quality."""

    projections: Mapping[str, float]
    costs: Mapping[str, float]
    qualities: Mapping[str, float]


class Router:
    """Sends a prompt to the model of the lowest calibrated probability, within `limits`.

    `costs` and `qualities` are per model and serve for new prompts; `stored` is prompt id ->
    `Candidates` of prompts that the calibrations were not fitted on. `Router.of` makes one from a
    scoring of the warehouse.

    >>> def line(intercept: float) -> Calibration:
    ...     parameters = {"slope": 1.0, "intercept": intercept}
    ...     return Calibration("platt", "balanced_accuracy", -intercept, parameters, 1, 1)
    >>> Router({"a": line(0.0), "b": line(-9.0)}).choose({"a": 2.0, "b": 8.0}).model
    'b'
    """

    def __init__(
        self,
        calibrations: Mapping[str, Calibration],
        *,
        costs: Mapping[str, float] | None = None,
        qualities: Mapping[str, float] | None = None,
        limits: Limits | None = None,
        stored: Mapping[str, Candidates] | None = None,
        source: str = "answer",
    ) -> None:
        self.calibrations = dict(calibrations)
        self.costs = dict.fromkeys(self.calibrations, 0.0) if costs is None else dict(costs)
        self.qualities = dict.fromkeys(self.calibrations, 0.0) if qualities is None else qualities
        self.limits = limits or Limits()
        self.stored = dict(stored or {})
        self.source = source

    @classmethod
    def of(
        cls,
        scoring: Scoring,
        *,
        source: str = "answer",
        cost: Float[np.ndarray, "prompt model"] | None = None,
        quality: Float[np.ndarray, "prompt model"] | None = None,
        limits: Limits | None = None,
    ) -> Router:
        """A router by the projections of `source` (prompt or answer) of a scoring.

        For new prompts a model's cost and quality are its means over the scored prompts.
        """
        answers = scoring.answers
        nothing = np.zeros(answers.outcome.shape)
        cost = nothing if cost is None else cost
        quality = nothing if quality is None else quality
        known = (answers.projection(source), cost, quality)

        def by_model(values: np.ndarray) -> dict[str, float]:
            return dict(zip(answers.models, values.tolist(), strict=True))

        return cls(
            {model: scoring.calibrations[source, model] for model in answers.models},
            costs=by_model(cost.mean(axis=0)),
            qualities=by_model(quality.mean(axis=0)),
            limits=limits,
            stored={
                prompt_id: Candidates(*(by_model(values[row]) for values in known))
                for row, prompt_id in enumerate(answers.prompt_ids)
            },
            source=source,
        )

    def choose(self, prompt: str | Mapping[str, float]) -> Decision:
        """The decision for a stored prompt (its id), or for new projections by model.

        Raises `CoverageError` for an unknown prompt, `ModelError` for a model without calibration
        or where no model is within the limits.
        """
        if isinstance(prompt, str):
            if prompt not in self.stored:
                raise CoverageError(
                    f"no prompt {prompt} among the {len(self.stored)} scored ones: give the id of "
                    "one that is not calibrated on, or projections by model"
                )
            known, prompt_id = self.stored[prompt], prompt
        else:
            if unknown := sorted(prompt.keys() - self.calibrations.keys()):
                raise ModelError(
                    f"{unknown[0]} has no calibration (there: {', '.join(self.calibrations)})"
                )
            known, prompt_id = Candidates(prompt, self.costs, self.qualities), None
        return self._decide(known, prompt_id)

    def _decide(self, known: Candidates, prompt_id: str | None) -> Decision:
        models = [model for model in self.calibrations if model in known.projections]
        cost = np.array([[known.costs[model] for model in models]])
        quality = np.array([[known.qualities[model] for model in models]])
        is_allowed = self.limits.allowed(cost, quality)
        if not is_allowed.any():
            raise ModelError(no_model(self.limits, cost, quality))
        chances = {
            model: float(
                self.calibrations[model].probability(np.array([known.projections[model]]))[0]
            )
            for model in models
        }
        scores = np.array([list(chances.values())])
        chosen = models[int(choose(scores, cost, is_allowed, self.limits.tolerance)[0])]
        open_to = [model for model, is_open in zip(models, is_allowed[0], strict=True) if is_open]
        return Decision(
            model=chosen,
            probability=chances[chosen],
            projection=known.projections[chosen],
            cost=known.costs[chosen],
            why=self._why(chosen, {model: chances[model] for model in open_to}, len(models)),
            probabilities=chances,
            projections=dict(known.projections),
            costs={model: known.costs[model] for model in models},
            prompt_id=prompt_id,
        )

    def _why(self, chosen: str, chances: Mapping[str, float], count: int) -> str:
        lowest = min(chances, key=lambda model: chances[model])
        found = f"{self.source} projection gives {chances[chosen]:.3f}"
        shut = f"; {count - len(chances)} outside the limits" if len(chances) < count else ""
        if chances[chosen] > chances[lowest]:
            return (
                f"{found}, cheapest within {self.limits.tolerance:g} of {lowest}'s "
                f"{chances[lowest]:.3f}{shut}"
            )
        others = {model: chance for model, chance in chances.items() if model != chosen}
        if not others:
            return f"{found}, the only one within the limits"
        following = min(others, key=lambda model: others[model])
        if others[following] == chances[chosen]:
            return f"{found}, as {following}'s; taken for its cost, else its place{shut}"
        return f"{found}, next {following} with {others[following]:.3f}{shut}"


def no_model(
    limits: Limits,
    cost: Float[np.ndarray, "prompt model"],
    quality: Float[np.ndarray, "prompt model"],
) -> str:
    """What to say where no model may answer a prompt."""
    wanted = []
    if limits.max_cost is not None:
        wanted.append(f"costs at most {limits.max_cost:g} (the cheapest {cost.min():g})")
    if limits.min_quality is not None:
        wanted.append(f"has a quality of {limits.min_quality:g} (the best {quality.max():g})")
    return f"a prompt has no model that {' and '.join(wanted)}: loosen the limits"


BEST_SINGLE = "best_single"
ORACLE = "oracle"
RANDOM = "random"


@dataclass(frozen=True)
class Limits:
    """What a choice is subject to: the dearest and the poorest model that may answer.

    Of the models within `tolerance` of the lowest score the cheapest is taken.
    """

    max_cost: float | None = None
    min_quality: float | None = None
    tolerance: float = 0.0

    def allowed(
        self, cost: Float[np.ndarray, "prompt model"], quality: Float[np.ndarray, "prompt model"]
    ) -> Bool[np.ndarray, "prompt model"]:
        """Whether each model may answer each prompt."""
        is_allowed = np.ones(cost.shape, dtype=bool)
        if self.max_cost is not None:
            is_allowed &= cost <= self.max_cost
        if self.min_quality is not None:
            is_allowed &= quality >= self.min_quality
        return is_allowed


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
    open_to = np.where(is_allowed, scores, np.inf)
    is_near = is_allowed & (open_to <= open_to.min(axis=1, keepdims=True) + tolerance)
    cheap = np.where(is_near, cost, np.inf)
    is_cheapest = is_near & (cheap == cheap.min(axis=1, keepdims=True))
    return np.where(is_cheapest, scores, np.inf).argmin(axis=1)


def best_single(
    outcome: Float[np.ndarray, "prompt model"],
    cost: Float[np.ndarray, "prompt model"],
    is_open: Bool[np.ndarray, " model"],
) -> int:
    """The model that is best for all prompts together: the lowest mean outcome, then the cheapest.

    `outcome` and `cost` are of calibration prompts; `is_open` says which models may answer every
    prompt that is routed.
    """
    means, costs = outcome.mean(axis=0), cost.mean(axis=0)
    return int(choose(means[None], costs[None], is_open[None])[0])


def wholly(
    chosen: Int[np.ndarray, " prompt"] | int, shape: tuple[int, int]
) -> Float[np.ndarray, "prompt model"]:
    """The shares of a rule that sends every prompt to one model."""
    shares = np.zeros(shape)
    shares[np.arange(shape[0]), chosen] = 1.0
    return shares


def evenly(is_allowed: Bool[np.ndarray, "prompt model"]) -> Float[np.ndarray, "prompt model"]:
    """The shares of a draw among the allowed models."""
    return is_allowed / is_allowed.sum(axis=1, keepdims=True)


def judge_policies(
    policies: Mapping[str, Float[np.ndarray, "prompt model"]],
    values: Mapping[str, Float[np.ndarray, "prompt model"]],
    *,
    groups: Int[np.ndarray, " prompt"],
    count: int = RESAMPLE_COUNT,
    seed: int = 0,
) -> dict[tuple[str, str], Estimate]:
    """(policy, metric) -> the mean over prompts of what it brings, all on the same resamples.

    `values` must hold `outcome`. Beside the means: `regret` is the outcome less that of the oracle,
    `gain` the outcome of the best single model less the policy's own, `over_raw` that of the same
    policy on raw projections (named POLICY_raw) less its own; each on the same prompts, and tested
    against 0. Resamples draw whole `groups`; what was fitted is held fixed.
    """
    per_prompt = {
        (policy, metric): (shares * matrix).sum(axis=1)
        for policy, shares in policies.items()
        for metric, matrix in values.items()
    }
    compared = {}
    for policy in policies:
        own = per_prompt[policy, "outcome"]
        compared[policy, "regret"] = own - per_prompt[ORACLE, "outcome"]
        compared[policy, "gain"] = per_prompt[BEST_SINGLE, "outcome"] - own
        if f"{policy}_raw" in policies:
            compared[policy, "over_raw"] = per_prompt[f"{policy}_raw", "outcome"] - own
    counts = draw_counts(len(groups), groups=groups, count=count, seed=seed)
    sizes = counts.sum(axis=1)
    return {
        key: percentile_interval(
            float(column.mean()), counts @ column / sizes, is_tested=key in compared
        )
        for key, column in (per_prompt | compared).items()
    }
