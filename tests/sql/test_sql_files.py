"""Every file of sql/ defines the one object it is named after, and says what it is."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from axes.warehouse.connection import Connection, connect, query, rows
from axes.warehouse.tables.catalog import SQL_FOLDER, check_rules, sql_files
from axes.warehouse.tables.comments import read_header
from axes.warehouse.tables.schemas import TABLES
from tests.rows import put

FILES = sorted(SQL_FOLDER.rglob("*.sql"))
KINDS = {"marts": "view", "macros": "macro"}
STAGING = {f"stg_{name}" for name in TABLES}


def kind_of(path: Path) -> str:
    """The folder of `sql/` that the file lies in, below it or in one of its topics."""
    return path.relative_to(SQL_FOLDER).parts[0]


every_file = pytest.mark.parametrize(
    "path", FILES, ids=[f"{kind_of(path)}/{path.stem}" for path in FILES]
)
every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


def code(path: Path) -> str:
    """The file without its comments."""
    return re.sub(r"--.*", "", path.read_text()).strip()


def header(path: Path) -> str:
    """What the comment that the file opens with says of the object, as one line."""
    return " ".join(read_header(path.read_text()).text.split())


def test_the_folder_holds_the_three_kinds_and_nothing_else() -> None:
    assert {kind_of(path) for path in FILES} == {*KINDS, "checks"}


def test_names_are_unique_over_all_kinds() -> None:
    names = {path.stem for path in FILES} | set(TABLES) | STAGING
    assert len(names) == len(FILES) + 2 * len(TABLES)


def test_checks_are_the_files_and_those_that_follow_from_the_tables() -> None:
    files = sql_files("checks")
    generated = {"runs_known"}.union(*(table.checks() for table in TABLES.values()))
    assert generated >= {f"{name}_unique_key" for name in TABLES}
    assert not generated & files.keys()
    assert check_rules().keys() == generated | files.keys()
    assert check_rules().items() >= files.items()


@every_file
def test_a_file_defines_the_object_it_is_named_after_and_opens_with_a_sentence(path: Path) -> None:
    assert len(duckdb.extract_statements(path.read_text())) == 1
    created = re.findall(r"\bcreate\s+(?:or\s+replace\s+)?(\w+)\s+(\w+)", code(path))
    kind = KINDS.get(kind_of(path))
    assert created == ([(kind, path.stem)] if kind else [])
    starts = (f"create {kind} {path.stem}",) if kind else ("select", "with\n")
    assert code(path).startswith(starts)
    text = header(path)
    assert text[0].isupper() and text.endswith(".")
    assert kind != "view" or text.startswith("One row per ")
    for line in path.read_text().splitlines():
        assert len(line) <= 88
        assert not re.search(r"\b(SELECT|FROM|WHERE|JOIN|GROUP BY|CREATE|AS)\b", line)


@every_file
def test_of_equal_values_one_is_chosen_by_more_than_the_order_of_the_rows(path: Path) -> None:
    chosen = re.findall(r"\barg_(?:min|max)\w*\((.*)\)", code(path))
    assert [text for text in chosen if not re.search(r"order by|\(.*,|, step$", text)] == []


def test_every_view_macro_and_column_is_commented(empty: Connection) -> None:
    uncommented = rows(
        empty,
        """
        select table_name || '.' || column_name as name, comment
        from duckdb_columns() where not internal
        union all
        select view_name, comment from duckdb_views() where not internal
        union all
        select function_name, comment from duckdb_functions()
        where not internal and function_type like '%macro%'
        """,
    )
    assert len(uncommented) > 500
    assert [row["name"] for row in uncommented if not row["comment"]] == []


def test_a_connection_holds_the_objects_of_the_files_and_no_other(empty: Connection) -> None:
    views = rows(empty, "select view_name as name from duckdb_views() where not internal")
    macros = rows(
        empty,
        "select distinct function_name as name from duckdb_functions() "
        "where not internal and function_type like '%macro%'",
    )
    tables = rows(empty, "select table_name as name from duckdb_tables() where not internal")
    names = {kind: {path.stem for path in FILES if kind_of(path) == kind} for kind in KINDS}
    assert {row["name"] for row in views} == STAGING | names["marts"] | set(TABLES)
    assert {row["name"] for row in macros} == names["macros"]
    assert tables == []


@every_table
def test_a_staging_view_has_the_columns_of_the_schema_in_order_and_type(empty, table):
    schema = table.schema.empty_table()
    wanted = duckdb.from_arrow(schema)
    for name in (f"stg_{table.name}", table.name):
        found = empty.table(name)
        assert found.columns == table.schema.names
        assert list(zip(found.columns, found.types, strict=True)) == list(
            zip(wanted.columns, wanted.types, strict=True)
        )


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if table.partition])
def test_a_partition_is_text_even_where_every_value_looks_like_a_number(root, name):
    partition = TABLES[name].partition
    put(root, name, {partition: "42"})
    for path in (root / name).rglob("schema.parquet"):
        path.unlink()
    assert rows(connect(root), f"select {partition} from stg_{name}") == [{partition: "42"}]


@pytest.mark.parametrize("name", sorted({*STAGING, *sql_files("marts")}))
def test_a_view_of_an_empty_warehouse_has_no_rows_and_typed_columns_of_different_names(empty, name):
    assert query(empty, f"from {name}").num_rows == 0
    types = {row["column_name"]: row["column_type"] for row in rows(empty, f"describe {name}")}
    assert len({column.lower() for column in types}) == len(types) > 0
    assert not any(column.endswith("_1") for column in types)
    assert '"NULL"' not in types.values()
    if name not in STAGING:
        assert read_header(sql_files("marts")[name]).columns.keys() <= types.keys()
