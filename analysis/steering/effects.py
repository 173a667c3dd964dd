"""Evaluate an experiment: effects of steering with intervals, compared with random directions.

An effect is the mean over prompts of steered minus unsteered, with a bootstrap interval over
prompts. A sweep of strengths is summed up by its slope through the origin, per prompt, then as an
effect: over the strength for what a direction can raise or lower, over its size for what any
change of a model costs (`_COSTS`). The verdict follows rules that are written in docs/methods.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from axes.analysis.registry import store_rows
from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import draw_counts, percentile_interval
from axes.warehouse.errors import CoverageError
from axes.warehouse.handle import Warehouse
from axes.warehouse.writer import content_key

# With fewer random directions than this there is no verdict.
MIN_RANDOM = 20
# What a change costs a model, whichever way it goes.
_COSTS = ("kl", "log_perplexity", "repetition", "longest_repeat")
# The others are shares, as every label is; a difference of less than this is called small.
_NO_SHARES = ("kl", "log_perplexity", "projection_shift")
_SMALL = 0.1

_OUTCOMES = """
select
    axis_id, layers, metric, prompt_set, is_positive, prompt_id, strength, value, unsteered,
    difference
from v_intervention_outcomes
where
    model = $model and model_id = $model_id and mode = $mode and positions = $positions
    and above is not distinct from $above and condition is not distinct from $condition
    and list_contains($axis_ids, axis_id) and list_contains($strengths, strength)
    and new_tokens in (0, $new_tokens)
    and (
        (
            prompt_set = $prompt_set and template = $template
            and metric not in ('kl', 'log_perplexity')
        )
        or (
            prompt_set = $benign_set and template = 'raw'
            and metric in ('kl', 'log_perplexity')
        )
    )
order by all
"""


@dataclass(frozen=True)
class Experiment:
    """What is evaluated together: axes and their controls under one kind of change of one model.

    `roles` says of each axis id whether it is an `axis` or which control.
    """

    model: str
    model_id: str
    roles: Mapping[str, str]
    mode: str
    positions: str
    above: float | None
    condition: str | None
    strengths: tuple[float, ...]
    prompt_set: str
    benign_set: str
    template: str
    new_tokens: int
    seed: int = 0


def evaluate_experiment(warehouse: Warehouse, experiment: Experiment) -> str:
    """Write the experiment's rows of `interventions`, unless they are stored; return its id.

    Raises `CoverageError` where outcomes are missing: run the experiment first.
    """
    outcomes = _outcomes(warehouse, experiment)
    definition = {
        name: value for name, value in vars(experiment).items() if name not in ("model", "model_id")
    }
    experiment_id = content_key(
        experiment.model_id,
        definition,
        [[*key, *rows.prompt_ids, rows.difference.tolist()] for key, rows in outcomes.items()],
    )
    if warehouse.has("interventions", experiment_id):
        return experiment_id
    with warehouse.run("intervene", definition, seed=experiment.seed) as run:
        shared = {
            "experiment_id": experiment_id,
            "model": experiment.model,
            "model_id": experiment.model_id,
            "mode": experiment.mode,
            "parameters": json.dumps(definition, sort_keys=True),
        }
        effects = (shared | row for row in _rows(experiment, outcomes))
        store_rows(warehouse, run, "interventions", experiment_id, effects)
    return experiment_id


class _Key(NamedTuple):
    """What effects are computed of: prompts of one class under changes along one axis."""

    axis_id: str
    layers: str
    metric: str
    prompt_set: str
    is_positive: bool | None


@dataclass(frozen=True)
class _Outcomes:
    """Steered minus unsteered `[prompt, strength]`, in the experiment's order of strengths."""

    prompt_ids: tuple[str, ...]
    difference: Float[np.ndarray, "prompt strength"]
    unsteered: float


def _outcomes(warehouse: Warehouse, experiment: Experiment) -> dict[_Key, _Outcomes]:
    """The differences from the unsteered model of prompts that were run under every strength."""
    names = (
        *("model", "model_id", "mode", "positions", "above", "condition"),
        *("new_tokens", "prompt_set", "benign_set", "template"),
    )
    table = warehouse.query(
        _OUTCOMES,
        {
            **{name: getattr(experiment, name) for name in names},
            "axis_ids": list(experiment.roles),
            "strengths": list(experiment.strengths),
        },
    )
    # Key -> prompt -> strength -> difference and unsteered value.
    grouped: dict[_Key, dict[str, dict[float, tuple[float, float]]]] = {}
    for row in table.to_pylist():
        key = _Key(*(row[name] for name in _Key._fields))
        by_strength = grouped.setdefault(key, {}).setdefault(row["prompt_id"], {})
        by_strength[row["strength"]] = row["difference"], row["unsteered"]
    outcomes = {}
    for key, by_prompt in grouped.items():
        complete = {
            prompt_id: [by_strength[strength] for strength in experiment.strengths]
            for prompt_id, by_strength in by_prompt.items()
            if by_strength.keys() >= set(experiment.strengths)
        }
        if complete:
            pairs = np.array(list(complete.values()))  # [prompt, strength, 2]
            outcomes[key] = _Outcomes(tuple(complete), pairs[:, :, 0], pairs[:, 0, 1].mean())
    if missing := experiment.roles.keys() - {key.axis_id for key in outcomes}:
        raise CoverageError(
            f"{len(missing)} of {len(experiment.roles)} axes have no outcomes of "
            f"{experiment.model} under {experiment.mode} on {experiment.prompt_set} and "
            f"{experiment.benign_set}: run `axes intervene` with them"
        )
    return outcomes


def _rows(
    experiment: Experiment, outcomes: Mapping[_Key, _Outcomes]
) -> Iterator[dict[str, object]]:
    """A row for every effect and, with several strengths, for every slope."""
    effects = {key: _effects(experiment, key.metric, rows) for key, rows in outcomes.items()}
    # Effects of the random directions, by all of the key but the axis, and by strength.
    random: dict[tuple[Any, ...], list[float]] = {}
    for key, estimates in effects.items():
        if experiment.roles[key.axis_id] == "random":
            for strength, estimate in estimates.items():
                random.setdefault((*key[1:], strength), []).append(estimate.estimate)
    for key, estimates in effects.items():
        role = experiment.roles[key.axis_id]
        for strength, effect in estimates.items():
            controls = np.array(random.get((*key[1:], strength), []))
            row: dict[str, object] = {
                **key._asdict(),
                **asdict(effect),
                "role": role,
                "strength": strength,
                "unsteered": outcomes[key].unsteered,
                "prompt_count": len(outcomes[key].prompt_ids),
                "random_count": len(controls),
                "random_lower": controls.min() if len(controls) else None,
                "random_upper": controls.max() if len(controls) else None,
            }
            if role == "axis":
                row["p_value"] = _rank(effect.estimate, controls)
                row["verdict"] = _verdict(experiment, key.metric, strength, effect, controls)
            yield row


def _effects(
    experiment: Experiment, metric: str, outcomes: _Outcomes
) -> dict[float | None, Estimate]:
    """Strength -> mean difference with its interval; None -> the slope over the strengths."""
    strengths = np.array(experiment.strengths)
    doses = np.abs(strengths) if metric in _COSTS else strengths
    columns = [*outcomes.difference.T]
    names: list[float | None] = [*experiment.strengths]
    if len(strengths) > 1:
        columns.append(outcomes.difference @ doses / (doses @ doses))
        names.append(None)
    by_prompt = np.stack(columns, axis=1)
    counts = draw_counts(len(by_prompt), seed=experiment.seed)
    resampled = counts @ by_prompt / len(by_prompt)
    return {
        name: percentile_interval(float(by_prompt[:, column].mean()), resampled[:, column])
        for column, name in enumerate(names)
    }


def _rank(estimate: float, controls: Float[np.ndarray, " random"]) -> float | None:
    """Share of directions, this one among them, whose effect is no smaller."""
    if not len(controls):
        return None
    return float((1 + (np.abs(controls) >= abs(estimate)).sum()) / (1 + len(controls)))


def _verdict(
    experiment: Experiment,
    metric: str,
    strength: float | None,
    effect: Estimate,
    controls: Float[np.ndarray, " random"],
) -> str:
    """The rules of docs/methods.md, in this order."""
    if len(controls) < MIN_RANDOM:
        return f"not judged: {len(controls)} random directions, {MIN_RANDOM} are needed"
    assert effect.lower is not None and effect.upper is not None
    if effect.lower <= 0 <= effect.upper:
        return "no effect shown: the interval holds 0"
    is_beyond = abs(effect.estimate) > np.abs(controls).max()
    text = "beyond" if is_beyond else "no larger than the largest of"
    largest = max(map(abs, experiment.strengths)) if strength is None else 1.0
    is_share = metric not in _NO_SHARES and not metric.endswith("_openers")
    is_small = is_share and abs(effect.estimate) * largest < _SMALL
    return f"{'small, and ' if is_small else ''}{text} {len(controls)} random directions"
