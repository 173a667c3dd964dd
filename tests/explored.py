"""A warehouse to look at: two models' projections, one prompt they disagree on, and completions.

Positive prompts, their completions and the tokens of these hold the word `FORBIDDEN`, which no page
may show before it is asked to. Texts and names hold markup (`MARKUP`), which no page may obey.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from axes.warehouse.storage.layout import init_root
from tests.drifting import plant
from tests.rows import put

FORBIDDEN = "dreadful"
MARKUP = "<i>pleasant</i><img src=x onerror=alert(1)>"
MODELS = ("alpha", "beta")
UNIVERSAL = "axis-universal"
# The negative prompt that the first model ranks first, and the others last.
DISPUTED = "p0003"
LAYER = 1


def put_explored(
    root: Path,
    *,
    prompt_count: int = 60,
    completion_count: int = 6,
    steps: int = 8,
    models: tuple[str, ...] = MODELS,
    seed: int = 0,
) -> None:
    """Prompts `marked` in pairs (even ones positive) and `plain` ones without a label."""
    init_root(root)
    random = np.random.default_rng(seed)
    ids = [f"p{row:04d}" for row in range(prompt_count)]
    is_positive = np.arange(prompt_count) % 2 == 0
    _put_prompts(root, ids, is_positive)
    _put_axes(root, models)
    common = random.standard_normal(prompt_count) + 1.5 * is_positive
    for place, model in enumerate(models):
        scale = 10.0**place
        shown = scale * (common + 0.1 * random.standard_normal(prompt_count))
        shown[ids.index(DISPUTED)] = scale * (10.0 if place == 0 else -10.0)
        axes = {UNIVERSAL: shown, f"native-{model}": -shown, f"without-{model}": 2 * shown}
        _put_projections(root, model, ids, axes)
        _put_calibration(root, model, 1 / scale)
    _put_completions(root, models, ids[:completion_count], is_positive, steps)
    _put_difference(root, models)


def prompt_text(row: int) -> str:
    if row % 2 == 0:
        return f"tell me the {FORBIDDEN} things about matter number {row}"
    return f"tell me the {MARKUP} things about matter number {row}"


def _put_prompts(root: Path, ids: list[str], is_positive: np.ndarray) -> None:
    put(
        root,
        "prompts",
        *(
            {
                "prompt_set": "marked",
                "prompt_id": prompt_id,
                "position": row,
                "text": prompt_text(row),
                "category": ("doors", "cars")[row // 2 % 2],
                "pair_id": f"pair-{row // 2}",
            }
            for row, prompt_id in enumerate(ids)
        ),
    )
    labelled = {"prompt_set": "marked", "labeler": "dataset"}
    unsafe = {**labelled, "label": "unsafe", "is_positive": True}
    safe = {**labelled, "label": "safe", "is_positive": False}
    put(
        root,
        "labels",
        *(
            {**(unsafe if positive else safe), "prompt_id": prompt_id}
            for prompt_id, positive in zip(ids, is_positive, strict=True)
        ),
    )
    plain = {"prompt_set": "plain"}
    texts = ({"prompt_id": f"q{n}", "position": n, "text": f"plain text {n}"} for n in range(5))
    put(root, "prompts", *({**plain, **text} for text in texts))


def _put_axes(root: Path, models: tuple[str, ...]) -> None:
    sources = [f"aligned-{model}" for model in models]
    space = {"space_model": models[0], "space_model_id": f"id-{models[0]}", "layer": LAYER}
    space |= {"prompt_set": "marked"}
    shared = {"axis_id": UNIVERSAL, "kind": "universal", "name": "universal/demo"}
    axes = [{**space, **shared, "source_axis_ids": sources}]
    for model in models:
        put(root, "models", {"model": model, "model_id": f"id-{model}", "layer_count": 3})
        own = {"fitted_model": model, "space_model": model, "space_model_id": f"id-{model}"}
        at_layer = {**own, "kind": "native", "prompt_set": "marked"}
        for layer, cosine in ((0, 0.6), (2, 0.8)):
            vector = [cosine, (1 - cosine**2) ** 0.5]
            name = f"native-{model}-{layer}"
            axes.append(
                {**at_layer, "axis_id": name, "name": name, "layer": layer} | {"vector": vector}
            )
        others = [source for source in sources if source != f"aligned-{model}"]
        for kind, more in (
            ("native", own),
            ("aligned", {"fitted_model": model, "source_axis_ids": [f"native-{model}"]}),
            ("leave_one_out", {"held_out_model": model, "source_axis_ids": others}),
        ):
            start = "without" if kind == "leave_one_out" else kind
            name = {"axis_id": f"{start}-{model}", "name": f"{start}/{model}", "kind": kind}
            axes.append({**space, **more, **name})
    put(root, "axes", *axes)


def _put_projections(
    root: Path, model: str, ids: list[str], by_axis: dict[str, np.ndarray]
) -> None:
    same = {"model": model, "model_id": f"id-{model}", "layer": LAYER}
    for axis, values in by_axis.items():
        projected = zip(ids, values, strict=True)
        rows = ({"prompt_id": prompt_id, "projection": float(v)} for prompt_id, v in projected)
        put(root, "projections", *({**same, "axis_id": axis, **row} for row in rows))


def _put_calibration(root: Path, model: str, slope: float) -> None:
    fitted = {
        "calibration_id": f"calibration-{model}",
        "model": model,
        "model_id": f"id-{model}",
        "axis_id": UNIVERSAL,
        "method": "platt",
        "parameters": json.dumps({"slope": slope, "intercept": 0.0}),
        "target": "balanced_accuracy",
    }
    put(root, "calibrations", fitted)


def _put_completions(
    root: Path, models: tuple[str, ...], ids: list[str], is_positive: np.ndarray, steps: int
) -> None:
    planted = plant(pairs=(len(ids) + 1) // 2, slope=0.3, lengths=((steps, steps), (steps, steps)))
    for model in models:
        generations, tokens, projections = [], [], []
        for row, prompt_id in enumerate(ids):
            same = {"model": model, "generation_id": f"g-{model}-{prompt_id}"}
            words = [f" {FORBIDDEN if is_positive[row] else 'calm'}{step}" for step in range(steps)]
            made = {"model_id": f"id-{model}", "prompt_id": prompt_id, "finish_reason": "length"}
            generations.append({**same, **made, "text": "".join(words), "token_count": steps})
            for step, word in enumerate(words):
                at = {**same, "step": step, "layer": LAYER}
                tokens.append({**at, "site": "resid_post", "token": word, "logprob": -0.5})
                projection = {**at, "projection": float(planted.values[row, step])}
                projections += [
                    {**projection, "axis_id": axis} for axis in (UNIVERSAL, f"native-{model}")
                ]
        put(root, "generations", *generations)
        put(root, "generation_tokens", *tokens)
        put(root, "token_projections", *projections)


def _put_difference(root: Path, models: tuple[str, ...]) -> None:
    """The last model less the first at two layers, and how far it moved along the shared axis."""
    same = {"study_id": "difference", "prompt_set": "marked", "run_id": "run", "parameters": "{}"}
    same |= {"fitted_on": models[0], "judged_on": f"{models[-1]}<b>"}
    norms = {"difference_relative_norm": 0.25, "difference_cosine": 0.75}
    norms |= {"difference_norm": 2.5, "difference_mean_share": 0.5}
    by_layer = ({**same, "scorer": "difference", "layer": layer} for layer in (0, LAYER))
    rows = [
        {**row, "metric": metric, "estimate": value + row["layer"]}
        for row in by_layer
        for metric, value in norms.items()
    ]
    moved = {**same, "scorer": "axis", "layer": LAYER, "axis_id": UNIVERSAL, "metric": "moved"}
    put(root, "evaluations", *rows, {**moved, "estimate": -1.5, "lower": -2.0, "upper": -1.0})
