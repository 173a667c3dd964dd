"""A job killed at any instant, however often, and started again ends with the same rows.

The jobs run in processes of their own, forked from one that has imported everything, so that the
kills fall into the work and not into the imports.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from ingest.activations import ingest_activations
from ingest.models import ModelSpec
from ingest.traces import ingest_traces
from tests.ingest.conftest import ImportTexts, activation_rows, assert_checks_pass, forked
from warehouse.connection import connect, rows
from warehouse.writer import data_file

KILLS = 8
PROMPTS = 120

# What a killed process runs: small commits, so that there is something to resume from.
DRIVER = """
import os
from pathlib import Path
import torch
import ingest.activations, ingest.chunks, ingest.traces
from ingest.models import resolve
torch.set_num_threads(1)
os.environ["AXES_CACHE"] = {cache!r}
ingest.chunks._FLUSH_BYTES = 1
{call}
"""
ACTIVATIONS = (
    "ingest.activations.ingest_activations("
    "Path({root!r}), resolve({model!r}), {{'texts': None}}, token_budget=30)"
)
TRACES = (
    "ingest.traces.ingest_traces(Path({root!r}), resolve({model!r}), 'texts', "
    "layers=[1, 3], max_new_tokens=3, batch_size=2, temperature=1.0)"
)


def kill_often(root: Path, model: Path, call: str, table: str, *, seed: int) -> list[int]:
    """Start the job and kill it, `KILLS` times; returns how many files each kill left."""
    chance = random.Random(seed)
    folder = data_file(root, table, "any", model.name).parent
    text = DRIVER.format(
        cache=os.environ["AXES_CACHE"], call=call.format(root=str(root), model=str(model))
    )
    left = []
    for index in range(KILLS):
        job = forked(exec, text, {})
        there = len(list(folder.glob("*.parquet")))
        # Some are killed while they start, most once they have committed so many files.
        wanted = there + (index % 5)
        job.start()
        while job.is_alive() and len(list(folder.glob("*.parquet"))) < wanted:
            job.join(0.003)
        job.join(chance.uniform(0, 0.4 if wanted == there else 0.02))
        job.kill()
        job.join()
        assert job.exitcode == -signal.SIGKILL, "the kill came before the end"
        left.append(len(list(folder.glob("*.parquet"))))
    return left


@pytest.fixture
def pair(root: Path, tmp_path: Path, import_texts: ImportTexts) -> tuple[Path, Path]:
    """Two warehouses with the same prompts."""
    import_texts([f"prompt {index} {'x' * (index % 13)}" for index in range(PROMPTS)])
    return root, shutil.copytree(root, tmp_path / "uninterrupted")


def test_activations_killed_and_resumed_equal_an_uninterrupted_run(
    pair: tuple[Path, Path], llama: ModelSpec, llama_folder: Path
) -> None:
    killed, whole = pair
    left = kill_often(killed, llama_folder, ACTIVATIONS, "activations", seed=0)
    assert left == sorted(left) and len(set(left)) > 4, "work was committed between the kills"
    partial = activation_rows(killed)
    assert 0 < len(partial) < PROMPTS * 4
    assert_checks_pass(killed)
    ingest_activations(killed, llama, {"texts": None})
    ingest_activations(whole, llama, {"texts": None})
    resumed, expected = activation_rows(killed), activation_rows(whole)
    assert resumed.keys() == expected.keys()
    assert len(resumed) == PROMPTS * 4
    for key, vector in expected.items():
        np.testing.assert_allclose(resumed[key], vector, atol=1e-5, rtol=1e-5)
    assert all(np.array_equal(resumed[key], vector) for key, vector in partial.items())
    assert_checks_pass(killed)
    statuses = rows(connect(killed), "select status from runs where command like 'ingest%'")
    assert [row["status"] for row in statuses].count("finished") == 1
    assert 0 < [row["status"] for row in statuses].count("running") <= KILLS


def trace_rows(root: Path) -> dict[tuple, dict]:
    found = rows(
        connect(root),
        "select prompt_id, text, step, layer, token_id, logprob, vector from generations "
        "inner join generation_tokens using (generation_id)",
    )
    keyed = {(row["prompt_id"], row["step"], row["layer"]): row for row in found}
    assert len(keyed) == len(found), "two tokens share a key"
    return keyed


def test_traces_killed_and_resumed_equal_an_uninterrupted_run(
    pair: tuple[Path, Path], llama: ModelSpec, llama_folder: Path
) -> None:
    killed, whole = pair
    left = kill_often(killed, llama_folder, TRACES, "generation_tokens", seed=1)
    partial = trace_rows(killed)
    assert 0 < left[-1] < PROMPTS // 2 and partial
    options = {"layers": [1, 3], "max_new_tokens": 3, "batch_size": 2, "temperature": 1.0}
    ingest_traces(killed, llama, "texts", **options)
    ingest_traces(whole, llama, "texts", **options)
    resumed, expected = trace_rows(killed), trace_rows(whole)
    assert partial.keys() < resumed.keys() == expected.keys()
    for key, row in expected.items():
        assert (row["text"], row["token_id"]) == (resumed[key]["text"], resumed[key]["token_id"])
        assert row["logprob"] == pytest.approx(resumed[key]["logprob"], abs=1e-5)
        np.testing.assert_allclose(row["vector"], resumed[key]["vector"], atol=1e-5, rtol=1e-5)
    assert_checks_pass(killed)
