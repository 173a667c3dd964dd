"""Synthetic model groups in a warehouse, with a planted shared axis or with nothing planted.

A prompt is a latent vector; a model shows it through a random rotation of its own, with noise.
Prompts of the positive class are moved along one latent direction, so every model's own direction
is the image of that one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from warehouse.layout import init_root
from warehouse.writer import content_key, rows_table, vector_array, write_rows

LATENT = 12


@dataclass(frozen=True)
class World:
    """What was planted: each model's map `[latent, d_model]` and the latent axis."""

    root: Path
    maps: dict[str, np.ndarray]
    axis: np.ndarray

    def planted(self, model: str) -> np.ndarray:
        """The unit image of the planted axis in a model's space."""
        image = self.axis @ self.maps[model]
        return image / np.linalg.norm(image)


def make_world(
    root: Path,
    *,
    widths: dict[str, int],
    strength: float = 3.0,
    noise: float = 0.05,
    flipped: str | None = None,
    layer_count: int = 3,
    labelled: dict[str, int] | None = None,
    benign_count: int = 400,
    seed: int = 0,
) -> World:
    """Write prompts, labels, models and activations; `flipped` shows the axis the wrong way round.

    `labelled` is set -> pairs. Every layer holds the same vectors plus noise of its own.
    """
    random = np.random.default_rng(seed)
    init_root(root)
    axis = random.standard_normal(LATENT)
    axis /= np.linalg.norm(axis)
    maps = {
        model: np.linalg.qr(random.standard_normal((max(width, LATENT), LATENT)))[0].T[:, :width]
        for model, width in widths.items()
    }
    latents = {"benign": (random.standard_normal((benign_count, LATENT)), None)}
    for prompt_set, pairs in (labelled or {"labelled": 300, "other": 80}).items():
        labels = np.arange(2 * pairs) % 2 == 0
        shift = strength * (labels - 0.5)[:, None] * axis
        latents[prompt_set] = (random.standard_normal((2 * pairs, LATENT)) + shift, labels)
    for prompt_set, (_, labels) in latents.items():
        write_prompt_set(root, prompt_set, len(latents[prompt_set][0]), labels)
    for model, width in widths.items():
        write_model(root, model, width, layer_count)
        for prompt_set, (latent, labels) in latents.items():
            if model == flipped and labels is not None:
                latent = latent - 2 * np.outer(latent @ axis, axis)
            for layer in range(layer_count):
                wobble = noise * random.standard_normal((len(latent), width))
                write_activations(root, model, layer, prompt_set, latent @ maps[model] + wobble)
    return World(root, maps, axis)


def prompt_ids(prompt_set: str, count: int) -> list[str]:
    return [f"{prompt_set}-{row:05d}" for row in range(count)]


def write_prompt_set(root: Path, prompt_set: str, count: int, labels: np.ndarray | None) -> None:
    """`count` prompts in matched pairs, labelled where `labels` is given."""
    described = [
        {
            "prompt_id": prompt_id,
            "position": row,
            "text": f"{prompt_set} text {row}",
            "pair_id": f"{prompt_set}-{row // 2}",
            "run_id": "world",
        }
        for row, prompt_id in enumerate(prompt_ids(prompt_set, count))
    ]
    write_rows(root, "prompts", rows_table("prompts", described), name="set", partition=prompt_set)
    if labels is not None:
        marked = [
            {
                "prompt_set": prompt_set,
                "prompt_id": row["prompt_id"],
                "label": "unsafe" if is_positive else "safe",
                "is_positive": bool(is_positive),
                "run_id": "world",
            }
            for row, is_positive in zip(described, labels, strict=True)
        ]
        write_rows(
            root, "labels", rows_table("labels", marked), name=prompt_set, partition="dataset"
        )


def write_model(root: Path, model: str, width: int, layer_count: int) -> None:
    row = {
        "model_id": f"id-{model}",
        "model": model,
        "source": "world",
        "architecture": "llama",
        "d_model": width,
        "layer_count": layer_count,
        "parameter_count": 1,
        "dtype": "float32",
        "weights_hash": "w",
        "tokenizer_hash": "t",
        "is_reference": False,
        "run_id": "world",
    }
    write_rows(root, "models", rows_table("models", [row]), name=row["model_id"])


def write_activations(
    root: Path, model: str, layer: int, prompt_set: str, matrix: np.ndarray
) -> None:
    described = [
        {
            "model_id": f"id-{model}",
            "prompt_id": prompt_id,
            "layer": layer,
            "site": "resid_post",
            "pooling": "last5_mean",
            "template": "raw",
            "token_count": 5,
            "pooled_start": 0,
            "pooled_end": 5,
            "pooled_tokens": list("abcde"),
            "rendered_hash": "none",
            "run_id": "world",
        }
        for prompt_id in prompt_ids(prompt_set, len(matrix))
    ]
    norms = np.linalg.norm(matrix.astype(np.float32), axis=1).astype(np.float32)
    table = rows_table("activations", described, vector=vector_array(matrix), norm=pa.array(norms))
    name = content_key(model, layer, prompt_set)
    write_rows(root, "activations", table, name=name, partition=model)
