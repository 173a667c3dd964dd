"""A polars scan sees the rows and types of the schema, whatever the partition is called."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import axes
from axes.warehouse.errors import AxesError
from axes.warehouse.layout import init_root
from axes.warehouse.tables.schemas import TABLES
from tests.rows import put


@pytest.mark.parametrize("table", TABLES)
def test_every_table_can_be_scanned_when_it_is_empty(root: Path, table: str) -> None:
    frame = axes.scan(table, root).collect()
    assert frame.height == 0
    assert frame.columns == TABLES[table].schema.names
    assert frame.schema == pl.DataFrame(TABLES[table].schema.empty_table()).schema


@pytest.mark.parametrize("name", ["007", "1e5", "2024-01-01", "owner/name"])
def test_a_partition_stays_text(root: Path, name: str) -> None:
    put(root, "activations", {"model": name, "vector": [1.0, 2.0]}, {"model": "gpt2"})
    frame = axes.scan("activations", str(root)).filter(pl.col("model") == name).collect()
    assert frame["vector"].to_list() == [[1.0, 2.0]]


def test_a_filter_on_the_partition_opens_only_its_files(root: Path) -> None:
    put(root, "projections", {"model": "good", "axis_id": "a"}, {"model": "bad", "axis_id": "a"})
    (damaged,) = (root / "projections" / "model=bad").iterdir()
    damaged.write_bytes(b"PAR1 damaged")
    frame = axes.scan("projections", root).filter(pl.col("model") == "good")
    assert frame.select("axis_id").collect().rows() == [("a",)]


@pytest.mark.parametrize("name", ["a[1]", "a*b", "a?b", "it's", "two words", "é{x,y}"])
def test_the_name_of_the_root_may_hold_any_sign(tmp_path: Path, name: str) -> None:
    for folder in (name, "a1", "aab"):
        init_root(tmp_path / folder)
        put(tmp_path / folder, "runs", {"run_id": folder})
    assert axes.scan("runs", tmp_path / name).collect()["run_id"].to_list() == [name]


def test_the_root_defaults_to_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "runs", {"run_id": "r"})
    monkeypatch.setenv("AXES_ROOT", str(root))
    assert axes.scan("runs").collect()["run_id"].to_list() == ["r"]
    assert axes.connect().sql("select run_id from runs").pl()["run_id"].to_list() == ["r"]


def test_a_connection_gives_arrow_polars_and_pandas(root: Path) -> None:
    put(root, "activations", {"model": "m", "vector": [1.0, 2.0]})
    relation = axes.connect(root).sql("select model, vector from activations")
    assert relation.to_arrow_table().to_pylist() == [{"model": "m", "vector": [1.0, 2.0]}]
    assert relation.pl().schema["vector"] == pl.List(pl.Float32)
    assert relation.df()["vector"][0].tolist() == [1.0, 2.0]


def test_an_unknown_table_or_root_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(AxesError, match="no table nonsense: the tables are prompts,"):
        axes.scan("nonsense", root)
    for call in (lambda folder: axes.scan("runs", folder), axes.connect):
        with pytest.raises(AxesError, match="is not a warehouse"):
            call(tmp_path)
