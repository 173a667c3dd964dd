"""The DuckDB file answers without our code, from anywhere or after it was moved with its root."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import RootError
from axes.warehouse.maintenance.standalone import write_standalone
from axes.warehouse.storage.layout import init_root
from tests.worlds import make_world

# Isolated (-I): no working folder, no PYTHONPATH; our packages are hidden besides.
FOREIGN = """
import sys
sys.meta_path.insert(0, type("Hidden", (), {"find_spec": staticmethod(lambda name, *_: (_ for _ in
    ()).throw(ImportError(name)) if name.split(".")[0] in {"axes", "warehouse", "sql"} else None)}))
import duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
for statement in sys.argv[2:]:
    print(connection.execute(statement).fetchall())
assert not {"axes", "warehouse", "sql"} & set(sys.modules)
"""

COUNTED = "select count(*), count(distinct model) from v_activations where prompt_set = 'labelled'"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("standalone") / "lake"
    make_world(root, widths={"a": 16, "b": 16}, labelled={"labelled": 10}, benign_count=5)
    return root


def ask_without_our_code(file: Path, *statements: str, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", FOREIGN, str(file), *statements],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_process_without_our_code_asks_views_and_macros_from_anywhere(world: Path) -> None:
    path = write_standalone(world)
    assert path == world / "warehouse.duckdb"
    found = ask_without_our_code(
        path,
        COUNTED,
        "select round(cosine([1, 0], unit([1, 1])), 6), auprc(x, x > 1) from range(4) as t(x)",
        "select norm_auroc between 0 and 1 from v_layer_norms where prompt_set = 'labelled'",
        "select distinct comment from duckdb_columns() where column_name = 'pooled_end'",
        "select comment is not null from duckdb_functions() where function_name = 'spearman'",
        folder=Path("/"),
    )
    assert found[0] == "[(120, 2)]"
    assert found[1] == "[(0.707107, 1.0)]"
    assert found[2] == str([(True,)] * 6)
    assert found[3:] == ["[('one past the last pooled position',)]", "[(True,)]"]


def test_it_holds_what_a_connection_holds_with_every_comment(world: Path) -> None:
    asked = """
        select table_name as place, column_name as name, data_type as kind, comment
        from duckdb_columns() where not internal
        union all
        select view_name, null, null, comment from duckdb_views() where not internal
        union all
        select function_name, null, parameters::varchar, comment
        from duckdb_functions() where not internal and function_type like '%macro%'
        order by all
    """
    with duckdb.connect(write_standalone(world), read_only=True) as connection:
        assert rows(connection, asked) == rows(connect(world, is_commented=True), asked)


@pytest.mark.parametrize("place", ["warehouse.duckdb", "out/deep, er/w.duckdb", "../beside.duckdb"])
def test_a_relative_file_moves_with_its_root(world: Path, tmp_path: Path, place: str) -> None:
    root = tmp_path / "from, here" / "lake"
    shutil.copytree(world, root)
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    path = write_standalone(root, root / place, is_relative=True).resolve()
    shutil.move(tmp_path / "from, here", tmp_path / "there")
    moved = tmp_path / "there" / path.relative_to(tmp_path / "from, here")
    assert ask_without_our_code(moved, COUNTED, folder=moved.parent) == ["[(120, 2)]"]
    if "," not in place:
        found = f"set file_search_path = '{moved.parent}'"
        answers = ask_without_our_code(moved, found, COUNTED, folder=Path("/"))
        assert answers[-1] == "[(120, 2)]"


def test_new_rows_are_seen_and_an_old_file_is_replaced(tmp_path: Path) -> None:
    from tests.rows import put

    root = tmp_path / "lake"
    init_root(root)
    for _ in range(2):
        path = write_standalone(root)
    put(root, "runs", {"run_id": "later"})
    with duckdb.connect(path, read_only=True) as connection:
        assert rows(connection, "select run_id from v_runs") == [{"run_id": "later"}]
    assert [entry.name for entry in root.glob("*duckdb*")] == ["warehouse.duckdb"]


def test_what_is_no_duckdb_file_is_left_alone(root: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("not a database")
    with pytest.raises(RootError, match="not a DuckDB file"):
        write_standalone(root, notes)
    assert notes.read_text() == "not a database"
    with pytest.raises(RootError, match="cannot write"):
        write_standalone(root, tmp_path / "no" / "where.duckdb")
    with pytest.raises(RootError, match="is not a warehouse"):
        write_standalone(tmp_path / "nowhere")


def test_a_folder_that_duckdb_cannot_name_is_refused(tmp_path: Path) -> None:
    init_root(tmp_path / "what?")
    with pytest.raises(RootError, match="for the \\?"):
        write_standalone(tmp_path / "what?")


def test_the_command_line_of_duckdb_reads_it(world: Path) -> None:
    program = shutil.which("duckdb")
    if program is None:
        pytest.skip("no duckdb command here: pip install duckdb-cli, or see duckdb.org")
    path = write_standalone(world)
    done = subprocess.run(
        [program, "-readonly", "-csv", str(path), COUNTED], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "120,2", done.stderr
