"""Whatever is asked in safe mode, the answer is rows of the warehouse or one line of refusal."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from axes.warehouse.connection import Connection, connect, query
from axes.warehouse.errors import QueryError
from axes.warehouse.safe import _HARMLESS, Limits, _answer, ask, locked, require_safe
from axes.warehouse.tables.catalog import sql_files
from axes.warehouse.tables.schemas import TABLES
from tests.commands import axes, ok
from tests.rows import file_bytes
from tests.warehouse.sound import put_warehouse

SECRET = "a line that no query may show"
LIMITS = Limits(seconds=0.5, memory_mb=256, threads=1, result_mb=8)

# {root} is the warehouse, {outside} a folder beside it that holds secret.txt, .csv and .parquet.
READING_FILES = [
    *(
        f"from {function}('{{outside}}/secret.{suffix}')"
        for suffix, functions in (
            ("txt", "read_text read_blob read_json read_ndjson_objects"),
            ("csv", "read_csv read_csv_auto sniff_csv"),
            ("parquet", "read_parquet parquet_scan parquet_metadata parquet_schema read_duckdb"),
            ("parquet", "parquet_kv_metadata parquet_file_metadata"),
        )
        for function in functions.split()
    ),
    "from '{outside}/secret.parquet'",
    "from '{outside}/secret.csv'",
    'from "{outside}/secret.csv"',
    'with "{outside}/secret.csv" as (select 1) from "{outside}/secret.csv"',
    "from glob('{outside}/*')",
    "from glob('/etc/*')",
    "from read_text('/proc/self/environ')",
    "from read_text('{root}/warehouse.json')",
    "from read_parquet('{root}/activations/*/*.parquet')",
    "from read_text('{root}/.ledger/*')",
    "from read_parquet('{root}/activations/../../outside/secret.parquet')",
    "from read_text('{root}/../outside/secret.txt')",
    "from read_csv('http://localhost:9/secret.csv')",
    "from 's3://bucket/secret.parquet'",
    "from read_parquet('hf://datasets/owner/name/secret.parquet')",
]
HIDDEN = [
    "select (select content from read_text('{outside}/secret.txt'))",
    "select text from prompts where exists (from read_text('{outside}/secret.txt'))",
    "select list_transform([1], lambda x: (select content from read_text('{outside}/secret.txt')))",
    "from prompts limit (select count(*) from glob('{outside}/*'))",
    "select 1 order by (select content from read_text('{outside}/secret.txt'))",
    "select 1 from prompts qualify (select true from read_text('{outside}/secret.txt'))",
    "with a as materialized (from read_text('{outside}/secret.txt')) from a",
    "from prompts, lateral (from read_text('{outside}/secret.txt'))",
    "select 1 union all select content from read_text('{outside}/secret.txt')",
    "describe from read_csv('{outside}/secret.csv')",
    "summarize from read_csv('{outside}/secret.csv')",
    "from query('from read_text(''{outside}/secret.txt'')')",
    "from query_table('{outside}/secret.csv')",
    "from query_table(['prompts', '{outside}/secret.csv'])",
    "from json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "select json_serialize_plan('from read_csv(''{outside}/secret.csv'')')",
    "select 1 /* */ from /* prompts */ read_text('{outside}/secret.txt') -- from prompts",
    "select 1;\n--\nfrom read_text('{outside}/secret.txt')",
    "FrOm ReAd_TeXt('{outside}/secret.txt')",
    "from \"read_text\"('{outside}/secret.txt')",
    "from main.read_text('{outside}/secret.txt')",
    "from (pivot read_csv('{outside}/secret.csv') on a in ('x') using count(*))",
]
STATEMENTS = [
    "attach '{outside}/new.duckdb'",
    "attach '{outside}/secret.parquet' as other (read_only)",
    "install httpfs",
    "load httpfs",
    "load '{outside}/secret.txt'",
    "pragma database_list",
    "pragma enable_logging",
    "set memory_limit = '100GB'",
    "set global enable_external_access = true",
    "reset lock_configuration",
    "set variable a = 1",
    "copy prompts to '{outside}/stolen.csv'",
    "copy (select 1) to '{root}/prompts/new.parquet'",
    "copy prompts from '{outside}/secret.csv'",
    "export database '{outside}/stolen'",
    "import database '{outside}'",
    "create table mine as from prompts",
    "create view prompts as select 1",
    "create or replace macro dot(a, b) as 0",
    "create macro steal() as table from read_text('{outside}/secret.txt')",
    "create secret (type s3)",
    "create type t as enum (select 'a')",
    "create function f() as 1",
    "insert into prompts values (1)",
    "delete from prompts",
    "update labels set is_positive = false",
    "drop view prompts",
    "alter view prompts rename to other",
    "comment on view prompts is 'mine'",
    "checkpoint",
    "vacuum",
    "call duckdb_settings()",
    "call pragma_version()",
    "prepare p as select 1",
    "execute p",
    "begin",
    "use memory.main",
    "explain analyze from read_text('{outside}/secret.txt')",
    "show databases",
    "show all tables",
    "select 1; select 2",
    "select 1; drop view prompts",
    "select ?",
    "select $path",
    "",
    ";",
    "-- nothing",
]
LOOKING_AROUND = [
    "select getenv('HOME')",
    "select getvariable('a')",
    "select current_setting('temp_directory')",
    "from duckdb_settings()",
    "from duckdb_secrets()",
    "from duckdb_views()",
    "from duckdb_functions()",
    "from pragma_version()",
    "from which_secret('s3://bucket', 's3')",
    "from information_schema.tables",
    "from pg_catalog.pg_views",
    "from duckdb_logs",
    "from sqlite_master",
    "from system.main.duckdb_views",
    "select pg_get_viewdef(1)",
    "select current_query()",
    "select write_log('mine')",
    "select nextval('s')",
    # A name defined in one scope means the internal view in every other.
    "select * from duckdb_views where exists (with duckdb_views as (select 1) from duckdb_views)",
    "from sqlite_master, (with SQLite_Master as (select 1 as a) select a from sqlite_master)",
    "from nowhere",
    "from some_python_variable",
]
GREEDY = [
    "select count(*) from range(1000000000) a, range(1000000000) b",
    "select sum(a.range * b.range % 7) from range(100000000) a, range(1000) b",
    "with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t",
    "with recursive t(n) as (select 1 union all select unnest([n, n]) from t) from t",
    "from range(100000000)",
    "select repeat('x', 4000000000)",
    "select list(a.range) from range(10000000) a, range(1000) b",
    "select string_agg(repeat('x', 1000000), '') from range(10000)",
    "select range(4000000000)",
    "select levenshtein(repeat('a', 200000), repeat('b', 200000))",
    "select count(distinct a.range * 1000000 + b.range) from range(1000000) a, range(100) b",
    "select a.* from range(5000000) a, range(10) b order by hash(a.range)",
    "select sleep_ms(100000)",
    f"select {'(' * 40_000}1{')' * 40_000}",
    f"select {'1 + ' * 20_000}1",
    f"select {'[' * 20_000}1{']' * 20_000}",
    f"select {'not ' * 20_000}true",
    "select 1 " + "union all select 1 " * 5_000,
    f"select '{'x' * 200_000}'",
]
HOSTILE = [*READING_FILES, *HIDDEN, *STATEMENTS, *LOOKING_AROUND, *GREEDY]

ORDINARY = [
    "select model, layer, count(*) as n from activations group by all order by all",
    "from prompts order by all limit 3",
    "select auroc(projection, is_positive) from v_projections",
    "with recursive t(n) as (select 1 union all select n + 1 from t where n < 5) from t",
    "select cosine(vector, vector) from axes",
    "select unnest(range(3)), random() < 2, now() > '2020-01-01'",
    "from (values (1, 'a'), (2, 'b')) as t(number, name)",
    "from prompts semi join labels using (prompt_id) -- a comment; with a semicolon",
    "describe activations",
    "summarize labels",
    "show tables",
    "from (pivot prompts on prompt_set in ('seen', 'other') using count(*))",
    "select list_transform([1, 2], lambda x: x + 1)",
    "from memory.main.prompts limit 1",
    "select * from json_each('{\"a\": 1}')",
]


@pytest.fixture(scope="module")
def root(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("safe")
    shutil.copytree(sound, base / "lake")
    # The index of keys is written by whoever opens a root first.
    connect(base / "lake").close()
    outside = base / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text(SECRET)
    (outside / "secret.csv").write_text(f"a\n{SECRET}\n")
    duckdb.connect().execute(f"copy (select '{SECRET}' as a) to '{outside}/secret.parquet'")
    return base / "lake"


@pytest.fixture(scope="module")
def plain(root: Path) -> Connection:
    return connect(root)


def filled(statement: str, root: Path) -> str:
    outside = root.parent / "outside"
    return statement.replace("{root}", str(root)).replace("{outside}", str(outside))


# The cheap ones are answered in this process, which is what a process of their own does; every
# 32nd, and all that are greedy, in one of their own.
APART = {*GREEDY, *HOSTILE[::32]}


@pytest.fixture(scope="module")
def inside(root: Path) -> Connection:
    """The connection of a process that answers, in this one."""
    return locked(root, Limits())


def answered(connection: Connection, root: Path, statement: str) -> pa.Table:
    """As `ask`, in this process."""
    answer = _answer(connection, root, filled(statement, root), Limits(seconds=300))
    return pa.ipc.open_stream(answer).read_all()


@pytest.fixture(scope="module")
def answers(root: Path, inside: Connection) -> dict[str, tuple[str, float]]:
    """What is said to every hostile statement, or rows, and the seconds; those apart at once."""
    before = file_bytes(root.parent)

    def said(statement: str) -> tuple[str, float]:
        started = time.monotonic()
        try:
            if statement in APART:
                found = ask(root, filled(statement, root), LIMITS)
            else:
                found = answered(inside, root, statement)
            text = f"DATA {found.to_pylist()}"
        except QueryError as error:
            text = str(error)
        return text, time.monotonic() - started

    with ThreadPoolExecutor(4) as pool:
        apart = [statement for statement in HOSTILE if statement in APART]
        found = dict(zip(apart, pool.map(said, apart), strict=True))
    found |= {statement: said(statement) for statement in HOSTILE if statement not in APART}
    assert file_bytes(root.parent) == before, "a statement changed a file"
    return found


@pytest.mark.parametrize("statement", HOSTILE, ids=lambda text: text[:60])
def test_a_hostile_statement_gets_one_line_and_no_data(answers, statement):
    message, seconds = answers[statement]
    assert not message.startswith("DATA")
    assert message and len(message.splitlines()) == 1
    assert SECRET not in message
    # Four processes share the machine, each with its start; the limit itself is 1 s and 1 s.
    assert seconds < 30


@pytest.mark.parametrize("statement", [*READING_FILES, *HIDDEN])
def test_files_are_refused_by_the_syntax_tree_alone(root: Path, statement: str) -> None:
    with pytest.raises(QueryError):
        require_safe(filled(statement, root), {"prompts"})


OUTSIDE = [one for one in READING_FILES if "{root}/" not in one or "outside" in one]


@pytest.mark.parametrize("statement", [*OUTSIDE, *HIDDEN[:9]])
def test_files_outside_are_refused_by_the_locked_connection_alone(root, inside, statement):
    try:
        found = query(inside, filled(statement, root)).to_pylist()
    except QueryError:
        return
    assert SECRET not in str(found) and "secret" not in str(found)


@pytest.mark.parametrize("statement", ORDINARY)
def test_an_ordinary_select_gives_what_it_gives_elsewhere(root, inside, plain, statement):
    expected = query(plain, statement)
    is_apart = statement in ORDINARY[:2]
    found = ask(root, statement) if is_apart else answered(inside, root, statement)
    assert found.num_rows == expected.num_rows > 0
    if "random" not in statement and "order" in statement:
        assert found.to_pylist() == expected.to_pylist()


def test_every_table_view_and_macro_can_be_asked(root: Path, inside: Connection) -> None:
    names = [*TABLES, *sql_files("marts"), *(f"stg_{name}" for name in TABLES)]
    counts = " union all by name ".join(f"select '{n}' as n, count(*) as c from {n}" for n in names)
    found = {row["n"]: row["c"] for row in answered(inside, root, counts).to_pylist()}
    assert found.keys() == set(names)
    assert found["activations"] == 120
    for name in set(sql_files("macros")) - {"latest_study"}:
        with pytest.raises(QueryError, match=r"(?i)(parameter|argument|macro|binder)"):
            answered(inside, root, f"select {name}()")


def test_every_function_of_duckdb_that_is_not_pure_is_refused_or_known_to_be_harmless() -> None:
    connection = duckdb.connect()
    found = connection.execute(
        "select function_name, list(distinct stability) from duckdb_functions() "
        "where function_type in ('scalar', 'aggregate') group by all"
    ).fetchall()
    for name, kinds in found:
        # The overloads of `+` and `range` that take a time with a zone depend on the zone set.
        if "VOLATILE" not in kinds and "CONSISTENT" in kinds:
            continue
        if name not in _HARMLESS:
            with pytest.raises(QueryError, match=f"no function {name}"):
                require_safe(f"select {name}()", set())


def test_no_internal_view_of_duckdb_can_be_opened_by_a_name_defined_elsewhere() -> None:
    views = "select distinct view_name from duckdb_views() where internal"
    for (name,) in duckdb.connect().execute(views).fetchall():
        with pytest.raises(QueryError, match="safe mode has no table"):
            require_safe(
                f"from {name} where (with {name} as (select true as a) from {name})", set()
            )


def test_a_message_is_bounded(root: Path) -> None:
    for statement in ("select error(repeat('x', 1000000))", f'from "{"x" * 50_000}"'):
        for answer in (partial(ask, root), partial(query, connect(root))):
            with pytest.raises(QueryError) as refused:
                answer(statement)
            assert len(str(refused.value)) <= 2000


@pytest.mark.parametrize("name", ["lake", "gl[o]b"])
def test_the_place_of_the_root_is_not_told(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    put_warehouse(root, models=("m",))
    assert ask(root, "select count(*) as n from prompts").to_pylist() == [{"n": 23}]
    for path in (root / "prompts").rglob("*.parquet"):
        path.write_bytes(b"PAR1 damaged")
    with pytest.raises(QueryError) as refused:
        ask(root, "from prompts")
    assert "ROOT" in str(refused.value) and str(tmp_path) not in str(refused.value)


def test_a_link_out_of_the_warehouse_is_refused(lake: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    link = lake / "prompts" / "prompt_set=linked"
    link.symlink_to(tmp_path / "theirs")
    with pytest.raises(QueryError, match="prompt_set=linked is a link, and could lead out"):
        ask(lake, "select 1")
    link.unlink()
    assert ask(lake, "select 1 as one").to_pylist() == [{"one": 1}]


def test_the_limits_are_those_that_were_given(root: Path) -> None:
    slow = "select count(hash(range)) from range(1000000000000)"
    with pytest.raises(QueryError, match="longer than 0.5 s"):
        ask(root, slow, Limits(seconds=0.5))
    with pytest.raises(QueryError, match="larger than 1 MB"):
        ask(root, "from range(1000000)", Limits(result_mb=1))
    assert ask(root, "from range(1000000)", Limits(result_mb=16)).num_rows == 1_000_000


def test_rows_keep_their_types(root: Path) -> None:
    found = ask(root, "select vector, layer, model from activations limit 1")
    assert found.schema.field("layer").type == pa.int16()
    assert pa.types.is_list(found.schema.field("vector").type)


def test_the_command_refuses_in_one_line(root: Path) -> None:
    result = axes("sql", "--safe", "attach 'x'", "--root", root)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: safe mode") and result.stderr.count("\n") == 1
    assert "one" in ok("sql", "--safe", "select 1 as one", "--root", root).stdout
