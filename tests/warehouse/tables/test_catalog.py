"""The stored catalogue: what is copied is what would be made, and nobody else's file is copied."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from axes.warehouse.connection import connect, rows
from axes.warehouse.safe import ask
from axes.warehouse.storage.layout import init_root
from axes.warehouse.tables import catalog
from axes.warehouse.tables.schemas import TABLES
from tests.rows import put

# How a process reads the number of objects, and what it may not do.
COUNT = """
import sys; from pathlib import Path
from axes.warehouse import connection
from axes.warehouse.tables import catalog
if "copy" in sys.argv:
    catalog._execute_all = None
print(len(connection.rows(connection.connect(Path(sys.argv[1])), "from duckdb_views()")))
"""


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder of the catalogue, in which nothing is stored yet."""
    monkeypatch.setenv("AXES_CACHE", str(tmp_path / "cache"))
    catalog.stored_catalog.cache_clear()
    yield tmp_path / "cache" / f"catalog-{os.geteuid()}"
    catalog.stored_catalog.cache_clear()
    catalog._digest.cache_clear()


def objects(root: Path, *, is_commented: bool = True) -> list[list[dict]]:
    """The views (without their columns' order in an `exclude`), macros, columns and the rest."""
    connection = connect(root, is_commented=is_commented)
    return [
        rows(connection, statement)
        for statement in (
            "select view_name, comment, list_sort(string_split(sql, '')) as letters "
            "from duckdb_views() where not internal order by 1",
            "select function_name, comment, parameters, macro_definition "
            "from duckdb_functions() where not internal order by all",
            "select table_name, column_name, comment, data_type "
            "from duckdb_columns() where not internal order by table_name, column_index",
            "select * from duckdb_tables()",
            "select database_name from duckdb_databases() order by 1",
        )
    ]


def count(root: Path, *words: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT, root, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("is_commented", [False, True])
def test_a_connection_copies_what_it_would_make(root, monkeypatch, is_commented):
    with monkeypatch.context() as patch:
        patch.setattr(catalog, "stored_catalog", lambda is_commented: None)
        made = objects(root, is_commented=is_commented)
    assert len(made[0]) > 2 * len(TABLES) and made[1] and not made[3]
    assert objects(root, is_commented=is_commented) == made  # It wrote the file.
    monkeypatch.setattr(catalog, "_execute_all", None)
    assert objects(root, is_commented=is_commented) == made


def test_threads_that_open_two_roots_at_once_get_the_rows_of_theirs(root, tmp_path):
    put(root, "runs", {"run_id": "a"})
    other = tmp_path / "other"
    init_root(other)
    with ThreadPoolExecutor(4) as pool:
        counts = pool.map(lambda at: len(rows(connect(at), "from runs")), 4 * [root, other])
    assert list(counts) == 4 * [1, 0]


def test_processes_at_once_share_one_file_that_a_later_one_only_copies(root, cache):
    connect(root)  # The index of keys is written here.
    for path in cache.iterdir():
        path.unlink()
    with ThreadPoolExecutor(3) as pool:
        counts = set(pool.map(lambda _: count(root), range(3)))
    assert len(counts) == 1 and [path.suffix for path in cache.iterdir()] == [".duckdb"]
    assert {count(root, "copy")} == counts


def test_other_sql_is_another_file_and_the_old_one_is_deleted_after_a_month(
    root, cache, monkeypatch
):
    connect(root)
    (old,) = cache.iterdir()
    sql = catalog.sql_files("marts") | {"v_new": "create view v_new as select 1 as a"}
    other = {"macros": catalog.sql_files("macros"), "marts": sql}
    monkeypatch.setattr(catalog, "sql_files", other.__getitem__)
    catalog.stored_catalog.cache_clear()
    catalog._digest.cache_clear()
    assert rows(connect(root), "from v_new") == [{"a": 1}]
    assert len(list(cache.iterdir())) == 2
    (new,) = {*cache.iterdir()} - {old}
    new.unlink()
    os.utime(old, (0, 0))
    catalog.stored_catalog.cache_clear()
    connect(root)
    assert list(cache.iterdir()) == [new]


def crafted(path: Path) -> None:
    """Another view of a known name in a catalogue."""
    with duckdb.connect(path) as connection:
        connection.execute("create or replace view v_auroc as select 'crafted' as model")


def _writable(cache: Path) -> None:
    cache.chmod(0o777)


def _link(cache: Path) -> None:
    cache.rename(cache.with_name("elsewhere"))
    cache.symlink_to("elsewhere")


def _foreign(cache: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives a folder to somebody else")
    os.chown(cache, 12_345, -1)


@pytest.mark.parametrize("turn", [_writable, _link, _foreign])
def test_a_file_that_somebody_else_could_have_written_is_not_copied(root, cache, turn):
    connect(root)
    (path,) = cache.iterdir()
    crafted(path)
    turn(cache)
    catalog.stored_catalog.cache_clear()
    assert "crafted" not in [row["model"] for row in rows(connect(root), "from v_auroc")]
    assert path.exists()


def test_a_process_of_safe_mode_reads_the_file_of_the_one_that_asks(root, cache):
    assert ask(root, "select 1 as a").to_pylist() == [{"a": 1}]
    (path,) = cache.iterdir()
    crafted(path)
    assert ask(root, "from v_auroc").to_pylist() == [{"model": "crafted"}]


@pytest.mark.parametrize("content", [b"", b"nothing", None], ids=["empty", "other", "cut"])
def test_a_damaged_file_is_replaced(root, cache, content):
    made = objects(root)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:200_000] if content is None else content)
    assert objects(root) == made
    assert objects(root) == made
    (path,) = cache.iterdir()
    assert path.stat().st_size > 300_000


def test_a_cache_that_cannot_be_written_and_an_unknown_one_change_nothing(
    root, cache, monkeypatch, tmp_path
):
    made = objects(root)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "cache", "~nobody-of-this-name/cache"):
        monkeypatch.setenv("AXES_CACHE", str(place))
        catalog.stored_catalog.cache_clear()
        assert objects(root) == made


def test_a_stranger_s_folder_does_not_say_where_the_cache_is(root, monkeypatch, tmp_path):
    """Its axes.toml is refused where a model is fetched, and a query needs no cache."""
    monkeypatch.delenv("AXES_CACHE")
    (tmp_path / "axes.toml").write_text('cache = "theirs"\n')
    monkeypatch.chdir(tmp_path)
    connect(root)
    assert not (tmp_path / "theirs").exists()
