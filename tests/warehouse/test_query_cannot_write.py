"""S1: no statement in the place of a query changes a stored file, behind each wall alone."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from axes.warehouse import landlock
from axes.warehouse.connection import connect, connect_tables, query, stream
from axes.warehouse.errors import QueryError
from axes.warehouse.safe import Limits, _limit_process, locked
from axes.warehouse.syntax import require_query
from tests.commands import axes
from tests.rows import file_bytes
from tests.warehouse.sound import put_warehouse

# A statement or more for each kind that DuckDB knows; {root} is the warehouse, {file} one of its
# files, {folder} the folder of that.
STATEMENTS = {
    "ALTER": ["alter table prompts add column a int", "alter view prompts rename to b"],
    "ANALYZE": ["analyze"],
    "ATTACH": ["attach '{root}/new.duckdb' as n", "attach '{file}' as n"],
    "CALL": ["call force_checkpoint()", "call enable_logging(storage = 'file')"],
    "COPY": [
        "copy (select 1 a) to '{file}'",
        "copy (select 1 a) to '{file}' (use_tmp_file false)",
        "copy (select 1 a) to 'axes-file://{file}' (use_tmp_file false)",
        "copy (select 1 a) to '{file}' (format csv, use_tmp_file false)",
        "copy (select 1 a) to '{folder}' (format parquet, per_thread_output true, overwrite true)",
        "copy (select 1 a) to '{folder}' (format parquet, partition_by a, overwrite true)",
        "copy (select 1 a, 2 b) to '{root}' (format parquet, partition_by a, overwrite_or_ignore)",
        "copy (select 1 a) to '{folder}/new.parquet'",
        "copy prompts from '{file}'",
    ],
    "COPY_DATABASE": ["copy from database memory to temp"],
    "CREATE": [
        "create table a as select 1",
        "create view b as select 1",
        "create macro c() as table from prompts",
        "create or replace secret (type s3)",
    ],
    "DELETE": ["delete from prompts", "delete from prompts returning *", "truncate prompts"],
    "DETACH": ["detach memory"],
    "DROP": ["drop view prompts", "drop table if exists prompts"],
    "EXECUTE": ["execute p"],
    "EXPLAIN": ["explain analyze copy (select 1 a) to '{file}' (use_tmp_file false)"],
    "EXPORT": ["export database '{folder}'", "export database '{root}' (format parquet)"],
    "INSERT": ["insert into prompts select * from prompts", "insert into prompts default values"],
    "LOAD": ["load '{file}'", "install httpfs"],
    "MERGE_INTO": [
        "merge into prompts using prompts as o using (prompt_id) when matched then delete",
    ],
    "PRAGMA": ["pragma enable_profiling", "pragma profile_output = '{file}'"],
    "PREPARE": ["prepare p as copy (select 1 a) to '{file}' (use_tmp_file false)"],
    "SET": ["set profile_output = '{file}'", "set log_query_path = '{file}'"],
    "TRANSACTION": ["begin", "rollback"],
    "UPDATE": ["update labels set is_positive = false", "update prompts set text = 'a'"],
    "VACUUM": ["vacuum"],
    "VARIABLE_SET": ["set variable a = 1"],
}
# What no text gives: SELECT is what may pass, the rest DuckDB makes of others.
NO_STATEMENTS = {
    *("SELECT", "INVALID", "RELATION", "EXTENSION", "LOGICAL_PLAN", "MULTI", "CREATE_FUNC"),
}
PLACES = [
    "{}",
    "select 1; {}",
    "with d as ({}) from d",
    "with d as ({}) select 1",
    "with d as materialized ({}) from d",
    "with recursive d as ({}) from d",
    "with recursive d(n) as (select 1 union all ({})) from d",
    "with e as (with d as ({}) from d) from e",
    "with d(a) as ({}) select (select count(*) from d)",
    "from ({})",
    "from (with d as ({}) from d)",
    "from prompts, lateral ({})",
    "from prompts, lateral (with d as ({}) from d)",
    "from (values ((with d as ({}) select 1)))",
    "values (({}))",
    "select ({})",
    "select (with d as ({}) select count(*) from d)",
    "select exists ({})",
    "select 1 in (with d as ({}) from d)",
    "select array({})",
    "select list_transform([1], lambda x: (with d as ({}) select 1))",
    "select 1 union all ({})",
    "select 1 union all (with d as ({}) select 1)",
    "select 1 where exists (with d as ({}) from d)",
    "select 1 order by (with d as ({}) select 1)",
    "from prompts limit (with d as ({}) select 1)",
    "select count(*) filter (where exists (with d as ({}) from d)) from prompts",
    "from prompts as p join (with d as ({}) from d) on true",
    "from (pivot (with d as ({}) from d) on a in (1) using count(*))",
    "describe {}",
    "summarize {}",
    "describe (with d as ({}) from d)",
    "explain {}",
    "explain analyze {}",
    "explain analyze with d as ({}) from d",
    "prepare p as {}",
    "prepare q as {}; execute q",
    "prepare p as with d as ({}) from d",
    "create macro m() as table ({})",
    "create view v as with d as ({}) from d",
    "create temp table t as with d as ({}) from d",
    "execute immediate '{quoted}'",
    "from query('{quoted}')",
    "from query('with d as ({quoted}) from d')",
    "call query('with d as ({quoted}) from d')",
    "pragma query('{quoted}')",
    "from json_execute_serialized_sql(json_serialize_sql('with d as ({quoted}) from d'))",
    "pragma json_execute_serialized_sql(json_serialize_sql('with d as ({quoted}) from d'))",
    "copy (with d as ({}) from d) to '{file}'",
    "begin; {}; commit",
]
ALL = [
    place.replace("{quoted}", statement.replace("'", "''")).replace("{}", statement)
    for place in PLACES
    for statements in STATEMENTS.values()
    for statement in statements
]


DESTROYING = [
    "with d as (copy (select 1 a) to '{file}' (use_tmp_file false)) from d",
    "with d as (copy (select 1 a) to '{folder}' (format parquet, per_thread_output true, "
    "overwrite true)) from d",
]
# In the place of an expression these are the name of a column, or a text of a type.
NAMES = {"analyze", "vacuum", "begin", "rollback", "load '{file}'"}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse that no test may change."""
    root = tmp_path_factory.mktemp("sealed") / "lake"
    put_warehouse(root)
    connect(root).close()  # Who opens it first writes the index.
    return root


def filled(text: str, root: Path) -> str:
    file = sorted((root / "prompts").rglob("*.parquet"))[0]
    for name, path in (("root", root), ("file", file), ("folder", file.parent)):
        text = text.replace(f"{{{name}}}", str(path))
    return text


def state(folder: Path) -> set[tuple[str, int, int, int]]:
    """What differs after a file was written, made, moved or deleted."""
    statuses = {path: path.lstat() for path in folder.rglob("*")}
    return {
        (str(path), each.st_size, each.st_mtime_ns, each.st_ino) for path, each in statuses.items()
    }


def test_s1_every_kind_of_statement_is_generated() -> None:
    kinds = set(duckdb.StatementType.__members__)
    assert kinds == {*STATEMENTS, *NO_STATEMENTS}, "a kind of this version of DuckDB is not tried"


def test_s1_the_generated_statements_destroy_an_open_warehouse(sealed: Path, tmp_path: Path):
    """Else the tests below would show nothing."""
    root = tmp_path / "inner" / "lake"
    shutil.copytree(sealed, root)

    def run(sql: str) -> None:
        with duckdb.connect() as connection:
            connection.execute("create view prompts as select 1 as prompt_id, '' as text")
            connection.execute(sql).fetchall()

    for statement in DESTROYING:
        before = state(root)
        run(filled(statement, root))
        assert state(root) != before, statement


def test_s1_the_syntax_tree_alone_lets_none_pass(sealed: Path) -> None:
    passed = set()
    for statement in ALL:
        with contextlib.suppress(QueryError):
            require_query(filled(statement, sealed))
            passed.add(statement)
    names = {place.replace("{}", name) for place in PLACES for name in NAMES}
    assert passed <= names


def test_s1_the_connection_alone_changes_no_file(sealed: Path) -> None:
    """Statements go to DuckDB as they are; each connection that the product makes and locks."""
    before = state(sealed.parent)
    for connection in (
        connect(sealed),
        connect_tables(sealed, "prompts"),
        locked(sealed, Limits()),
    ):
        for statement in ALL:
            with contextlib.suppress(duckdb.Error):
                connection.cursor().execute(filled(statement, sealed)).fetchall()
    assert state(sealed.parent) == before


def test_s1_the_process_alone_changes_no_file(sealed: Path) -> None:
    """An open connection, in a process that gave up its right to write."""
    if not _has_landlock():
        pytest.skip("this kernel has no Landlock: SECURITY.md says what stands there")
    script = (
        "import json, sys, duckdb\n"
        "from axes.warehouse.landlock import forbid_writing\n"
        "assert forbid_writing()\n"
        "connection = duckdb.connect()\n"
        "for sql in json.load(sys.stdin):\n"
        "    try:\n"
        "        connection.execute('create or replace view prompts as select 1 prompt_id')\n"
        "        connection.cursor().execute(sql).fetchall()\n"
        "    except duckdb.Error: pass\n"
    )

    before = file_bytes(sealed.parent)
    statements = json.dumps([filled(statement, sealed) for statement in ALL])
    done = subprocess.run(
        [sys.executable, "-c", script], input=statements, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert file_bytes(sealed.parent) == before


def _has_landlock() -> bool:
    script = "from axes.warehouse.landlock import forbid_writing as f; raise SystemExit(not f())"
    return subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


def test_s1_a_process_of_safe_mode_gives_up_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("axes.warehouse.safe.forbid_writing", lambda: asked.append(1))
    monkeypatch.setattr("axes.warehouse.safe.resource.setrlimit", lambda *_: None)
    _limit_process(Path("lake"), Limits())
    assert asked == [1]


def test_s1_another_system_has_no_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock.sys, "platform", "darwin")
    assert not landlock.forbid_writing()


@pytest.mark.parametrize("statement", DESTROYING)
@pytest.mark.parametrize("way", ["query", "stream", "sql", "safe"])
def test_s1_every_way_in_refuses_a_query_that_writes(sealed: Path, way: str, statement: str):
    sql, before = filled(statement, sealed), file_bytes(sealed)
    if way in ("sql", "safe"):
        arguments = ["--safe"] if way == "safe" else []
        done = axes("sql", "--root", sealed, *arguments, sql)
        assert done.exit_code == 1 and "no part of a query" in done.output
    else:
        with pytest.raises(QueryError, match="no part of a query"):
            if way == "query":
                query(connect(sealed), sql)
            else:
                list(stream(connect(sealed), sql))
    assert file_bytes(sealed) == before
