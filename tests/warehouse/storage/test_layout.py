"""A root is what `init_root` makes of an empty folder, and nothing else is taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import RootError
from axes.warehouse.storage import layout
from axes.warehouse.storage.files import LOCKS
from axes.warehouse.storage.layout import MARKER, init_root, partition_folder, require_root
from axes.warehouse.tables.schemas import SCHEMA_VERSION, TABLES
from tests.rows import file_bytes, put


@pytest.mark.parametrize("folder", ["", "deep/lake"])
def test_a_new_root_holds_the_marker_and_one_empty_typed_file_per_table(tmp_path, folder):
    root = tmp_path / folder
    assert init_root(root) is True
    require_root(root)
    assert json.loads((root / MARKER).read_text()) == {"schema_version": SCHEMA_VERSION}
    assert len([name for name in file_bytes(root) if LOCKS not in str(name)]) == 1 + len(TABLES)
    for table in TABLES.values():
        (path,) = (root / table.name).rglob("*.parquet")
        assert pq.read_schema(path).equals(table.file_schema, check_metadata=False)
        assert pq.read_metadata(path).num_rows == 0


def test_starting_a_root_twice_changes_nothing(root: Path) -> None:
    put(root, "runs", {"run_id": "kept"})
    before = file_bytes(root)
    assert init_root(root) is False
    assert file_bytes(root) == before


@pytest.mark.parametrize("written", [0, 1, 5, len(TABLES)])
def test_an_interrupted_start_is_no_root_and_can_be_resumed(tmp_path, monkeypatch, written):
    root = tmp_path / "lake"
    write_table, calls = pq.write_table, []

    def dies_after(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) > written:
            raise KeyboardInterrupt
        write_table(*arguments)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(layout.pq, "write_table", dies_after)
        patch.setattr(Path, "replace", dies)
        init_root(root)
    with pytest.raises(RootError, match="not a warehouse"):
        require_root(root)
    assert init_root(root) is True
    assert file_bytes(root).keys() == files_of_a_new_root(tmp_path)
    assert rows(connect(root), "from runs") == []


def files_of_a_new_root(tmp_path: Path) -> set[str]:
    init_root(tmp_path / "new")
    return set(file_bytes(tmp_path / "new"))


def test_a_file_is_not_a_root_and_holds_none(tmp_path: Path) -> None:
    path = tmp_path / "lake"
    path.write_text("mine")
    with pytest.raises(RootError, match=r"lake is not a warehouse.*give --root another folder"):
        init_root(path)
    with pytest.raises(RootError, match="axes warehouse init"):
        require_root(path)
    with pytest.raises(RootError, match="cannot make a warehouse in"):
        init_root(path / "lake")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["thesis.tex", ".hidden"])
def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RootError, match=r"not a warehouse and not empty.*another folder"):
        init_root(tmp_path)
    assert file_bytes(tmp_path) == {name: b"mine"}


def test_an_absent_folder_is_not_a_root_and_the_message_says_how_to_make_one(tmp_path):
    with pytest.raises(RootError, match=r"no warehouse.json.*--root or AXES_ROOT.*warehouse init"):
        require_root(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("act", [init_root, require_root, connect])
def test_another_schema_version_is_refused_with_both_versions_named(root: Path, act) -> None:
    (root / MARKER).write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(
        RootError, match=rf"version {SCHEMA_VERSION + 1}, this code reads version {SCHEMA_VERSION}"
    ):
        act(root)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"{}", b"null", b"\xff\xfe", None])
def test_a_marker_that_cannot_be_read_is_a_root_error(root: Path, content: bytes | None) -> None:
    marker = root / MARKER
    marker.unlink()
    marker.mkdir() if content is None else marker.write_bytes(content)
    with pytest.raises(RootError, match=r"warehouse\.json cannot be read"):
        require_root(root)


@pytest.mark.parametrize("folder", ["seed=1", "model=gpt2", "Position=9"])
def test_a_root_below_a_folder_that_reads_as_a_column_is_refused(tmp_path, folder):
    root = tmp_path / folder / "lake"
    with pytest.raises(RootError, match=rf"folder {folder}, which would be read as the column"):
        init_root(root)
    assert not root.exists()
    init_root(tmp_path / "lake")
    (tmp_path / folder).mkdir()
    (tmp_path / "lake").rename(root)
    with pytest.raises(RootError, match="give --root another folder"):
        connect(root)


def test_other_equals_signs_above_a_root_do_no_harm(tmp_path: Path) -> None:
    root = tmp_path / "trial=3" / "a=b"
    init_root(root)
    put(root, "prompts", {"prompt_set": "demo", "prompt_id": "p"})
    assert rows(connect(root), "select prompt_set from prompts") == [{"prompt_set": "demo"}]


def test_a_partition_needs_a_value_and_an_unpartitioned_table_none(tmp_path: Path) -> None:
    for value in (None, ""):
        with pytest.raises(ValueError, match="activations is partitioned by model"):
            partition_folder(tmp_path, TABLES["activations"], value)
    assert partition_folder(tmp_path, TABLES["runs"], None) == tmp_path / "runs"


names = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from("/%= .\\*?[]{}+'\"~é漢😀"),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(name=names)
@example(name="owner/name")
@example(name="a%2Fb")
@example(name="007")
@example(name="null")
@example(name="..")
@example(name="2024-01-01")
def test_every_name_comes_back_from_the_path_in_duckdb_pyarrow_and_polars(tmp_path_factory, name):
    root = tmp_path_factory.mktemp("names")
    put(root, "prompts", {"prompt_set": name, "prompt_id": "p"})
    folder = root / "prompts"
    assert len(list(folder.iterdir())) == 1
    by_duckdb = duckdb.sql(
        f"select prompt_set, prompt_id from read_parquet('{folder}/*/*.parquet', "
        "hive_partitioning = true, hive_types = { 'prompt_set': varchar })"
    ).fetchall()
    hive = ds.partitioning(pa.schema([("prompt_set", pa.string())]), flavor="hive")
    by_pyarrow = ds.dataset(folder, partitioning=hive).to_table().to_pylist()
    by_polars = pl.read_parquet(
        folder / "*" / "*.parquet", hive_partitioning=True, hive_schema={"prompt_set": pl.String}
    )
    assert by_duckdb == [(name, "p")]
    assert [(row["prompt_set"], row["prompt_id"]) for row in by_pyarrow] == [(name, "p")]
    assert by_polars.select("prompt_set", "prompt_id").rows() == [(name, "p")]
