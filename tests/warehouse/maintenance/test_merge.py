"""What several machines wrote becomes one warehouse: every key once, whatever its files are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import RootError
from axes.warehouse.maintenance.compaction import compact
from axes.warehouse.maintenance.merge import merge
from axes.warehouse.storage.ledger import locked
from axes.warehouse.tables.schemas import TABLES
from tests.commands import printed
from tests.rows import put, put_prompts
from tests.warehouse.sound import SETS, broken, contents, put_chunk, put_model, put_warehouse

ACTIVATIONS = "select prompt_id, layer, vector from activations where model = 'm' order by all"


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Two machines with one set: the second has a chunk of the first as well, and compacted."""
    parts = []
    for name in ("first", "second"):
        root = tmp_path / name / "lake"
        put_warehouse(root, models=())
        for index, indices in enumerate(([0, 1, 2, 3], [3, 4, 5])):
            if name == "second" or index == 0:
                put_chunk(root, "m", indices, f"run-{name}")
        parts.append(root)
    put_chunk(parts[1], "m", [6], "run-second")
    compact(parts[1], ["activations"])
    return parts


def test_rows_that_overlap_are_one_and_all_are_there(parts: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "lake"
    merge(root, parts)
    found = rows(connect(root), ACTIVATIONS)
    assert len(found) == 7 * 3
    assert [row for row in found if row["prompt_id"] == "p6"] == [
        row for row in rows(connect(parts[1]), ACTIVATIONS) if row["prompt_id"] == "p6"
    ]
    again = merge(root, parts)
    assert sum(item.rows_added for item in again) == 0


def test_merging_all_of_a_warehouse_gives_the_same_rows_and_is_sound(lake, tmp_path):
    put_model(other := shutil.copytree(lake, tmp_path / "other"), "third")
    compact(other)
    root = tmp_path / "new" / "lake"
    for sources in ([lake, other], [other]):
        merge(root, sources)
        merged = contents(root)
        merged["runs"] = [row for row in merged["runs"] if row["command"] != "warehouse merge"]
        assert merged == contents(other) and broken(root) == []


def test_rows_that_another_job_has_stored_are_not_missing(parts, tmp_path):
    for part, count in zip(parts, (4, 7), strict=True):
        run = f"run-{part.parent.name}"
        put(part, "models", {"model": "m", "model_id": "id-m", "d_model": 64, "run_id": run})
        put(
            part,
            "runs",
            {
                "run_id": run,
                "command": "ingest activations",
                "status": "finished",
                "rows": count * 3,
            },
        )
    merge(tmp_path / "lake", parts)
    assert not [row for row in broken(tmp_path / "lake") if row["check"] == "runs_rows_present"]
    assert not [row for row in broken(tmp_path / "lake") if "unique" in row["check"]]


def test_what_cannot_be_merged_is_refused_before_anything_is_added(lake, tmp_path):
    other = tmp_path / "other"
    put_warehouse(other, models=())
    put_prompts(other, "third", {"p1": True})
    root = shutil.copytree(lake, tmp_path / "root")
    put_prompts(root, "third", {"p2": True})
    before = contents(root)
    with pytest.raises(RootError, match="the prompt set third of .*other has other prompts"):
        merge(root, [lake, other])
    with pytest.raises(RootError, match="is the warehouse itself"):
        merge(root, [root])
    with locked(root, "id-m"), pytest.raises(RootError, match=r"a job is running .*id-m"):
        merge(root, [lake])
    path = next((lake / "activations" / "model=m").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RootError, match="run `axes warehouse repair --root"):
        merge(root, [lake])
    assert contents(root) == before


def test_the_command_prints_what_was_added(lake: Path, tmp_path: Path) -> None:
    found = printed("warehouse", "merge", lake, "--root", tmp_path / "new")
    added = {row["table"]: row["rows_added"] for row in found}
    assert added["prompts"] == sum(len(indices) for indices in SETS.values())
    assert added.keys() <= TABLES.keys()
