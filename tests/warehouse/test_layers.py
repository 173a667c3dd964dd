"""The vectors of a layer in batches, and matrices larger than memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import axes.warehouse.layers
from axes.analysis.methods.directions import difference_in_means
from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.errors import QueryError
from axes.warehouse.layers import SCRATCH, StoredRows, allocate, layer_batches
from axes.warehouse.storage.layout import init_root
from tests.rows import put
from tests.worlds import write_activations, write_model, write_prompt_set

KEYS = {"model_id": "id", "site": "resid_post", "pooling": "last", "template": "raw"}


def activation(prompt: str, layer: int, value: float, **changed: str) -> dict[str, object]:
    row = {"model": "owner/m", "prompt_id": prompt, "layer": layer, **KEYS, **changed}
    return {**row, "vector": [value, -value]}


def read(connection: Connection, layer: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for ids, block in layer_batches(connection, "owner/m", KEYS, layer):
        assert block.dtype == np.float32
        found |= dict(zip(ids.to_pylist(), block.tolist(), strict=True))
    return found


def asked(connection: Connection, layer: int) -> dict[str, list[float]]:
    conditions = " and ".join(f"{name} = '{value}'" for name, value in KEYS.items())
    found = rows(
        connection,
        f"select prompt_id, vector from activations where model = 'owner/m' and layer = {layer} "
        f"and {conditions}",
    )
    return {row["prompt_id"]: row["vector"] for row in found}


@pytest.fixture
def mixed(root: Path) -> Path:
    """Row groups that hold several layers and keys, as another tool may write them."""
    others = [{"model_id": "x"}, {"site": "mlp_out"}, {"pooling": "mean"}, {"template": "chat"}]
    put(
        root,
        "activations",
        *(activation(f"p{number}", number % 3, number) for number in range(30)),
        *(activation("p0", 1, 99.0, **changed) for changed in others),
        {**activation("p0", 1, 99.0), "model": "other"},
    )
    return root


@pytest.mark.parametrize("memory_limit", [None, 512_000_000])
@pytest.mark.parametrize("layer", [0, 1, 2, 7])
def test_the_rows_are_those_of_sql(mixed: Path, layer: int, memory_limit: int | None) -> None:
    connection = connect(mixed, memory_limit=memory_limit)
    found = read(connection, layer)
    assert found == asked(connection, layer)
    assert len(found) == (0 if layer == 7 else 10)


def test_files_that_came_after_the_connection_are_read(mixed: Path) -> None:
    connection = connect(mixed)
    assert len(read(connection, 1)) == 10, "which files have the layer is known from here on"
    put(mixed, "activations", activation("late", 1, 5.0))
    assert read(connection, 1)["late"] == [5.0, -5.0]


def test_files_without_the_layer_are_not_opened(mixed: Path) -> None:
    put(mixed, "activations", activation("p1", 9, 1.0))
    connection = connect(mixed)
    (path,) = [
        path
        for path in (mixed / "activations" / "model=owner%2Fm").glob("*.parquet")
        if path.stat().st_size
        == min(other.stat().st_size for other in path.parent.glob("*.parquet"))
    ]
    path.write_bytes(b"x" * path.stat().st_size)
    assert len(read(connection, 1)) == 10


def test_a_broken_file_is_one_line(mixed: Path) -> None:
    connection = connect(mixed)
    for path in (mixed / "activations" / "model=owner%2Fm").glob("*.parquet"):
        path.write_bytes(b"no parquet" * 100)
    with pytest.raises(QueryError, match="run `axes warehouse check`") as caught:
        read(connection, 1)
    assert "\n" not in str(caught.value)


def test_a_file_that_went_between_listing_and_reading_is_said_as_such(mixed, monkeypatch):
    """As after a compaction: whoever reads can list again."""
    listed = axes.warehouse.layers._files

    def then_gone(*arguments: Any) -> list[Path]:
        paths = listed(*arguments)
        for path in paths:
            path.unlink()
        return paths

    monkeypatch.setattr(axes.warehouse.layers, "_files", then_gone)
    with pytest.raises(FileNotFoundError):
        read(connect(mixed), 1)


@pytest.fixture
def stored(root: Path) -> tuple[StoredRows, np.ndarray]:
    """A matrix on disk, written in pieces and out of order, and the same in memory."""
    whole = np.random.default_rng(0).standard_normal((100_000, 7)).astype(np.float32)
    rows = allocate(connect(root, memory_limit=64 << 20), *whole.shape)
    assert isinstance(rows, StoredRows)
    places = np.random.default_rng(1).permutation(len(whole))
    for part in np.split(places, [10, 11, 40_000]):
        rows[part] = whole[part]
    return rows, whole


def test_slices_are_those_of_an_array(stored: tuple[StoredRows, np.ndarray]) -> None:
    rows, whole = stored
    assert rows.shape == whole.shape and len(rows) == len(whole)
    for part in (slice(0, 3), slice(99_998, 200_000), slice(5, 5), slice(None)):
        np.testing.assert_array_equal(rows[part], whole[part])


def test_chosen_rows_come_in_their_order_and_can_be_chosen_from(stored):
    rows, whole = stored
    index = np.array([7, 99_999, 0, 7, 50])
    np.testing.assert_array_equal(rows.take(index)[:], whole[index])
    np.testing.assert_array_equal(rows.take(index).take(np.array([3, 1]))[0:2], whole[[7, 99_999]])


def test_a_small_matrix_is_an_array_and_a_large_one_leaves_no_file(root: Path) -> None:
    connection = connect(root, memory_limit=64 << 20)
    assert isinstance(allocate(connection, 10, 4), np.ndarray)
    kept = allocate(connection, 1_000_000, 1)
    assert isinstance(kept, StoredRows)
    assert list((root / SCRATCH).iterdir()) == []


def test_rows_that_were_never_written_are_not_read_as_zeros(root: Path) -> None:
    rows = allocate(connect(root, memory_limit=64 << 20), 1_000_000, 1)
    with pytest.raises(EOFError):
        rows[0:1]


# What the fit is told it may take, and what the kernel lets the process have: the second counts
# stacks and other room that is set aside and never touched.
LIMIT, HARD_LIMIT = 512_000_000, 768_000_000

FIT = """
import json, resource, sys
from pathlib import Path

limit, told = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

from axes.analysis.activations import find_space
from axes.analysis.study.fit import fit_native
from axes.warehouse.handle import Warehouse

root = Path(sys.argv[1])
warehouse = Warehouse.open(root, memory_limit=told)
space = find_space(warehouse, "m")
with warehouse.run("fit", {}) as run:
    (axis,) = fit_native(warehouse, run, space, "set")
status = dict(line.split(":") for line in open("/proc/self/status") if "Vm" in line)
peak = int(status["VmHWM"].split()[0]) * 1024
print(json.dumps({"peak": peak, "axis": axis.vector.tolist()}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere RLIMIT_DATA does not count mappings")
def test_a_fit_goes_through_a_matrix_that_the_process_cannot_hold(tmp_path: Path) -> None:
    """The kernel refuses memory beyond the limit; told of no limit, as a control, the fit dies."""
    root, count, width = tmp_path / "lake", 75_000, 2048
    init_root(root)
    write_model(root, "m", width, 1)
    labels = np.arange(count) % 2 == 0
    write_prompt_set(root, "set", count, labels)
    block = np.random.default_rng(0).standard_normal((4096, width), dtype=np.float32)
    matrix = np.resize(block, (count, width))
    matrix[labels, 5] += 1.0
    assert matrix.nbytes > LIMIT
    write_activations(root, "m", 0, "set", matrix)

    def fit(told: int) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", FIT, str(root), str(HARD_LIMIT), str(told)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, env=environment)

    assert fit(64_000_000_000).returncode != 0
    limited = fit(LIMIT)
    assert limited.returncode == 0, limited.stderr.decode()[-500:]
    found = json.loads(limited.stdout)
    assert found["peak"] < LIMIT
    expected = difference_in_means(matrix, labels).vector
    np.testing.assert_allclose(found["axis"], expected, atol=1e-9)
