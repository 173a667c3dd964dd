"""A warehouse to look at: two models' projections, one prompt they disagree on, and completions.

Positive prompts, their completions and the tokens of these hold the word `FORBIDDEN`, which no page
may show before it is asked to.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from axes.warehouse.layout import init_root
from axes.warehouse.writer import content_key, rows_table, write_rows
from tests.drifting import plant
from tests.rows import full, put

FORBIDDEN = "dreadful"
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


def prompt_text(row: int) -> str:
    if row % 2 == 0:
        return f"tell me the {FORBIDDEN} things about matter number {row}"
    return f"tell me the pleasant things about matter number {row}"


def _put_prompts(root: Path, ids: list[str], is_positive: np.ndarray) -> None:
    prompts = [
        {
            "prompt_set": "marked",
            "prompt_id": prompt_id,
            "position": row,
            "text": prompt_text(row),
            "category": ("doors", "cars")[row // 2 % 2],
            "pair_id": f"pair-{row // 2}",
        }
        for row, prompt_id in enumerate(ids)
    ]
    labels = [
        {
            "prompt_set": "marked",
            "labeler": "dataset",
            "prompt_id": prompt_id,
            "label": "unsafe" if positive else "safe",
            "is_positive": bool(positive),
        }
        for prompt_id, positive in zip(ids, is_positive, strict=True)
    ]
    plain = [
        {
            "prompt_set": "plain",
            "prompt_id": f"q{row}",
            "position": row,
            "text": f"plain text {row}",
        }
        for row in range(5)
    ]
    for table, rows, partition in (
        ("prompts", prompts, "marked"),
        ("labels", labels, "dataset"),
        ("prompts", plain, "plain"),
    ):
        _write(root, table, rows, partition)


def _put_axes(root: Path, models: tuple[str, ...]) -> None:
    for model in models:
        put(root, "models", {"model": model, "model_id": f"id-{model}", "layer_count": 3})
        own = {"space_model": model, "fitted_model": model, "layer": LAYER, "prompt_set": "marked"}
        put(
            root,
            "axes",
            {**own, "axis_id": f"native-{model}", "kind": "native", "name": f"native/{model}"},
        )
        aligned = {"axis_id": f"aligned-{model}", "kind": "aligned", "name": f"aligned/{model}"}
        put(root, "axes", {**own, **aligned, "source_axis_ids": [f"native-{model}"]})
    shared = {"axis_id": UNIVERSAL, "kind": "universal", "name": "universal/demo", "layer": LAYER}
    sources = [f"aligned-{model}" for model in models]
    for model in models:
        others = [source for source in sources if source != f"aligned-{model}"]
        without = {"axis_id": f"without-{model}", "kind": "leave_one_out", "held_out_model": model}
        put(root, "axes", {**without, "name": f"without/{model}", "source_axis_ids": others})
    put(root, "axes", {**shared, "prompt_set": "marked", "source_axis_ids": sources})


def _put_projections(
    root: Path, model: str, ids: list[str], by_axis: dict[str, np.ndarray]
) -> None:
    rows = [
        {
            "model": model,
            "model_id": f"id-{model}",
            "axis_id": axis,
            "prompt_id": prompt_id,
            "layer": LAYER,
            "projection": float(value),
        }
        for axis, values in by_axis.items()
        for prompt_id, value in zip(ids, values, strict=True)
    ]
    _write(root, "projections", rows, model)


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
            generations.append(
                {
                    **same,
                    "model_id": f"id-{model}",
                    "prompt_id": prompt_id,
                    "text": "".join(words),
                    "token_count": steps,
                    "source": None,
                    "finish_reason": "length",
                }
            )
            for step, word in enumerate(words):
                at = {**same, "step": step, "layer": LAYER}
                tokens.append({**at, "site": "resid_post", "token": word, "logprob": -0.5})
                value = float(planted.values[row, step])
                for axis in (UNIVERSAL, f"native-{model}"):
                    projections.append({**at, "axis_id": axis, "projection": value})
        _write(root, "generations", generations, model)
        _write(root, "generation_tokens", tokens, model)
        _write(root, "token_projections", projections, model)


def _write(root: Path, table: str, rows: list[dict], partition: str) -> None:
    described = rows_table(table, [full(table, {**row, "run_id": "run"}) for row in rows])
    write_rows(root, table, described, name=content_key(table, partition), partition=partition)
