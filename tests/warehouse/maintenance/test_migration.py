"""A committed warehouse of version 1, written by the code of its time, is read after migration."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import RootError
from axes.warehouse.maintenance import migration
from axes.warehouse.maintenance.migration import UNKNOWN_HASH, migrate
from axes.warehouse.storage import ledger
from axes.warehouse.storage.layout import MARKER, require_root
from axes.warehouse.tables.schemas import SCHEMA_VERSION, TABLES
from axes.warehouse.writer import content_key
from tests.warehouse.sound import broken, instants, killed_at

FIXTURE = Path(__file__).parent / "fixtures" / "version_1"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURE, tmp_path / "lake")


def old_rows(root: Path) -> dict[str, list[dict]]:
    """What the fixture holds, read without this code."""
    found = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        paths = sorted(folder.rglob("*.parquet"))
        tables = [pq.read_table(path, partitioning=None).to_pylist() for path in paths]
        found[folder.name] = sorted((row for table in tables for row in table), key=str)
    return found


def test_an_old_root_says_to_migrate(old: Path) -> None:
    with pytest.raises(RootError, match=r"has schema version 1, .*run `axes warehouse migrate`"):
        connect(old)


def test_a_migrated_root_holds_the_old_rows_and_passes_its_checks(old: Path) -> None:
    before = old_rows(old)
    done = {item.table: item.rows for item in migrate(old)}
    require_root(old)
    assert sum(len(found) for found in before.values()) == sum(done.values()) > 10
    connection = connect(old)
    for name, expected in before.items():
        columns, schema = old_columns(name), TABLES[name].file_schema
        assert {*columns} <= {*schema.names}
        added = {*schema.names} - {*columns} - {"rendered_hash"}
        assert all(schema.field(column).nullable for column in added)
        wanted = ", ".join(column for column in schema.names if column in columns)
        assert sorted(rows(connection, f"select {wanted} from {name}"), key=str) == expected
    assert rows(connection, "from prompt_tokens") == []
    assert broken(old) == []


def old_columns(table: str) -> list[str]:
    """The columns of a table in the fixture, read without this code."""
    path = next((FIXTURE / table).rglob("*.parquet"))
    return pq.read_schema(path).names


def test_the_hash_of_a_rendered_text_is_filled_in_where_it_is_known(old: Path) -> None:
    migrate(old)
    asked = "select distinct prompt_id, template, rendered_hash from activations order by 1"
    expected = [content_key("text p0"), content_key("text p1")]
    assert [row["rendered_hash"] for row in rows(connect(old), asked)] == expected


def test_the_hash_of_a_prompt_that_is_gone_is_said_to_be_unknown(old: Path) -> None:
    for path in (old / "prompts" / "prompt_set=demo").iterdir():
        path.unlink()
    migrate(old)
    found = rows(connect(old), "select distinct rendered_hash from activations")
    assert found == [{"rendered_hash": UNKNOWN_HASH}]


def test_nothing_is_deleted(old: Path) -> None:
    migrate(old)
    changed = [
        path.name
        for path in FIXTURE.iterdir()
        if path.is_dir() and {*old_columns(path.name)} != {*TABLES[path.name].file_schema.names}
    ]
    assert "activations" in changed and len(changed) > 5
    for name in changed:
        (kept,) = old.glob(f".retired/*/{name}")
        for path in (FIXTURE / name).rglob("*.parquet"):
            assert (kept / path.relative_to(FIXTURE / name)).read_bytes() == path.read_bytes()


def test_a_root_of_this_version_is_left_alone(root: Path) -> None:
    assert migrate(root) == []


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1])
def test_an_unknown_version_is_refused(old: Path, version: int) -> None:
    (old / MARKER).write_text(json.dumps({"schema_version": version}))
    with pytest.raises(RootError, match=f"version {version}, this code knows 1 to"):
        migrate(old)


def test_a_root_that_a_job_writes_to_is_refused(old: Path) -> None:
    (old / ".locks").mkdir()
    with (
        FileLock(old / ".locks" / "id.lock"),
        pytest.raises(RootError, match=r"a job is running .*id\.lock"),
    ):
        migrate(old)
    migrate(old)


def test_a_broken_file_stops_the_migration_before_anything_is_changed(old: Path) -> None:
    path = old / "activations" / "model=owner%2Fm" / "chunk.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    before = old_files(old)
    with pytest.raises(RootError, match=r"chunk\.parquet cannot be read .*move it out"):
        migrate(old)
    assert old_files(old) == before


def old_files(root: Path) -> dict[str, bytes]:
    return files(root, [path.name for path in FIXTURE.iterdir() if path.is_dir()])


def files(root: Path, tables: Iterable[str]) -> dict[str, bytes]:
    """The marker and the files of some tables."""
    paths = [root / MARKER] + [path for name in tables for path in (root / name).rglob("*.parquet")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


STEPS = [
    (migration, "write_parquet"),
    (migration, "write_empty_file"),
    (migration, "write_marker"),
    (migration.shutil, "rmtree"),
    (ledger, "replace_file"),
    (Path, "rename"),
    (Path, "replace"),
]


@pytest.mark.parametrize("is_each", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_killed_at_any_step_it_is_the_old_root_or_is_refused_and_can_be_ended(tmp_path, is_each):
    migrated = shutil.copytree(FIXTURE, tmp_path / "whole")
    called = killed_at(None, STEPS, lambda: migrate(migrated))
    expected, untouched = files(migrated, TABLES), old_files(FIXTURE)
    outcomes = set()
    for at in range(len(called)) if is_each else instants(called):
        root = shutil.copytree(FIXTURE, tmp_path / str(at))
        assert killed_at(at, STEPS, lambda root=root: migrate(root)) == called[:at]
        version = json.loads((root / MARKER).read_text())["schema_version"]
        outcomes.add(version)
        if version == 1:
            assert old_files(root) == untouched, f"killed at step {at}"
        elif version != SCHEMA_VERSION:
            with pytest.raises(RootError, match=r"is being migrated .*run `axes warehouse migrate"):
                require_root(root)
        migrate(root)
        assert files(root, TABLES) == expected, f"killed at step {at}"
        shutil.rmtree(root)
    assert outcomes == {1, f"1 to {SCHEMA_VERSION}", SCHEMA_VERSION}
