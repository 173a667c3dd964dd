"""What holds of a warehouse wherever it lies: the same tests on a folder and on an object store."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from axes.warehouse.connection import connect, rows, scan
from axes.warehouse.errors import NonFiniteError, QueryError, RootError
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import layer_batches
from axes.warehouse.runs import record_run
from axes.warehouse.storage.store import locked, store_at
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import remove_rows, remove_uncommitted, rows_table, write_rows
from tests.rows import full, put

# As a folder's name it has an escape, and a glob's and a URL's signs.
ODD = "owner/a [b] é%2F 'c'"
KEYS = {"model_id": "x", "site": "x", "pooling": "x", "template": "x"}


def put_vectors(root: Path, model: str, names: dict[str, float], layer: int = 0) -> None:
    """An activation file: prompt -> first number of its vector."""
    vectors = [
        full("activations", {"prompt_id": name, "layer": layer, "vector": [value, 0.0]})
        for name, value in names.items()
    ]
    table = rows_table("activations", vectors)
    write_rows(root, "activations", table, name="-".join(names), partition=model)


def count(root: Path, table: str) -> int:
    return rows(connect(root), f"select count(*) as number from {table}")[0]["number"]


def test_every_table_of_an_empty_warehouse_can_be_read(any_root):
    warehouse = Warehouse.open(any_root)
    for table in TABLES:
        assert warehouse.column(f"select count(*) from {table}") == [0]
    assert scan("runs", any_root).collect().height == 0
    assert store_at(any_root).init() is False


def test_rows_are_read_back_by_sql_polars_and_arrow_whatever_the_partition_is_called(any_root):
    put_vectors(any_root, ODD, {"a": 1.0, "b": 2.0})
    put_vectors(any_root, "other", {"a": 3.0}, layer=1)
    sql = "select model, prompt_id, layer, vector[1] as x from activations order by x"
    expected = [(ODD, "a", 0, 1.0), (ODD, "b", 0, 2.0), ("other", "a", 1, 3.0)]
    connection = connect(any_root)
    assert [tuple(row.values()) for row in rows(connection, sql)] == expected
    assert rows(connection, "select model, layers from v_stored where prompt_id = 'b'") == [
        {"model": ODD, "layers": [0]}
    ]
    frame = scan("activations", any_root).sort("layer", "prompt_id").collect()
    assert frame.get_column("model").to_list() == [ODD, ODD, "other"]
    ((names, vectors),) = layer_batches(connection, ODD, KEYS, 0)
    assert names.to_pylist() == ["a", "b"]
    np.testing.assert_array_equal(vectors, [[1.0, 0.0], [2.0, 0.0]])
    # A connection sees what this process commits later.
    put_vectors(any_root, "third", {"c": 4.0})
    assert len(rows(connection, sql)) == 4


def test_a_file_written_again_takes_the_place_of_the_first(any_root):
    for value in (1.0, 1.0, 2.0):
        put_vectors(any_root, "m", {"a": value})
        assert [
            row["x"] for row in rows(connect(any_root), "select vector[1] as x from activations")
        ] == [value]


def test_a_vector_with_nan_leaves_nothing(any_root):
    with pytest.raises(NonFiniteError):
        put_vectors(any_root, "m", {"a": float("nan")})
    assert count(any_root, "activations") == 0


def test_a_job_has_one_row_which_says_how_it_ended(any_root):
    assert not Warehouse.open(any_root).has("runs", "a")
    with record_run(any_root, "job", {}) as run:
        assert Warehouse.open(any_root).has("runs", run.run_id)
        assert rows(connect(any_root), "select status from runs") == [{"status": "running"}]
    with pytest.raises(ZeroDivisionError), record_run(any_root, "job", {}):
        _ = 1 / 0
    statuses = rows(connect(any_root), "select status from runs order by started_at")
    assert [row["status"] for row in statuses] == ["finished", "failed"]


def test_rows_are_taken_out_of_files_and_files_out_of_tables(any_root):
    put_vectors(any_root, "m", {"a": 1.0, "b": 2.0})
    put_vectors(any_root, "m", {"c": 3.0})
    put_vectors(any_root, "n", {"c": 3.0})
    remove_rows(
        any_root,
        "activations",
        lambda stored: pc.is_in(stored["prompt_id"], pa.array(["a", "c"])),
        partition="m",
    )
    left = rows(connect(any_root), "select model, prompt_id from activations order by all")
    assert [tuple(row.values()) for row in left] == [("m", "b"), ("n", "c")]


def test_tokens_whose_completion_was_not_written_are_taken_out(any_root):
    put(any_root, "generations", {"model": "m", "generation_id": "kept"})
    for name in ("kept", "lost"):
        put(any_root, "generation_tokens", {"model": "m", "generation_id": name})
    assert len(remove_uncommitted(any_root, "generation_tokens", "generations", "m")) == 1
    left = rows(connect(any_root), "select generation_id from generation_tokens")
    assert left == [{"generation_id": "kept"}]


def test_jobs_take_turns(any_root, monkeypatch):
    events: list[str] = []
    # capsys could lose what a thread prints while it is read.
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    for module in ("ledger", "leases"):
        monkeypatch.setattr(
            f"axes.warehouse.storage.{module}.echo", lambda line, err: said.put(line)
        )

    def second() -> None:
        with locked(any_root, "job-1", notice="another job runs"):
            events.append("second")

    with locked(any_root, "job-1"):
        thread = threading.Thread(target=second)
        thread.start()
        assert "another job runs" in said.get(timeout=60)
        with locked(any_root, "other"):
            events.append("first")
        with pytest.raises(RootError, match="no"), locked(any_root, "job-1", refusal="no"):
            pass
    thread.join()
    assert events == ["first", "second"]


def test_writers_of_one_table_lose_no_file_of_each_other(any_root):
    def write(model: str) -> None:
        for number in range(4):
            put_vectors(any_root, model, {f"{number}": 1.0})

    threads = [threading.Thread(target=write, args=[model]) for model in ("m", "n", "o")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(any_root, "activations") == 12


def test_a_locked_connection_reads_tables_alone_and_a_wrong_statement_is_one_line(any_root):
    connection = connect(any_root)
    for statement in (
        "from read_text('/etc/hostname')",
        "from read_parquet('axes-s3://lakes/x.parquet')",
        "select nothing from runs",
    ):
        with pytest.raises(QueryError) as refusal:
            rows(connection, statement)
        assert "\n" not in str(refusal.value) and "Traceback" not in str(refusal.value)
