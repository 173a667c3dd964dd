"""Files appear whole or not at all, under names that are keys, in a form that any reader prunes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from axes.warehouse.connection import connect, rows, vectors
from axes.warehouse.errors import NonFiniteError, RootError
from axes.warehouse.storage.ledger import Entry, Record, read_ledger
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import (
    content_key,
    data_file,
    read_record,
    rows_table,
    vector_array,
    write_rows,
)
from tests.rows import full, put


def layer_group(layer: int, *, prompts: int = 3, width: int = 4, bad: float | None = None):
    """The activations of one layer, a row group as the job writes it."""
    matrix = np.arange(prompts * width, dtype=np.float32).reshape(prompts, width) + 100 * layer
    if bad is not None:
        matrix[-1, -1] = bad
    described = [
        full("activations", {"prompt_id": f"p{index}", "layer": layer}) for index in range(prompts)
    ]
    return rows_table("activations", described, vector=vector_array(matrix))


def write_layers(root: Path, groups, name: str = "key") -> Path:
    return write_rows(root, "activations", groups, name=name, partition="m")


def contents(root: Path) -> dict[Path, bytes]:
    """What any reader sees; and that no temporary file was left."""
    assert not list(root.glob(".tmp/*"))
    return {path: path.read_bytes() for path in root.rglob("*.parquet")}


class Died(BaseException):
    """Not an Exception: as KeyboardInterrupt and SystemExit are not."""


def test_a_reader_never_sees_half_a_file(root: Path) -> None:
    connect(root)  # Makes the index of keys, which is derived.
    before = contents(root)
    seen: list[int] = []

    def groups() -> Iterator[pa.Table]:
        for layer in range(3):
            seen.append(rows(connect(root), "select count(*) as n from activations")[0]["n"])
            yield layer_group(layer)
        raise Died

    with pytest.raises(Died):
        write_layers(root, groups())
    assert seen == [0, 0, 0]
    assert contents(root) == before
    write_layers(root, map(layer_group, range(3)))
    assert rows(connect(root), "select count(*) as n from activations") == [{"n": 9}]


def test_a_failed_rewrite_leaves_the_old_file_as_it_was(root: Path) -> None:
    write_layers(root, layer_group(0))
    before = contents(root)

    def groups() -> Iterator[pa.Table]:
        yield layer_group(1)
        raise Died

    with pytest.raises(Died):
        write_layers(root, groups())
    assert contents(root) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from axes.warehouse.writer import rows_table, write_rows

def groups():
    yield rows_table("runs", [])
    os.kill(os.getpid(), signal.SIGKILL)

write_rows(Path(sys.argv[1]), "runs", groups(), name="killed")
"""


def test_what_a_killed_job_leaves_is_read_by_nobody(root: Path) -> None:
    put(root, "runs", {"run_id": "whole"})
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root)])
    assert killed.returncode == -signal.SIGKILL
    (left,) = (root / ".tmp").iterdir()
    assert left.name.startswith("killed.") and left.suffix == ".tmp"
    assert [row["run_id"] for row in rows(connect(root), "from runs")] == ["whole"]
    assert ds.dataset(root / "runs").to_table().column("run_id").to_pylist() == ["whole"]
    assert pl.read_parquet(root / "runs" / "*.parquet")["run_id"].to_list() == ["whole"]


def test_data_is_on_the_disk_before_the_name_is(root, monkeypatch):
    events: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: events.append(Path(f"/proc/self/fd/{fd}").readlink().name)
    )
    monkeypatch.setattr(
        Path, "replace", lambda self, target: (events.append("rename"), replace(self, target))[1]
    )
    write_layers(root, layer_group(0))
    # The file, the ledger's intent, the new partition, the name; then the index of keys.
    assert events[0].startswith("key.")
    new_ledger, new_partition = [root.name, "activations.jsonl", ".ledger"], ["activations"]
    assert events[1:7] == [*new_ledger, *new_partition, "rename", "model=m"]
    assert "activations.jsonl" not in events[7:]


def test_the_record_of_a_file_is_that_of_its_bytes_and_rows(root: Path) -> None:
    jobs = [["a", "b", "a"], ["b"], []]
    prompts = [[full("labels", {"labeler": "l", "run_id": job}) for job in group] for group in jobs]
    groups = [rows_table("labels", group) for group in prompts]
    path = write_rows(root, "labels", iter(groups), name="key", partition="l")
    written = path.read_bytes()
    expected = Record(4, len(written), hashlib.sha256(written).hexdigest(), {"a": 2, "b": 2})
    assert read_record(path) == expected
    name = path.relative_to(root).as_posix()
    assert read_ledger(root, "labels")[name] == Entry([expected], is_due=True)


def test_a_damaged_file_has_no_record(root: Path) -> None:
    put(root, "runs", {"run_id": "the only run"})
    (path,) = set((root / "runs").glob("*.parquet")) - {root / "runs" / "schema.parquet"}
    content = path.read_bytes()
    place = content.index(b"the only run")  # In the page of the dictionary, which is not packed.
    path.write_bytes(content.replace(b"the only run", b"another run.", 1))
    assert place > 0
    with pytest.raises(OSError, match="CRC"):
        read_record(path)


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "/x", ".hidden", "a\\b", "a\0b"])
def test_an_id_of_a_warehouse_cannot_name_a_file_elsewhere(root: Path, name: str) -> None:
    before = sorted(root.parent.rglob("*"))
    with pytest.raises(RootError, match="cannot be the name of a file of evaluations"):
        write_rows(root, "evaluations", rows_table("evaluations", []), name=name)
    assert sorted(root.parent.rglob("*")) == before


def test_writing_the_same_content_twice_leaves_one_file(root: Path) -> None:
    first = write_layers(root, layer_group(0))
    before = contents(root)
    assert write_layers(root, layer_group(0)) == first
    assert contents(root) == before
    write_layers(root, layer_group(1), name="other")
    assert len(contents(root)) == len(before) + 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_or_infinity_is_refused_and_nothing_appears(root: Path, bad: float, place: int) -> None:
    before = contents(root)
    groups = [layer_group(layer, bad=bad if layer == place else None) for layer in range(3)]
    with pytest.raises(NonFiniteError, match=r"activations\.vector holds NaN or infinity"):
        write_layers(root, groups)
    assert contents(root) == before


def test_a_number_too_large_for_float32_is_refused(root: Path) -> None:
    with np.errstate(over="ignore"):
        column = vector_array(np.array([[1e39, 0.0]]))
    with pytest.raises(NonFiniteError):
        write_layers(root, rows_table("activations", [full("activations", {})], vector=column))


@pytest.mark.parametrize("column", ["weights", "intercept"])
@pytest.mark.parametrize("missing", [float("nan"), None])
def test_every_vector_column_of_a_table_is_looked_at(root: Path, column: str, missing) -> None:
    with pytest.raises(NonFiniteError, match=column):
        put(root, "alignments", {"alignment_id": "a", column: [1.0, missing]})


def test_a_missing_required_value_is_refused_and_nothing_appears(root: Path) -> None:
    before = contents(root)
    row = {**full("activations", {}), "prompt_id": None}
    with pytest.raises(pa.ArrowInvalid, match="prompt_id"):
        write_layers(root, rows_table("activations", [row]))
    assert contents(root) == before


def test_a_disk_that_refuses_is_a_root_error(root: Path) -> None:
    with pytest.raises(RootError, match="cannot write .*File name too long"):
        write_rows(root, "activations", layer_group(0), name="key", partition="m" * 300)
    (root / "runs" / "schema.parquet").unlink()
    (root / "runs").rmdir()
    (root / "runs").write_text("a file in the way")
    with pytest.raises(RootError, match="cannot write"):
        put(root, "runs", {"run_id": "r"})
    with pytest.raises(RootError, match="cannot write .*File name too long"):
        write_rows(root, "activations", layer_group(0), name="k" * 300, partition="m")
    assert not list(root.glob(".tmp/*"))


def test_the_path_is_known_before_the_file_is_written(root: Path) -> None:
    path = data_file(root, "activations", "key", "owner/name")
    assert not path.exists()
    assert path == write_rows(
        root, "activations", layer_group(0), name="key", partition="owner/name"
    )
    assert path.exists()


def test_each_layer_is_a_row_group_and_reading_one_touches_no_other(root: Path) -> None:
    path = write_layers(root, map(layer_group, range(5)))
    metadata = pq.read_metadata(path)
    assert metadata.num_row_groups == 5
    place = metadata.schema.names.index("layer")
    for layer in range(5):
        statistics = metadata.row_group(layer).column(place).statistics
        assert (statistics.min, statistics.max) == (layer, layer)
        (fragment,) = ds.dataset(path).get_fragments(filter=ds.field("layer") == layer)
        touched = fragment.split_by_row_group(ds.field("layer") == layer)
        assert [group.id for part in touched for group in part.row_groups] == [layer]


def test_vectors_are_stored_plain_and_the_rest_is_compressed(root: Path) -> None:
    group = pq.read_metadata(write_layers(root, layer_group(0))).row_group(0)
    chunks = [group.column(index) for index in range(group.num_columns)]
    for chunk in chunks:
        is_vector = chunk.path_in_schema.startswith("vector.")
        assert chunk.compression == ("UNCOMPRESSED" if is_vector else "ZSTD"), chunk.path_in_schema
        assert any("DICT" in encoding for encoding in chunk.encodings) == (not is_vector)
    assert any(chunk.path_in_schema.startswith("vector.") for chunk in chunks)


def test_a_row_group_holds_16_mib_of_vectors_or_122880_rows(root: Path) -> None:
    groups = [layer_group(0, prompts=70, width=1 << 16), layer_group(1, prompts=5)]
    assert row_group_sizes(write_layers(root, groups)) == [63, 7, 5]
    labels = dict.fromkeys(("prompt_set", "generation_id", "label", "labeler", "run_id"), "x")
    prompts = pa.repeat(pa.scalar("p"), 122_881)
    many = rows_table("labels", [], prompt_id=prompts, is_positive=True, score=None, **labels)
    assert row_group_sizes(write_rows(root, "labels", many, name="k", partition="x")) == [
        122_880,
        1,
    ]


def row_group_sizes(path: Path) -> list[int]:
    metadata = pq.read_metadata(path)
    return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


def test_a_look_up_by_prompt_passes_over_row_groups_without_it(root: Path) -> None:
    path = write_layers(root, layer_group(0))
    probe = "select bloom_filter_excludes as is_excluded from parquet_bloom_probe(?, ?, ?)"
    for prompt, is_excluded in {"p0": False, "p2": False, "absent": True}.items():
        found = duckdb.execute(probe, [str(path), "prompt_id", prompt]).fetchall()
        assert found == [(is_excluded,)]


@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_a_matrix_comes_back_from_a_vector_column_as_it_was(matrix: np.ndarray) -> None:
    column = vector_array(matrix)
    column.validate(full=True)
    assert column.to_pylist() == matrix.tolist()
    if len(matrix):
        back = vectors(pa.chunked_array([column]))
        assert back.dtype == np.float32
        assert back.tobytes() == matrix.tobytes()


def test_a_matrix_in_another_order_or_precision_is_stored_by_value() -> None:
    matrix = np.arange(6.0).reshape(2, 3)
    for other in (np.asfortranarray(matrix), matrix.astype(np.float16), matrix[::-1][::-1]):
        assert vector_array(other).to_pylist() == matrix.tolist()


def test_a_content_key_depends_on_the_parts_and_not_on_the_order_of_keys() -> None:
    assert content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
    parts = [("a", 1), (1, "a"), ("a", 2), ("a", "1"), ("a1",), (["a", 1],), ("a", 1, None), ()]
    keys = [content_key(*part) for part in parts]
    assert len(set(keys)) == len(parts)
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)


def test_a_content_key_is_the_same_in_every_process() -> None:
    # The names of files that are there already: another value here would orphan every one.
    assert content_key("é", 1, None, {"b": 0.5, "a": [True]}) == "1bb027c0a4a6ce55"


def test_rows_become_a_table_of_the_schema_with_nulls_where_nothing_is_given() -> None:
    row = {"prompt_id": "p", "is_positive": True}
    table = rows_table("labels", [row], label=["unsafe"], run_id="r")
    assert table.schema.equals(TABLES["labels"].file_schema)
    assert table.to_pylist() == [
        {
            "prompt_set": None,
            "prompt_id": "p",
            "generation_id": None,
            "label": "unsafe",
            "is_positive": True,
            "score": None,
            "run_id": "r",
        }
    ]
