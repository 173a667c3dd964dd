"""Opening a warehouse, and its tables as polars frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import axes
from axes.warehouse.connection import (
    connect,
    connect_tables,
    connect_unlocked,
    distinct_names,
    query,
    rows,
    stream,
    vectors,
)
from axes.warehouse.errors import AxesError, QueryError, RootError
from axes.warehouse.names import sql_literal
from axes.warehouse.storage.layout import init_root
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import rows_table, vector_array, write_rows
from tests.rows import file_bytes, full, put


def test_the_tables_explain_themselves_in_the_words_of_the_schema(root: Path) -> None:
    connection = connect(root, is_commented=True)
    views = rows(connection, "select view_name as name, comment from duckdb_views()")
    columns = rows(connection, "select table_name, column_name, comment from duckdb_columns()")
    of_view = {row["name"]: row["comment"] for row in views}
    of_column = {(row["table_name"], row["column_name"]): row["comment"] for row in columns}
    for name, table in TABLES.items():
        assert of_view[name] == f"One row per {table.grain}."
        for field in table.schema:
            assert of_column[name, field.name] == field.metadata[b"comment"].decode()


@pytest.mark.parametrize("content", [None, b"PAR1"], ids=["lost", "damaged"])
def test_a_lost_or_damaged_file_is_a_root_error(root: Path, content: bytes | None) -> None:
    path = root / "runs" / "schema.parquet"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RootError, match="cannot be read.*runs"):
        connect(root)


@pytest.mark.parametrize("name", ["a[1]", "a*b", "a?b", "it's", "two words", "${root}", "é{x,y}"])
def test_the_name_of_the_root_may_hold_any_sign_and_matches_no_neighbour(tmp_path, name):
    for folder in (name, "a1", "aab"):
        init_root(tmp_path / folder)
        put(tmp_path / folder, "runs", {"run_id": folder})
    assert rows(connect(tmp_path / name), "select run_id from runs") == [{"run_id": name}]
    assert axes.scan("runs", tmp_path / name).collect()["run_id"].to_list() == [name]


def test_a_root_can_be_given_relative_to_the_working_folder(root, monkeypatch):
    put(root, "runs", {"run_id": "r"})
    monkeypatch.chdir(root.parent)
    connection = connect(Path(root.name))
    monkeypatch.chdir("/")
    assert rows(connection, "select run_id from runs") == [{"run_id": "r"}]


def test_an_open_connection_sees_new_and_replaced_files(root: Path) -> None:
    connection = connect(root)
    assert rows(connection, "from runs") == []
    for run_id in ("first", "second"):
        put(root, "runs", {"run_id": run_id})
        assert len(rows(connection, "from runs where run_id = ?", [run_id])) == 1
    for status in ("running", "finished", "running"):
        table = rows_table("runs", [full("runs", {"run_id": "third", "status": status})])
        write_rows(root, "runs", table, name="third")
        found = rows(connection, "select status from runs where run_id = 'third'")
        assert found == [{"status": status}]


def test_what_a_query_creates_stays_in_its_connection(root: Path) -> None:
    connect(root)  # A root that nobody has opened yet gets its index of keys.
    before = file_bytes(root)
    first, second = connect_unlocked(root), connect_unlocked(root)
    query(first, "create table mine as select 1 as a")
    assert rows(first, "from mine") == [{"a": 1}]
    with pytest.raises(QueryError, match="mine"):
        query(second, "from mine")
    assert file_bytes(root) == before


@pytest.mark.parametrize("is_a_table", [False, True])
@pytest.mark.parametrize("name", ["lake", "gl[o]b", "it's a * lake?"])
def test_what_only_reads_reaches_the_files_of_the_tables_and_no_other(tmp_path, name, is_a_table):
    root = tmp_path / name
    init_root(root)
    put(root, "runs", {"run_id": "r"})
    (tmp_path / "secret.csv").write_text("a\nsecret\n")
    connection = connect_tables(root, "runs") if is_a_table else connect(root)
    before = file_bytes(tmp_path)
    assert rows(connection, "select run_id from runs") == [{"run_id": "r"}]
    outside, inside = (sql_literal(f"{folder}/secret.csv") for folder in (tmp_path, root / "runs"))
    for statement in (
        f"from {outside}",
        f"from read_csv({outside})",
        f"copy (select 1) to {outside}",
        f"copy (select 1) to {inside}",
        f"select 1; copy (select 1) to {inside}",
        f"attach {outside}",
        "set lock_configuration = false",
        "drop view runs",
        "from before",
    ):
        with pytest.raises(QueryError):
            query(connection, statement)
        with pytest.raises(QueryError):
            list(stream(connection, statement))
    assert file_bytes(tmp_path) == before


@pytest.mark.parametrize("name", ["007", "true", "1e5", "2024-01-01", "null", "owner/name"])
def test_the_name_of_a_partition_stays_text(root: Path, name: str) -> None:
    put(root, "projections", {"model": name, "axis_id": "a"}, {"model": "gpt2", "axis_id": "a"})
    connection = connect(root)
    found = rows(connection, "select axis_id from projections where model = ?", [name])
    assert found == [{"axis_id": "a"}]
    names = rows(connection, "select model from projections order by model")
    assert sorted(row["model"] for row in names) == sorted([name, "gpt2"])
    frame = axes.scan("projections", str(root)).filter(pl.col("model") == name).collect()
    assert frame["axis_id"].to_list() == ["a"]


def test_naming_a_partition_opens_only_its_files(root: Path) -> None:
    put(root, "projections", {"model": "good", "axis_id": "a"}, {"model": "bad", "axis_id": "a"})
    connection = connect(root)
    (damaged,) = (root / "projections" / "model=bad").iterdir()
    damaged.write_bytes(b"PAR1 damaged")
    asked = "select axis_id from projections where model = '{}'"
    assert rows(connection, asked.format("good")) == [{"axis_id": "a"}]
    frame = axes.scan("projections", root).filter(pl.col("model") == "good")
    assert frame.select("axis_id").collect().rows() == [("a",)]
    with pytest.raises(QueryError):
        rows(connection, asked.format("bad"))


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("selec 1", "syntax error"),
        ("select nothing from prompts", "nothing"),
        ("from nowhere", "nowhere"),
        ("select error('late')", "late"),
        ("select 'a'::int", "Could not convert"),
        ("select dot([1, 2], [3])", "equal"),
        ("select ?", "parameter"),
    ],
)
def test_a_refused_statement_is_a_query_error_in_duckdbs_words(root, statement, words):
    with pytest.raises(QueryError, match=words):
        query(connect(root), statement)


class _Replaced:
    """A connection whose first statements meet files that a compaction has just replaced."""

    def __init__(self, root: Path, misses: int) -> None:
        self.connection, self.misses = connect(root), misses

    def sql(self, statement: str, params: object = None) -> duckdb.DuckDBPyRelation:
        self.misses -= 1
        if self.misses >= 0:
            raise duckdb.IOException('Cannot open file "x.parquet": No such file or directory')
        return self.connection.sql(statement, params=params)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


@pytest.mark.parametrize(("misses", "is_answered"), [(0, True), (2, True), (3, False)])
def test_a_statement_whose_files_were_replaced_is_run_again(root, misses, is_answered):
    connection: Any = _Replaced(root, misses)
    if is_answered:
        assert rows(connection, "select 1 as one") == [{"one": 1}]
    else:
        with pytest.raises(QueryError, match="No such file"):
            query(connection, "select 1")


def test_parameters_are_values_and_never_sql(root: Path) -> None:
    text = "'; drop view prompts; --"
    assert rows(connect(root), "select ? as a, ? as b", [text, 2]) == [{"a": text, "b": 2}]
    assert rows(connect(root), "select $x as a", {"x": text}) == [{"a": text}]


def test_a_join_that_repeats_a_name_keeps_every_column(root: Path) -> None:
    statement = "select 1 as a, 2 as a, 3 as a_1, 4 as b, 5 as a"
    assert rows(connect(root), statement) == [{"a": 1, "a_1": 2, "a_1_1": 3, "b": 4, "a_2": 5}]


def test_thousands_of_equal_names_are_numbered_in_order() -> None:
    assert distinct_names(["a", "a_1", "a", "a"]) == ["a", "a_1", "a_2", "a_3"]
    names = distinct_names(["a"] * 100_000)
    assert len(set(names)) == 100_000 and names[-1] == "a_99999"


@pytest.mark.parametrize("statement", ["create view mine as select 1 as a", "", "-- nothing"])
def test_a_statement_without_a_result_gives_no_rows(root: Path, statement: str) -> None:
    assert query(connect_unlocked(root), statement).num_rows == 0


def test_a_vector_column_is_a_float32_matrix_in_row_order(root: Path) -> None:
    put(
        root,
        "axes",
        *({"axis_id": str(index), "vector": [index, 0.5, -index]} for index in range(3)),
    )
    connection = connect(root)
    for sql, expected in (
        (
            "select vector from axes order by axis_id desc",
            [[2, 0.5, -2], [1, 0.5, -1], [0, 0.5, 0]],
        ),
        ("select vector::double[] from axes where axis_id = '1'", [[1, 0.5, -1]]),
        ("select vector from activations", []),
    ):
        matrix = vectors(query(connection, sql).column(0))
        assert matrix.dtype == np.float32 and matrix.tolist() == expected
    column = pa.chunked_array([vector_array(np.arange(12.0).reshape(4, 3))] * 2)
    assert vectors(column.slice(3, 2)).tolist() == [[9, 10, 11], [0, 1, 2]]


@pytest.mark.parametrize("widths", [(2, 3), (2, 4), (3, 2, 1), (1, 2, 3), (0, 2), (2, None)])
def test_vectors_of_mixed_widths_are_refused_with_both_widths(widths: tuple) -> None:
    column = [None if width is None else [1.0] * width for width in widths]
    ends = sorted(width or 0 for width in widths)
    with pytest.raises(QueryError, match=f"of {ends[0]} and of {ends[-1]} numbers"):
        vectors(pa.chunked_array([pa.array(column)]))


@pytest.mark.parametrize("table", TABLES)
def test_every_table_can_be_scanned_when_it_is_empty(root: Path, table: str) -> None:
    frame = axes.scan(table, root).collect()
    assert frame.height == 0
    assert frame.columns == TABLES[table].schema.names
    assert frame.schema == pl.DataFrame(TABLES[table].schema.empty_table()).schema


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


def test_views_of_a_user_are_added_and_a_broken_one_is_named(root, tmp_path, monkeypatch):
    """From the folder that the user's settings name; SQL in a warehouse is never run."""
    (root / "sql").mkdir()
    (root / "sql" / "theirs.sql").write_text("create view theirs as select 1 as x;")
    file = tmp_path / "mine.sql"
    file.write_text("create view mine as select count(*) as n from v_prompts;")
    monkeypatch.setenv("AXES_VIEWS", str(tmp_path))
    connection = connect(root)
    assert rows(connection, "from mine") == [{"n": 0}]
    with pytest.raises(QueryError, match="theirs"):
        query(connection, "from theirs")
    file.write_text("create view mine as select nothing from v_prompts;")
    with pytest.raises(QueryError, match=f"{file}: Binder Error: .*nothing"):
        connect(root)
