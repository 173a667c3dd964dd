"""What maintenance promises wherever a warehouse lies: the same on a folder and an object store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from axes.warehouse.connection import connect_tables, rows
from axes.warehouse.errors import RootError
from axes.warehouse.maintenance.check import inspect_files
from axes.warehouse.maintenance.compaction import COMPACTED, compact
from axes.warehouse.maintenance.forget import forget
from axes.warehouse.maintenance.merge import merge
from axes.warehouse.maintenance.repair import repair
from axes.warehouse.maintenance.statistics import statistics
from axes.warehouse.maintenance.subset import subset
from axes.warehouse.maintenance.vacuum import vacuum
from axes.warehouse.runs import Run
from axes.warehouse.storage.objects import Objects
from axes.warehouse.storage.roots import RemoteRoot
from axes.warehouse.storage.store import data_files, maintained, store_at
from axes.warehouse.tables.schemas import TABLES
from tests.rows import put
from tests.warehouse.sound import LAYERS, broken, put_chunk

ORPHAN = {"model": "m", "generation_id": "orphan", "run_id": "run", "vector": [1.0] * 64}


def activations(root: Path) -> list[Path]:
    """The files of one model's activations."""
    files = data_files(root, TABLES["activations"])
    return [path for path in files if path.parent.name == "model=m"]


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file's bytes behind the warehouse's back; to none deletes it."""
    if isinstance(path, RemoteRoot):
        objects = Objects(RemoteRoot(*path.parts[:-3]))
        name = "/".join(path.parts[-3:])
        stored = objects.get(name)
        assert stored is not None
        if content := change(stored[0]):
            objects.put(name, content)
        else:
            objects.delete(name)
    elif content := change(path.read_bytes()):
        path.write_bytes(content)
    else:
        path.unlink()


def contents(root: Path) -> dict[str, list[str]]:
    """Every row of every table but `runs`, without order; no view, which would take longer."""
    store, found = store_at(root), {}
    for table in TABLES.values():
        if table.name != "runs":
            files = [pq.ParquetFile(store.source(path)) for path in data_files(root, table)]
            found[table.name] = sorted(
                str(row) for file in files for row in file.read().to_pylist()
            )
    return found


def test_a_copy_has_every_row_there_and_back_and_a_part_is_that_of_a_disk(
    any_lake, sound, tmp_path
):
    assert contents(any_lake) == contents(sound)
    assert broken(any_lake) == []
    counts = [[(each.table, each.rows) for each in statistics(root)] for root in (any_lake, sound)]
    assert counts[0] == counts[1]
    back = tmp_path / "back"
    assert sum(each.rows_left_out for each in subset(any_lake, back)) == 0
    assert contents(back) == contents(sound) and inspect_files(back) == []
    # Under the names that jobs look for.
    for table in TABLES.values():
        names = [[path.name for path in data_files(root, table)] for root in (back, sound)]
        assert names[0] == names[1]
    subset(any_lake, tmp_path / "part", models=["m"], prompt_sets=["seen"])
    every, part = contents(sound), contents(tmp_path / "part")
    assert all({*part[name]} <= {*every[name]} for name in every)
    assert len(part["activations"]) == 8 * len(LAYERS)
    with pytest.raises(RootError, match="exists and is a warehouse, complete"):
        subset(sound, any_lake)


def test_compaction_changes_how_rows_lie_and_never_which_there_are(any_lake, monkeypatch):
    run = Run(any_lake, "fit", {})
    run.write("running")
    before = contents(any_lake)
    put(any_lake, "generation_tokens", ORPHAN)
    done = compact(any_lake)
    in_one_file = {"token_projections", "intervention_outcomes"}
    assert {item.partition.split("/")[0] for item in done} == {*COMPACTED} - in_one_file
    assert compact(any_lake) == []
    (path,) = activations(any_lake)
    metadata = pq.read_metadata(store_at(any_lake).source(path))
    assert [metadata.row_group(index).num_rows for index in range(len(LAYERS))] == [20] * 3
    # Neither the row of a job under way nor tokens without their completion were merged.
    run.write("finished")
    found = rows(connect_tables(any_lake, "runs"), f"from runs where run_id = '{run.run_id}'")
    assert [row["status"] for row in found] == ["finished"]
    with store_at(any_lake).locked("id-m"):
        assert vacuum(any_lake) == []
    # The small files stay until no reader can be at them.
    assert [item.kind for item in vacuum(any_lake)] == ["orphan tokens"]
    assert vacuum(any_lake, older_than_hours=0)
    assert contents(any_lake) == before and vacuum(any_lake, older_than_hours=0) == []
    # What a job commits while a partition is compacted stays, in the place of what it replaces.
    store, chunk = maintained(any_lake), [40, 41]
    for indices in (chunk, [42]):
        put_chunk(any_lake, "m", indices, "activations-m")
    replace = type(store).replace

    def overtaken(*arguments: object) -> bool:
        put_chunk(any_lake, "m", chunk, "another-run")
        return replace(*arguments)

    monkeypatch.setattr(type(store), "replace", overtaken)
    assert compact(any_lake, ["activations"]) == []
    assert len(contents(any_lake)["activations"]) == len(before["activations"]) + 3 * len(LAYERS)
    assert inspect_files(any_lake) == []


def test_damage_is_found_and_repair_sets_it_aside_and_says_how_the_rows_come_back(any_lake):
    changes = {
        "file_lost": lambda content: b"",
        "file_unreadable": lambda content: content[:-1],
        "file_": lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:],
    }
    paths = activations(any_lake)
    for path, change in zip(paths, changes.values(), strict=True):
        spoil(path, change)
    names = [path.relative_to(any_lake).as_posix() for path in paths]
    found = {each.path: each for each in inspect_files(any_lake)}
    assert sorted(found) == sorted(names)
    for name, rule in zip(names, changes, strict=True):
        assert found[name].check.startswith(rule)
    assert "it held 18 rows" in found[names[0]].what
    quick = inspect_files(any_lake, is_quick=True)
    assert [each.path for each in quick] == names[:2]
    planned = repair(any_lake, is_dry_run=True)
    done = repair(any_lake)
    assert [each.path for each in done] == [each.path for each in planned]
    command = "axes ingest activations m --prompts seen --prompts other --template raw"
    assert all(each.restore[0].startswith(command) for each in done)
    assert inspect_files(any_lake) == []
    assert "quarantine" not in {each.kind for each in vacuum(any_lake, older_than_hours=0)}
    removed = vacuum(any_lake, older_than_hours=0, empties_quarantine=True)
    assert {each.kind for each in removed} == {"quarantine"}
    # Rows that are written again close the matter.
    for indices in (range(7), range(7, 14), range(14, 20)):
        put_chunk(any_lake, "m", list(indices), "activations-m")
    assert inspect_files(any_lake) == []


def test_models_are_forgotten_and_merged_and_maintenance_waits_for_jobs(any_lake, sound, tmp_path):
    with store_at(any_lake).locked("maintenance"):
        for act in (compact, repair, vacuum):
            with pytest.raises(RootError, match="is being repaired, compacted"):
                act(any_lake)
    with store_at(any_lake).locked("m.commit"), pytest.raises(RootError, match="a job is running"):
        forget(any_lake, models=["m"])
    forget(any_lake, models=["m"])
    assert not [row for rows_of in contents(any_lake).values() for row in rows_of if "-m'" in row]
    merge(any_lake, [sound])
    assert contents(any_lake) == contents(sound) and inspect_files(any_lake) == []
    merge(tmp_path / "new", [any_lake])
    assert contents(tmp_path / "new") == contents(sound)
    assert sum(item.rows_added for item in merge(any_lake, [sound])) == 0
