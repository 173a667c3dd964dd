"""Nothing is written, read or deleted through a link in a root; no file is left half."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from axes.warehouse.connection import connect, connect_tables, rows
from axes.warehouse.errors import RootError
from axes.warehouse.maintenance.check import check
from axes.warehouse.maintenance.compaction import compact
from axes.warehouse.maintenance.migration import migrate
from axes.warehouse.maintenance.repair import repair
from axes.warehouse.maintenance.standalone import write_standalone
from axes.warehouse.maintenance.subset import subset
from axes.warehouse.maintenance.vacuum import vacuum
from axes.warehouse.storage import layout
from axes.warehouse.storage.files import replacing
from axes.warehouse.storage.layout import empty_file, init_root
from axes.warehouse.storage.ledger import locked
from axes.warehouse.tables.schemas import TABLES
from tests.rows import put

PLACES = [
    *(".tmp", ".ledger", ".locks", ".index", ".scratch", ".quarantine", ".retired"),
    *(".compaction", ".migration", "runs", "activations/model=m", "warehouse.duckdb"),
    *(".ledger/runs.jsonl", ".ledger/repair.json", ".locks/runs.lock", ".locks/maintenance.lock"),
    *("runs/schema.parquet", "runs/x.parquet", ".index/model=m/keys.parquet", "warehouse.json"),
]
COMMANDS: dict[str, Callable[[Path], object]] = {
    "connect": connect,
    "connect_tables": lambda root: connect_tables(root, "runs"),
    "init": init_root,
    "check": check,
    "repair": lambda root: repair(root, adopt=False),
    "compact": compact,
    "vacuum": lambda root: vacuum(root, older_than_hours=-1, empties_quarantine=True),
    "migrate": migrate,
    "subset": lambda root: subset(root, root.parent / "part"),
    "open": write_standalone,
    "write": lambda root: put(root, "runs", {"run_id": "new"}),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_command_reads_writes_or_deletes_through_a_link(lake: Path, place: str) -> None:
    victim = lake.parent / "victim"
    stored = lake / place
    if stored.exists():
        stored.rename(victim)
    elif "." in place.lstrip("."):
        victim.write_text("theirs")
    else:
        victim.mkdir()
    if victim.is_dir():
        (victim / "theirs.txt").write_text("theirs")
    before = contents(victim)
    for name, command in COMMANDS.items():
        root = shutil.copytree(lake, lake.parent / name / "lake")
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).symlink_to(victim)
        try:
            command(root)
        except RootError as error:
            assert "is a link" in str(error), (name, error)
        else:
            is_named = place.split("/")[0] in TABLES and name in ("check", "repair")
            assert is_named or name in ("migrate", "write"), name
            if name == "repair":
                connect(root)
        assert contents(victim) == before, name
        shutil.rmtree(lake.parent / name)


def contents(path: Path) -> dict[str, bytes]:
    paths = [path] if path.is_file() else sorted(path.rglob("*"))
    return {str(each): each.read_bytes() for each in paths if each.is_file()}


def test_a_folder_that_cannot_be_listed_is_named_and_no_row_is_left_out_silently(lake, monkeypatch):
    scandir = os.scandir

    def refuses(path: Path) -> object:
        if str(path).endswith("model=m"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(RootError, match=r"cannot be read: .*Permission denied.*model=m"):
        connect(lake)


def test_files_that_fail_to_be_written_leave_the_old_ones_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("the disk is full")
    assert [each.name for each in tmp_path.iterdir()] == ["out.csv"] and path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
        temporary.with_suffix(".json").write_text("beside")
    assert contents(tmp_path) == {
        str(path): b"new",
        str(path.with_suffix(".json")): b"beside",
    }
    link = tmp_path / "link"
    link.symlink_to(path)
    for target in (link, Path(os.devnull)):
        with replacing(target) as temporary:
            temporary.write_text("through")
    assert link.is_symlink() and path.read_text() == "through"


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device"),
    ],
)
def test_a_full_disk_is_told_with_the_file(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "out.npz"
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), replacing(path):
        raise error
    assert contents(tmp_path) == {}


def test_empty_files_that_a_power_cut_left_are_written_again(lake: Path) -> None:
    for table in TABLES.values():
        empty_file(lake, table).write_bytes(b"")
    assert rows(connect(lake), "select count(*) as n from runs")[0]["n"] > 5
    for table in TABLES.values():
        assert empty_file(lake, table).stat().st_size > 100


def test_new_names_are_on_the_disk_with_the_folders_that_hold_them(tmp_path, monkeypatch):
    """What fsync was called for, by path: a power cut leaves nothing else for sure."""
    synced: set[str] = set()
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.add(str(Path(f"/proc/self/fd/{fd}").readlink()))
    )
    root = tmp_path / "new" / "lake"
    init_root(root)
    put(root, "activations", {"model": "m", "vector": [1.0]})
    for folder in (root.parent.parent, root.parent, root, root / ".ledger", root / "activations"):
        assert str(folder) in synced, folder
    for table in TABLES.values():
        assert str(empty_file(root, table).parent) in synced
    assert str(root / "activations" / "model=m") in synced
    assert sum(path.endswith("schema.parquet") for path in synced) == len(TABLES)


def test_a_lock_of_a_linked_folder_is_refused_before_the_root_is_one(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / ".locks").symlink_to(tmp_path / "victim")
    for act in (init_root, layout.require_root):
        with pytest.raises(RootError):
            act(tmp_path / "lake")
    with pytest.raises(RootError, match="is a link"), locked(tmp_path / "lake", "init"):
        pass
    assert not list((tmp_path / "victim").iterdir())
