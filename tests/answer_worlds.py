"""Models that answered the same prompts, with outcomes that their projections foretell.

Every model shows the latent chance of the outcome on a scale of its own: another offset, another
width. Without a calibration the model of the lowest offset looks best at everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from axes.warehouse.storage.layout import init_root
from tests.rows import put

AXIS = "axis-universal"
STEPS = 3


@dataclass(frozen=True)
class AnswerWorld:
    """What was planted: `chance` and `outcome` are `[prompt, model]`."""

    root: Path
    models: tuple[str, ...]
    chance: np.ndarray
    outcome: np.ndarray


def make_answers(
    root: Path,
    *,
    offsets: dict[str, float],
    harder: dict[str, float] | None = None,
    prompt_set: str = "asked",
    prompt_count: int = 200,
    strength: float = 4.0,
    is_foretold: bool = True,
    seed: int = 0,
) -> AnswerWorld:
    """Write prompts, answers, projections and labels.

    `offsets` is model -> where its projections lie; `harder` moves a model's chances (logits).
    Projections of prompts foretell half as well. Labelers: `judge`, and `refusal_substring`, which
    says the opposite. Projections that foretell nothing (`is_foretold`) are as wide as others.
    """
    random = np.random.default_rng(seed)
    init_root(root)
    models = tuple(sorted(offsets))
    shape = (prompt_count, len(models))
    own = strength * random.standard_normal(shape)
    logits = own + np.array([(harder or {}).get(model, 0.0) for model in models])
    chance = expit(logits)
    outcome = random.random(shape) < chance
    shown = logits if is_foretold else strength * random.standard_normal(shape)
    centre = np.array([offsets[model] for model in models])
    width = np.linspace(0.5, 2.0, len(models))
    answer_projection = centre + width * shown
    prompt_projection = centre + width * (shown + strength * random.standard_normal(shape))
    names = [f"{prompt_set}-{row:04d}" for row in range(prompt_count)]
    write_prompts(root, prompt_set, names)
    for column, model in enumerate(models):
        sizes = {"parameter_count": 100 * (column + 1), "run_id": "world"}
        put(root, "models", {"model": model, "model_id": f"id-{model}", **sizes})
        write_answers(
            root, model, names, answer_projection[:, column], prompt_projection[:, column]
        )
        write_labels(root, model, names, outcome[:, column])
    return AnswerWorld(root, models, chance, outcome)


def write_prompts(root: Path, prompt_set: str, names: list[str]) -> None:
    """Prompts in pairs of a positive and a negative one, and the axis, fitted elsewhere."""
    common = {"prompt_set": prompt_set, "run_id": "world"}
    prompts = [{**common, "prompt_id": name, "position": row} for row, name in enumerate(names)]
    pairs = [f"{prompt_set}-{row // 2}" for row in range(len(names))]
    put(
        root,
        "prompts",
        *({**row, "pair_id": pair} for row, pair in zip(prompts, pairs, strict=True)),
    )
    labels = [
        {**common, "labeler": "dataset", "prompt_id": name, "is_positive": row % 2 == 0}
        for row, name in enumerate(names)
    ]
    put(root, "labels", *labels)
    put(root, "runs", {"run_id": "world", "status": "finished", "parameters": "{}"})
    axis = {"axis_id": AXIS, "name": "shared", "kind": "universal", "prompt_set": "elsewhere"}
    put(root, "axes", {**axis, "run_id": "world"})


def write_answers(
    root: Path,
    model: str,
    names: list[str],
    answer_projection: np.ndarray,
    prompt_projection: np.ndarray | None,
    *,
    template: str = "raw",
    sample: int = 0,
) -> None:
    """One answer per prompt: tokens about its projection, whose mean is exactly that.

    `prompt_projection` None: it is there already, as of the prompt's other samples.
    """
    around = np.arange(STEPS) - (STEPS - 1) / 2
    of_model = {"model": model, "model_id": f"id-{model}", "run_id": "world"}
    on_axis = {"model": model, "axis_id": AXIS, "run_id": "world"}
    ids = answer_ids(model, names, template, sample)
    answers = [
        {**of_model, "generation_id": key, "prompt_id": name, "template": template}
        for key, name in zip(ids, names, strict=True)
    ]
    sizes = {"token_count": STEPS, "max_new_tokens": STEPS}
    put(root, "generations", *({**answer, **sizes} for answer in answers))
    tokens = [
        {**on_axis, "generation_id": key, "step": step, "projection": float(value + around[step])}
        for key, value in zip(ids, answer_projection, strict=True)
        for step in range(STEPS)
    ]
    put(root, "token_projections", *tokens)
    if prompt_projection is None:
        return
    prompts = [
        {**of_model, "axis_id": AXIS, "prompt_id": name, "projection": float(value)}
        for name, value in zip(names, prompt_projection, strict=True)
    ]
    put(root, "projections", *prompts)


def write_labels(
    root: Path,
    model: str,
    names: list[str],
    outcome: np.ndarray,
    *,
    template: str = "raw",
    sample: int = 0,
) -> None:
    """What the judge says of each answer, and the labeler of refusals, who says the opposite."""
    ids = answer_ids(model, names, template, sample)
    labels = [
        {
            "labeler": labeler,
            "generation_id": generation_id,
            "label": "yes" if is_positive else "no",
            "is_positive": bool(is_positive),
            "run_id": "world",
        }
        for generation_id, marked in zip(ids, outcome, strict=True)
        for labeler, is_positive in (("judge", marked), ("refusal_substring", not marked))
    ]
    put(root, "labels", *labels)


def answer_ids(model: str, names: list[str], template: str, sample: int) -> list[str]:
    """The generation ids of a model's answers."""
    return [f"{template}-{sample}-{model}-{name}" for name in names]
