"""A job killed at any instant, however often, and started again ends with the same rows.

Half of the kills come from outside at random instants; with the other half the job kills itself at
each instant of a write: before, between and after its row groups, its fsync, its rename and its
tables.
"""

from __future__ import annotations

import itertools
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from axes.ingest.generation.traces import ingest_traces
from axes.ingest.requests import TraceRequest
from axes.warehouse.connection import connect_tables, query, vectors
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import data_file
from tests.ingest.conftest import (
    assert_checks_pass,
    exit_codes,
    forked,
    ingest_texts,
    put_axis,
    read,
)
from tests.ingest.processes import (
    INSTANTS,
    PROJECTED,
    SELECTION,
    run_activations,
    run_axis_projections,
    run_projected,
)

# Of those that differ in what they leave: within a file, before and after it has its name.
CHOSEN = ("within", "after fsync", "after rename")


def kill_often(
    root: Path,
    model: Path,
    job: Callable[..., None],
    tables: Sequence[str],
    *,
    instants: Sequence[str],
    random_kills: int,
    seed: int,
) -> list[int]:
    """Start a job and have it killed at each instant and at random ones.

    Returns how many files each kill left.
    """
    chance = random.Random(seed)
    folders = [data_file(root, table, "any", model.name).parent for table in tables]
    plan: list[Any] = [*itertools.product(tables, instants), *[None] * random_kills]
    chance.shuffle(plan)
    left = []
    for number, planned in enumerate(plan):
        if planned is None:
            kill_at_random(forked(job, root, model), folders[0], number % 4, chance)
        else:
            process = forked(job, root, model, instant=(*planned, chance.randint(1, 2)))
            assert exit_codes([process]) == [-signal.SIGKILL], f"never came to {planned}"
        left.append(sum(len(list(folder.glob("*.parquet"))) for folder in folders))
    return left


def kill_at_random(process: Any, folder: Path, new_files: int, chance: random.Random) -> None:
    """Kill a process that has committed so many files, or somewhere in its start."""

    def count() -> int:
        return len(list(folder.glob("*.parquet")))

    wanted = count() + new_files
    process.start()
    while process.is_alive() and count() < wanted:
        process.join(0.002)
    process.join(chance.uniform(0, 0.02 if new_files else 0.4))
    process.kill()
    process.join()
    # 255: killed so early that the fork server could not tell how. A job that ended has 0.
    assert process.exitcode in (-signal.SIGKILL, 255), "the kill came before the end"


def table_rows(root: Path, table: str) -> tuple[list[dict], np.ndarray]:
    """All rows of a table by its key, without the run that wrote them, and their vectors apart."""
    key = TABLES[table].key
    columns = [name for name in TABLES[table].schema.names if name not in ("run_id", "vector")]
    in_order = f"from {table} order by {', '.join(key)}"
    connection = connect_tables(root, table)
    found = query(connection, f"select {', '.join(columns)} {in_order}")
    keys = [tuple(row[name] for name in key) for row in found.select(key).to_pylist()]
    assert len(set(keys)) == len(keys), f"two rows of {table} share a key"
    if "vector" not in TABLES[table].schema.names:
        return found.to_pylist(), np.empty((0, 0))
    column = query(connection, f"select vector {in_order}")["vector"]
    assert isinstance(column, pa.ChunkedArray)
    return found.to_pylist(), vectors(column)


def assert_same_rows(first: Path, second: Path, tables: Sequence[str]) -> None:
    """Equal, numbers but for the rounding that comes with other batches."""
    for table in tables:
        (given, matrix), (wanted, expected) = table_rows(first, table), table_rows(second, table)
        assert len(given) == len(wanted) > 0
        np.testing.assert_allclose(matrix, expected, atol=1e-5, rtol=1e-5)
        for row, other in zip(given, wanted, strict=True):
            rounded = {name for name, value in row.items() if isinstance(value, float)}
            for name in rounded:
                assert row[name] == pytest.approx(other[name], abs=1e-4, rel=1e-5)
            assert {name: row[name] for name in row.keys() - rounded} == {
                name: other[name] for name in other.keys() - rounded
            }


@pytest.mark.parametrize(
    ("instants", "random_kills", "prompt_count"),
    [(CHOSEN, 2, 80), pytest.param(INSTANTS, 14, 150, marks=pytest.mark.campaign)],
)
def test_jobs_killed_and_resumed_equal_uninterrupted_ones(
    root, tmp_path, llama, llama_folder, import_texts, instants, random_kills, prompt_count
):
    put_axis(root, llama, "axis", 1)
    import_texts([f"prompt {index} {'x' * (index % 13)}" for index in range(prompt_count)])
    names = ("traces", "projections", "whole")
    roots = [root, *(shutil.copytree(root, tmp_path / name) for name in names)]
    killed_activations, killed_traces, killed_projections, whole = roots
    stored = ("activations", "prompt_tokens")
    generated = ("generation_tokens", "token_projections", "generations")
    jobs = (
        (killed_activations, llama_folder, run_activations, stored),
        (killed_traces, llama_folder, run_projected, generated),
        (killed_projections, llama_folder, run_axis_projections, ("projections",)),
    )
    with ThreadPoolExecutor(2) as campaigns:
        waiting = [
            campaigns.submit(
                kill_often, *job, instants=instants, random_kills=random_kills, seed=seed
            )
            for seed, job in enumerate(jobs)
        ]
        left = [campaign.result() for campaign in waiting]
    for (*_, tables), files in zip(jobs, left, strict=True):
        assert len(files) == len(tables) * len(instants) + random_kills
        # Most kills came after another file, so that they met the job at different places.
        assert len(set(files)) > (10 if random_kills > 2 else len(files) / 3)
    for root in roots[:3]:
        assert [path for path in root.rglob("*.tmp") if path.is_file()], (
            "some were killed in the middle of a file"
        )
        assert_checks_pass(root)
    partial = table_rows(killed_activations, "activations")[0]
    assert 0 < len(partial) < prompt_count * 16

    for root in (killed_activations, whole):
        ingest_texts(root, llama, **SELECTION)
    for root in (killed_traces, whole):
        ingest_traces(root, llama, TraceRequest(prompt_set="texts", **PROJECTED))
    for root in (killed_projections, whole):
        ingest_texts(root, llama, axes=["axis"])
    assert_same_rows(killed_activations, whole, stored)
    assert_same_rows(killed_traces, whole, generated)
    assert_same_rows(killed_projections, whole, ("projections",))
    assert len(table_rows(whole, "activations")[0]) == prompt_count * 16
    assert len(table_rows(whole, "generations")[0]) == prompt_count
    for root in roots:
        jobs_run = read(root, "select status from runs where command like 'ingest%'")
        ended = [row["status"] for row in jobs_run]
        assert set(ended) <= {"finished", "running"}
        assert ended.count("finished") == (3 if root == whole else 1)
    for root in roots[:3]:
        assert_checks_pass(root)
    again = ingest_texts(killed_activations, llama, **SELECTION)
    assert (again.new_count, again.rows) == (0, 0)
