"""Compaction changes how rows lie, never which rows there are: for no reader, at no instant."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from axes.warehouse.connection import connect, query, rows
from axes.warehouse.errors import RootError
from axes.warehouse.maintenance import compaction
from axes.warehouse.maintenance.check import inspect_files
from axes.warehouse.maintenance.compaction import COMPACTED, compact
from axes.warehouse.runs import Run
from axes.warehouse.storage import folder as folders
from axes.warehouse.storage import ledger
from axes.warehouse.storage.folder import exchange
from axes.warehouse.storage.layout import init_root
from axes.warehouse.writer import remove_uncommitted
from tests.rows import put
from tests.warehouse.sound import (
    LAYERS,
    broken,
    contents,
    flip_byte,
    killed_at,
    put_chunk,
)


def data(root: Path, table: str) -> list[Path]:
    return [path for path in (root / table).rglob("*.parquet") if path.name != "schema.parquet"]


def test_every_row_is_there_once_afterwards_and_the_warehouse_is_sound(lake: Path) -> None:
    before = contents(lake)
    done = compact(lake)
    in_one_file = {"token_projections", "intervention_outcomes"}
    assert {item.partition.split("/")[0] for item in done} == {*COMPACTED} - in_one_file
    assert all(item.files_after < item.files_before for item in done)
    assert contents(lake) == before
    assert broken(lake) == []


def test_a_row_group_holds_one_layer_and_layers_are_in_order(lake: Path) -> None:
    compact(lake)
    (path,) = data(lake, "activations/model=m")
    metadata = pq.read_metadata(path)
    column = metadata.schema.names.index("layer")
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    bounds = [group.column(column).statistics for group in groups]
    assert [(one.min, one.max) for one in bounds] == [(layer, layer) for layer in LAYERS]
    assert [group.num_rows for group in groups] == [20] * len(LAYERS)


def test_layers_that_shared_a_row_group_are_taken_apart(lake: Path) -> None:
    before = contents(lake)["generation_tokens"]
    common = {"model": "m", "run_id": "traces-m", "vector": [1.0] * 64}
    for name in ("more", "most"):
        tokens = [
            {**common, "generation_id": f"g-m-{name}", "step": step, "layer": layer}
            for step in range(2)
            for layer in (2, 0)
        ]
        put(lake, "generation_tokens", *tokens)
        put(lake, "generations", {"model": "m", "generation_id": f"g-m-{name}"})
    expected = contents(lake)["generation_tokens"]
    assert len(expected) == len(before) + 8
    compact(lake)
    assert contents(lake)["generation_tokens"] == expected
    (path,) = data(lake, "generation_tokens/model=m")
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(index, columns=["layer"]) for index in range(3)]
    assert [set(group.column("layer").to_pylist()) for group in groups] == [{0}, {1}, {2}]


def test_what_is_compact_is_left_alone(lake: Path) -> None:
    compact(lake)
    before = {path: path.stat().st_mtime_ns for path in lake.rglob("*.parquet")}
    assert compact(lake) == []
    assert {path: path.stat().st_mtime_ns for path in lake.rglob("*.parquet")} == before


def test_files_of_half_the_size_asked_for_are_left_alone(lake: Path) -> None:
    smallest = min(path.stat().st_size for path in data(lake, "activations"))
    assert compact(lake, ["activations"], file_bytes=smallest) == []


def test_a_large_partition_becomes_several_files(lake: Path) -> None:
    largest = max(path.stat().st_size for path in data(lake, "activations"))
    for start in range(30, 60, 3):
        put_chunk(lake, "m", list(range(start, start + 3)), "activations-m")
    before = contents(lake)
    compact(lake, ["activations"], file_bytes=2 * largest + 2)
    assert 1 < len(data(lake, "activations/model=m")) < 8
    assert contents(lake) == before


def test_a_job_that_resumes_after_a_compaction_finds_its_tokens_and_completions(lake):
    """Compaction renames both files of a batch; what commits tokens is the key of their rows."""
    compact(lake, ["generation_tokens"])
    before = contents(lake)
    assert remove_uncommitted(lake, "generation_tokens", "generations", "m") == []
    compact(lake, ["generations"])
    assert remove_uncommitted(lake, "generation_tokens", "generations", "m") == []
    assert contents(lake) == before


def test_tokens_of_a_killed_job_are_not_merged_and_can_still_be_removed(lake: Path) -> None:
    before = contents(lake)
    orphan = {"model": "m", "generation_id": "orphan", "run_id": "run", "vector": [1.0] * 64}
    put(lake, "generation_tokens", orphan)
    compact(lake)
    (removed,) = remove_uncommitted(lake, "generation_tokens", "generations", "m")
    assert not removed.exists()
    assert contents(lake) == before
    assert broken(lake) == []


def test_the_row_of_a_job_under_way_keeps_its_file_to_be_replaced(lake: Path) -> None:
    run = Run(lake, "fit", {})
    run.write("running")
    compact(lake)
    run.write("finished")
    found = rows(connect(lake), "select status from runs where run_id = ?", [run.run_id])
    assert found == [{"status": "finished"}]


def test_a_file_that_is_not_as_written_is_not_given_a_sound_checksum(lake: Path) -> None:
    path = data(lake, "activations/model=m")[0]
    flip_byte(path, path.stat().st_size // 3)
    with pytest.raises(RootError, match="axes warehouse check"):
        compact(lake, ["activations"])
    assert len(data(lake, "activations/model=m")) == 3


def test_a_file_system_that_cannot_exchange_folders_is_refused_and_left_whole(lake, monkeypatch):
    before = contents(lake)
    monkeypatch.setattr(folders.ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(RootError, match="cannot be exchanged .* in one step"):
        compact(lake)
    assert contents(lake) == before
    monkeypatch.undo()
    compact(lake)
    assert contents(lake) == before and broken(lake) == []


def test_two_folders_change_places(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "b").exists() and (tmp_path / "b" / "a").exists()
    with pytest.raises(RootError, match="No such file"):
        exchange(tmp_path / "a", tmp_path / "absent")


# Every step that changes the disk.
STEPS = [
    (compaction, "write_parquet"),
    (folders, "exchange"),
    (folders, "sync_folder"),
    (folders.os, "link"),
    (ledger, "_append"),
    (ledger.os, "fsync"),
    (Path, "rename"),
    (Path, "replace"),
    (Path, "mkdir"),
]


def activation_keys(root: Path) -> list[tuple]:
    """What a reader without this code sees of the activations."""
    glob = f"{root}/activations/*/*.parquet"
    connection = duckdb.connect()
    return connection.execute(f"select prompt_id, layer from '{glob}' order by all").fetchall()


def test_killed_at_any_step_no_row_is_missing_or_twice_and_it_can_be_started_again(tmp_path):
    init_root(tmp_path / "original")
    for start in (0, 2):
        put_chunk(tmp_path / "original", "m", [start, start + 1], "run")
    expected = activation_keys(tmp_path / "original")
    whole = shutil.copytree(tmp_path / "original", tmp_path / "whole")
    called = killed_at(None, STEPS, lambda: compact(whole, ["activations"]))
    assert len(called) > 15
    for at in range(len(called)):
        root = shutil.copytree(tmp_path / "original", tmp_path / str(at))
        assert killed_at(at, STEPS, lambda root=root: compact(root, ["activations"])) == called[:at]
        assert activation_keys(root) == expected, f"killed at step {at}"
        assert inspect_files(root) == [], f"killed at step {at}"
        compact(root, ["activations"])
        assert activation_keys(root) == expected, f"killed at step {at}, started again"
        assert inspect_files(root) == [], f"killed at step {at}, started again"
        assert len(data(root, "activations")) == 1


READERS = {
    "axes": """
from axes.warehouse.connection import connect, rows
def read():
    return rows(connect(Path(root)), "select count(*) as n, sum(list_sum(vector)) as s "
                "from activations")[0].values()
""",
    "duckdb": """
import duckdb
def read():
    return duckdb.connect().execute("select count(*), sum(list_sum(vector)) from read_parquet("
        f"'{root}/activations/*/*.parquet', hive_partitioning = true)").fetchone()
""",
    "pyarrow": """
import pyarrow.dataset as ds, pyarrow.compute as pc
def read():
    table = ds.dataset(f"{root}/activations", partitioning="hive").to_table(columns=["vector"])
    return table.num_rows, pc.sum(pc.list_flatten(table.column("vector"))).as_py()
""",
    "polars": """
import polars as pl
def read():
    frame = pl.scan_parquet(f"{root}/activations/*/*.parquet", hive_partitioning=True)
    frame = frame.select("vector").collect()
    return frame.height, frame["vector"].explode().sum()
""",
}
LOOP = """
import json, os, sys
from pathlib import Path
root, stop = sys.argv[1:]
{define}
seen, refused, count = set(), 0, 0
read()
print("ready", flush=True)
while not os.path.exists(stop):
    try:
        rows_read, total = read()
        seen.add((rows_read, round(total, 2)))
        count += 1
    except Exception as error:
        if "No such file" not in str(error):
            raise
        refused += 1
print(json.dumps([sorted(seen), refused, count]))
"""
WRITER = """
import os, sys
from pathlib import Path
from tests.warehouse.sound import put_chunk
root, stop = sys.argv[1:]
print("ready", flush=True)
count = 0
while not os.path.exists(stop):
    put_chunk(Path(root), "late", [100 + count], "activations-m")
    count += 1
print(count)
"""


def start(source: str, *arguments: str | Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture(scope="module")
def ten_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten models of three files each, so that there are ten exchanges to meet."""
    root = tmp_path_factory.mktemp("busy") / "lake"
    init_root(root)
    for index in range(10):
        for start in (0, 7, 14):
            put_chunk(root, f"m{index}", list(range(start, start + 7)), "run")
    return root


@pytest.fixture
def busy(ten_models: Path, tmp_path: Path) -> Path:
    return shutil.copytree(ten_models, tmp_path / "busy")


@pytest.mark.parametrize("reader", READERS)
def test_readers_see_every_row_once_while_folders_are_exchanged(busy, tmp_path, reader):
    stop = tmp_path / "stop"
    expected = query(connect(busy), "select count(*), sum(list_sum(vector)) from activations")
    count, total = (column[0].as_py() for column in expected.columns)
    process = start(LOOP.format(define=READERS[reader]), busy, stop)
    time.sleep(0.3)
    assert len(compact(busy, ["activations"])) == 10
    # Back and forth: the retired folders hold the same rows in three files each.
    retired = sorted(path for path in busy.glob(".retired/*/activations/*"))
    for _ in range(20):
        for folder in retired:
            exchange(folder, busy / "activations" / folder.name)
    time.sleep(0.2)
    stop.touch()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    seen, refused, reads = json.loads(output.splitlines()[-1])
    assert [found for found, _ in seen] == [count]
    assert all(value == pytest.approx(total, abs=0.02) for _, value in seen)
    assert reads > 0
    if reader == "axes":
        assert refused == 0 or refused < reads


def test_rows_written_while_a_partition_is_compacted_are_not_lost(busy, tmp_path):
    stop = tmp_path / "stop"
    process = start(WRITER, busy, stop)
    turns = 0
    while turns < 10 or len(data(busy, "activations/model=late")) < 2:
        compact(busy, ["activations"])
        turns += 1
    stop.touch()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    written = int(output.splitlines()[-1])
    assert written > 1
    late = f"'{busy}/activations/model=late/*.parquet'"
    counts = f"select count(*), count(distinct (prompt_id, layer)) from {late}"
    assert duckdb.connect().execute(counts).fetchall() == [(written * len(LAYERS),) * 2]
    assert inspect_files(busy) == []
