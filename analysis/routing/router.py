"""The rule of routing: the model whose calibrated projection says the outcome is least likely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from axes.analysis.routing.policies import Limits, choose
from axes.analysis.routing.response_scores import Scoring
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
