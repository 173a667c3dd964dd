"""Vacuum deletes what no query sees, and nothing that a job or a reader may still be at."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from axes.warehouse.connection import connect, rows
from axes.warehouse.maintenance.compaction import compact
from axes.warehouse.maintenance.repair import repair
from axes.warehouse.maintenance.vacuum import vacuum
from axes.warehouse.storage.layout import partition_folder
from axes.warehouse.storage.ledger import ledger_file, read_ledger
from axes.warehouse.tables.schemas import TABLES
from tests.rows import put
from tests.warehouse.sound import broken

ORPHAN = {"model": "m", "generation_id": "orphan", "run_id": "run", "vector": [1.0] * 64}


def kinds(root: Path, **options) -> list[str]:
    return sorted(item.kind for item in vacuum(root, **options))


def test_a_sound_warehouse_has_nothing_to_delete(lake: Path) -> None:
    assert vacuum(lake, older_than_hours=0) == []


def test_temporary_files_go_once_they_are_old(lake: Path) -> None:
    (lake / ".tmp" / "killed.0.tmp").write_bytes(b"half")
    assert vacuum(lake) == []
    (removed,) = vacuum(lake, older_than_hours=0)
    assert (removed.kind, removed.path, removed.bytes) == ("temporary", ".tmp/killed.0.tmp", 4)


def test_retired_folders_go_once_no_reader_can_be_at_them(lake: Path) -> None:
    compact(lake, ["activations"])
    before = rows(connect(lake), "select sum(list_sum(vector)) from activations")
    assert vacuum(lake) == []
    removed = vacuum(lake, older_than_hours=0)
    assert [item.kind for item in removed] == ["retired"] * 2
    assert all(item.bytes > 10_000 for item in removed)
    assert rows(connect(lake), "select sum(list_sum(vector)) from activations") == before
    assert broken(lake) == []


def test_tokens_without_a_completion_go_unless_their_job_may_be_under_way(lake: Path) -> None:
    put(lake, "generation_tokens", ORPHAN)
    put(lake, "token_projections", {"model": "m", "generation_id": "orphan", "run_id": "run"})
    with FileLock(lake / ".locks" / "id-m.lock"):
        assert vacuum(lake) == []
    assert kinds(lake) == ["orphan tokens", "orphan tokens"]
    found = rows(connect(lake), "select distinct generation_id from generation_tokens")
    assert len(found) == 8 and {"generation_id": "orphan"} not in found
    found = rows(connect(lake), "select distinct generation_id from token_projections")
    assert {row["generation_id"] for row in found} == {"g-m-0", "g-owner/n-0"}


def test_an_empty_partition_goes_and_one_with_rows_stays(lake: Path) -> None:
    partition_folder(lake, TABLES["activations"], "gone").mkdir()
    (removed,) = vacuum(lake)
    assert (removed.kind, removed.path) == ("empty partition", "activations/model=gone")
    assert (lake / "activations" / "model=m").is_dir()


def test_the_quarantine_is_emptied_only_on_request(lake: Path) -> None:
    path = next((lake / "activations" / "model=m").iterdir())
    path.write_bytes(b"")
    repair(lake)
    assert kinds(lake, older_than_hours=0) == []
    assert kinds(lake, older_than_hours=0, empties_quarantine=True) == ["quarantine"]


def test_the_ledger_is_shortened_to_what_it_says(lake: Path) -> None:
    put(lake, "runs", {"run_id": "again", "status": "running"})
    for _ in range(20):
        put(lake, "runs", {"run_id": "again", "status": "running"})
    before, size = read_ledger(lake, "runs"), ledger_file(lake, "runs").stat().st_size
    vacuum(lake)
    assert read_ledger(lake, "runs") == before
    assert ledger_file(lake, "runs").stat().st_size < size / 2
