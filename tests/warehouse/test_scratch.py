"""A matrix on disk is an array to whoever slices it, and takes no memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from axes.analysis.methods.directions import difference_in_means
from axes.warehouse.connection import connect
from axes.warehouse.layers import SCRATCH, StoredRows, allocate
from axes.warehouse.layout import init_root
from tests.worlds import write_activations, write_model, write_prompt_set


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


def test_chosen_rows_come_in_their_order_and_can_be_chosen_from(
    stored: tuple[StoredRows, np.ndarray],
) -> None:
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

from analysis.fitting import fit_native
from analysis.matrices import find_space
from warehouse.connection import connect
from warehouse.runs import record_run

root = Path(sys.argv[1])
connection = connect(root, memory_limit=told)
space = find_space(connection, "m")
with record_run(root, "fit", {}) as run:
    (axis,) = fit_native(root, connection, run, space, "set")
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
