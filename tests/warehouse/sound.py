"""A small sound warehouse, of several files and jobs, to be spoilt."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from axes.warehouse.connection import connect, rows
from axes.warehouse.maintenance.check import check
from axes.warehouse.storage.layout import init_root
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, rows_table, vector_array, write_rows
from tests.rows import full, put, put_prompts

WIDTH, LAYERS = 64, (0, 1, 2)
SETS = {"seen": range(8), "other": range(5, 20)}


def prompt_id(index: int) -> str:
    return f"p{index}"


def put_warehouse(root: Path, *, models: tuple[str, ...] = ("m", "owner/n")) -> None:
    """Two prompt sets that overlap, two models: activations, traces, an axis and projections."""
    init_root(root)
    for name, indices in SETS.items():
        put(root, "runs", import_row(name))
        labels = {prompt_id(index): index % 2 == 0 for index in indices}
        put_prompts(root, name, labels)
    for model in models:
        put_model(root, model)


def import_row(prompt_set: str) -> dict:
    parameters = {"prompt_set": prompt_set, "source": f"{prompt_set}.csv", "labeler": "dataset"}
    return {
        "run_id": "run" if prompt_set == "seen" else "run-other",
        "command": "prompts import",
        "parameters": json.dumps(parameters),
        "status": "finished",
    }


def put_model(root: Path, model: str) -> None:
    """A model's rows, from one job each for activations, traces and a fit."""
    model_id, tag = f"id-{model}", model.replace("/", "-")
    runs = {name: f"{name}-{tag}" for name in ("activations", "traces", "fit")}
    described = {"model_id": model_id, "model": model, "d_model": WIDTH, "layer_count": len(LAYERS)}
    put(root, "models", {**described, "run_id": runs["activations"]})
    indices = sorted({index for indices in SETS.values() for index in indices})
    chunks = [indices[:7], indices[7:14], indices[14:]]
    for chunk in chunks:
        put_chunk(root, model, chunk, runs["activations"])
    for layer in (1, 0):
        token = {
            "model": model,
            "model_id": model_id,
            "prompt_id": prompt_id(0),
            "layer": layer,
            "vector": [float(layer)] * WIDTH,
            "run_id": runs["activations"],
        }
        put(root, "prompt_tokens", *({**token, "position": place} for place in range(2)))
    parameters = {
        "model": model,
        "prompt_sets": dict.fromkeys(SETS),
        "pooling": "last5_mean",
        "template": "raw",
    }
    row_count = len(indices) * len(LAYERS)
    sets = " ".join(f"--prompts {name}" for name in SETS)
    line = f"axes ingest activations {model} {sets} --template raw --pooling last5_mean"
    put_run(root, runs["activations"], "ingest activations", parameters, row_count, line)
    for half in (indices[:2], indices[2:4]):
        put_traces(root, model, half, runs["traces"])
    parameters = {"model": model, "prompt_set": "seen", "limit": 4, "max_new_tokens": 3}
    put_run(root, runs["traces"], "ingest traces", parameters, 4 * 3)
    put_fit(root, model, runs["fit"])


def put_run(
    root: Path, run_id: str, command: str, parameters: dict, rows: int, line: str | None = None
) -> None:
    described = {"run_id": run_id, "command": command, "rows": rows, "status": "finished"}
    text = json.dumps(parameters)
    put(root, "runs", {**described, "parameters": text, "command_line": line})


def vectors_of(model: str, layer: int, indices: list[int]) -> np.ndarray:
    """The vectors that `put_chunk` writes for these prompts."""
    return np.stack(
        [np.random.default_rng([len(model), layer, index]).normal(size=WIDTH) for index in indices]
    ).astype(np.float32)


def put_chunk(root: Path, model: str, indices: list[int], run_id: str) -> Path:
    """One file of activations, a row group per layer, as the job writes it."""
    groups = [activation_group(model, layer, indices, run_id) for layer in LAYERS]
    name = content_key("chunk", model, indices)
    return write_rows(root, "activations", groups, name=name, partition=model)


def activation_group(model: str, layer: int, indices: list[int], run_id: str) -> pa.Table:
    matrix = vectors_of(model, layer, indices)
    described = [
        full(
            "activations",
            {
                "model_id": f"id-{model}",
                "prompt_id": prompt_id(index),
                "layer": layer,
                "site": "resid_post",
                "pooling": "last5_mean",
                "template": "raw",
                "norm": float(norm),
                "token_count": 7,
                "pooled_start": 5,
                "pooled_end": 7,
                "pooled_tokens": ["a", "b"],
                "run_id": run_id,
            },
        )
        for index, norm in zip(indices, np.linalg.norm(matrix, axis=1), strict=True)
    ]
    return rows_table("activations", described, vector=vector_array(matrix))


def put_traces(root: Path, model: str, indices: list[int], run_id: str) -> None:
    """Completions of three tokens at one layer, under one file name in both tables."""
    name = content_key("traces", model, indices)
    ids = [f"g-{model}-{index}" for index in indices]
    common = {"model": model, "run_id": run_id, "site": "resid_post"}
    tokens = [
        full("generation_tokens", {**common, "generation_id": key, "step": step, "layer": 1})
        for key in ids
        for step in range(3)
    ]
    matrix = np.ones((len(tokens), WIDTH), dtype=np.float32)
    table = rows_table("generation_tokens", tokens, vector=vector_array(matrix))
    write_rows(root, "generation_tokens", table, name=name, partition=model)
    described = [
        full(
            "generations",
            {
                "model": model,
                "generation_id": key,
                "model_id": f"id-{model}",
                "prompt_id": prompt_id(index),
                "token_count": 3,
                "run_id": run_id,
            },
        )
        for key, index in zip(ids, indices, strict=True)
    ]
    table = rows_table("generations", described)
    write_rows(root, "generations", table, name=name, partition=model)


def put_fit(root: Path, model: str, run_id: str) -> None:
    """A native axis, its projections in two files and one token projection."""
    axis = f"axis-{model}"
    vector = np.zeros(WIDTH)
    vector[0] = 1.0
    described = {
        "axis_id": axis,
        "name": f"native/{model}",
        "kind": "native",
        "space_model": model,
        "space_model_id": f"id-{model}",
        "layer": 1,
        "vector": vector.tolist(),
        "prompt_set": "seen",
        "run_id": run_id,
    }
    put(root, "axes", described)
    common = {"model": model, "axis_id": axis, "model_id": f"id-{model}", "run_id": run_id}
    for indices in (range(4), range(4, 8)):
        projected = [{**common, "prompt_id": prompt_id(index), "layer": 1} for index in indices]
        put(root, "projections", *projected)
    del common["model_id"]
    put(root, "token_projections", {**common, "generation_id": f"g-{model}-0", "step": 0})
    put_run(root, run_id, "fit", {"model": model, "prompts": "seen"}, 9)


def broken(root: Path) -> list[dict]:
    """What `check` complains of."""
    return [row for row in check(root).to_pylist() if row["row_count"]]


def contents(root: Path) -> dict[str, list[dict]]:
    """Every row of every table, in the order of its key."""
    connection = connect(root)
    return {
        table.name: rows(connection, f"from {table.name} order by {', '.join(table.key)}")
        for table in TABLES.values()
    }


def flip_byte(path: Path, at: int) -> None:
    """Change one byte of a file; a negative place counts from its end."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


class Killed(BaseException):
    """Stands for a kill: nothing after it is run."""


def killed_at(at: int | None, steps: list[tuple[Any, str]], job: Callable[[], object]) -> list[str]:
    """Run a job that dies at its step `at`; the names of the functions it has called of `steps`."""
    called: list[str] = []

    def counted(name: str, function: Callable) -> Callable:
        def step(*arguments: Any, **named: Any) -> Any:
            if len(called) == at:
                raise Killed
            called.append(name)
            return function(*arguments, **named)

        return step

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        for place, name in steps:
            patch.setattr(place, name, counted(name, getattr(place, name)))
        job()
    return called


def instants(called: list[str]) -> list[int]:
    """Steps to kill a job at: each kind, by the step before it, the first two times and the last.

    A migration does the same to every table: the rest repeats a path.
    """
    places = defaultdict(list)
    for at, kind in enumerate(pairwise(["", *called])):
        places[kind].append(at)
    return sorted({at for found in places.values() for at in (*found[:2], found[-1])})
