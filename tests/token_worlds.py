"""Prompts of which every token is stored: the positive ones show the concept at a few tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from axes.warehouse.storage.layout import init_root
from axes.warehouse.writer import rows_table, vector_array, write_rows
from tests.rows import full
from tests.worlds import prompt_ids, write_activations, write_model, write_prompt_set

MODEL, WIDTH, LAYER = "alpha", 24, 1


@dataclass(frozen=True)
class TokenWorld:
    """`tokens` by prompt set: `[token, d_model]` of every prompt behind the first token; labels.

    The first token is the same in all prompts and a thousand times as long as the others.
    """

    root: Path
    axis: np.ndarray
    tokens: dict[str, list[np.ndarray]]
    labels: dict[str, np.ndarray]


def make_token_world(
    root: Path,
    sets: dict[str, tuple[int, int]],
    *,
    reach: float = 8.0,
    shown: int = 1,
    files: int = 3,
    width: int = WIDTH,
    seed: int = 0,
) -> TokenWorld:
    """Sets of so many pairs of prompts of about so many tokens, and their last five pooled.

    `shown` tokens in a row of a positive prompt, none of its last five, lie `reach` further along
    the axis; tokens vary by 1 in every dimension, about a mean far from zero.
    """
    random = np.random.default_rng(seed)
    axis = random.standard_normal(width)
    axis /= np.linalg.norm(axis)
    centre = 10 * random.standard_normal(width)
    init_root(root)
    write_model(root, MODEL, width, 3)
    world = TokenWorld(root, axis, {}, {})
    for name, (pairs, length) in sets.items():
        labels = np.arange(2 * pairs) % 2 == 0
        tokens = []
        for is_positive in labels:
            count = int(random.integers(length - length // 5, length + 1))
            rows = centre + random.standard_normal((count, width))
            start = int(random.integers(0, count - shown - 5))
            rows[start : start + shown] += reach * is_positive * axis
            tokens.append(rows.astype(np.float32))
        write_prompt_set(root, name, len(labels), labels)
        write_activations(
            root, MODEL, LAYER, name, np.stack([each[-5:].mean(0) for each in tokens])
        )
        ids = np.array(prompt_ids(name, len(labels)))
        for part in range(files):
            _write_tokens(root, f"{name}-{part}", ids[part::files], tokens[part::files])
        world.tokens[name], world.labels[name] = tokens, labels
    return world


def _write_tokens(root: Path, name: str, ids: np.ndarray, tokens: list[np.ndarray]) -> None:
    common = {"model_id": f"id-{MODEL}", "layer": LAYER, "site": "resid_post", "template": "raw"}
    filled = full("prompt_tokens", {**common, "run_id": "world"})
    sink = np.full((1, tokens[0].shape[1]), 1e4, np.float32)
    tokens = [np.concatenate([sink, each]) for each in tokens]
    columns = {key: value for key, value in filled.items() if key not in ("model", "vector")}
    counts = [len(each) for each in tokens]
    columns["prompt_id"] = pa.array(np.repeat(ids, counts).tolist())
    columns["position"] = pa.array([at for count in counts for at in range(count)], pa.int32())
    columns["vector"] = vector_array(np.concatenate(tokens))
    table = rows_table("prompt_tokens", [], **columns)
    write_rows(root, "prompt_tokens", table, name=name, partition=MODEL)
