"""A corruption campaign: whatever happens to a file is found, named, and set aside by repair."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from axes.cli.main import cli
from axes.warehouse.layout import MARKER
from axes.warehouse.maintenance import check as inspection
from axes.warehouse.maintenance.check import inspect_files
from axes.warehouse.maintenance.repair import adopt_file, repair
from axes.warehouse.runs import Run
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, data_file, write_parquet
from tests.rows import put
from tests.warehouse.sound import (
    activation_group,
    broken,
    flip_byte,
    put_chunk,
    vectors_of,
)


def chunk(root: Path) -> Path:
    """The first file of one model's activations: seven prompts at three layers."""
    return data_file(root, "activations", content_key("chunk", "m", list(range(7))), "m")


def labels_file(root: Path) -> Path:
    return sorted((root / "labels" / "labeler=dataset").glob("*.parquet"))[0]


def truncate(root: Path, size: int | None = None) -> Path:
    path = chunk(root)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if size is None else size])
    return path


def empty(root: Path) -> Path:
    return truncate(root, 0)


def cut_the_last_byte(root: Path) -> Path:
    return truncate(root, -1)


def flip_in_a_vector(root: Path) -> Path:
    """One bit in the middle of a vector page, which reads as another sound number."""
    path = chunk(root)
    with pq.ParquetFile(path) as file:
        first = file.read_row_group(1).column("prompt_id")[0].as_py()
    content = bytearray(path.read_bytes())
    offset = content.find(vectors_of("m", 1, [int(first[1:])]).tobytes())
    assert offset > 0
    content[offset + 1] ^= 1
    path.write_bytes(content)
    return path


def flip_in_a_compressed_page(root: Path) -> Path:
    column = pq.read_metadata(chunk(root)).row_group(0).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    flip_byte(chunk(root), start + column.total_compressed_size - 1)
    return chunk(root)


def flip_in_the_footer(root: Path) -> Path:
    flip_byte(chunk(root), -40)
    return chunk(root)


def delete(root: Path) -> Path:
    chunk(root).unlink()
    return chunk(root)


def delete_the_empty_file(root: Path) -> Path:
    path = root / "activations" / "model=__none__" / "schema.parquet"
    path.unlink()
    return path


def duplicate(root: Path) -> Path:
    return Path(shutil.copy(chunk(root), chunk(root).with_name("copy.parquet")))


def duplicate_in_another_partition(root: Path) -> Path:
    folder = root / "activations" / "model=else"
    folder.mkdir()
    return Path(shutil.copy(chunk(root), folder))


def add_a_foreign_parquet(root: Path) -> Path:
    path = chunk(root).with_name("theirs.parquet")
    pl.DataFrame({"a": [1, 2]}).write_parquet(path)
    return path


def add_notes(root: Path) -> Path:
    path = chunk(root).with_name("notes.txt")
    path.write_text("mine")
    return path


def add_a_folder(root: Path) -> Path:
    path = root / "activations" / "old"
    path.mkdir()
    return path


def narrow(root: Path) -> Path:
    """A vector of another width, written by the job itself."""
    path = put_chunk(root, "m", [40], "activations-m")
    group = activation_group("m", 2, [40], "activations-m")
    column = group.schema.get_field_index("vector")
    vector = group.column("vector").type
    two_wide = pa.array([[1.0, 2.0]] * len(group), vector)
    short = group.set_column(column, group.schema.field("vector"), two_wide)
    write_parquet(path, TABLES["activations"], [short])
    adopt_file(root, "activations", path)
    return path


def edit_a_label(root: Path) -> Path:
    """Read, change one label, write: a sound Parquet file with sound checksums."""
    path = labels_file(root)
    edited = pq.read_table(path, partitioning=None).to_pylist()
    edited[0]["is_positive"] = not edited[0]["is_positive"]
    table = pa.Table.from_pylist(edited, schema=TABLES["labels"].file_schema)
    write_parquet(path, TABLES["labels"], [table])
    return path


def drop_a_column(root: Path) -> Path:
    path = labels_file(root)
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["score"]), path)
    return path


# What is done to a file, the check that finds it, and words of the finding.
CAMPAIGN = [
    (truncate, "file_unreadable", ""),
    (empty, "file_unreadable", ""),
    (cut_the_last_byte, "file_unreadable", ""),
    (flip_in_a_vector, "file_unreadable", "CRC checksum"),
    (flip_in_a_compressed_page, "file_unreadable", "CRC checksum"),
    (flip_in_the_footer, "", ""),
    (delete, "file_lost", "it held 21 rows"),
    (delete_the_empty_file, "file_lost", ""),
    (duplicate, "file_unlisted", "is a copy of activations/model=m/"),
    (duplicate_in_another_partition, "file_unlisted", "is a copy of"),
    (add_a_foreign_parquet, "file_unlisted", "not written by this warehouse"),
    (add_notes, "file_foreign", "does not belong"),
    (add_a_folder, "file_foreign", "does not belong"),
    (narrow, "vector_width", "2 numbers in row group 0, 64 are d_model of id-m"),
    (edit_a_label, "file_changed", "other bytes than were written"),
    (drop_a_column, "file_schema", "lacks score"),
]


def test_a_sound_warehouse_has_nothing_to_find(lake: Path) -> None:
    assert inspect_files(lake) == []
    assert broken(lake) == []
    assert repair(lake) == []


@pytest.mark.parametrize(
    ("spoil", "rule", "words"), CAMPAIGN, ids=[spoil.__name__ for spoil, *_ in CAMPAIGN]
)
def test_a_corruption_alone_is_found_and_named_and_repair_sets_it_aside(
    lake: Path, spoil: Callable[[Path], Path], rule: str, words: str
) -> None:
    path = spoil(lake)
    name = path.relative_to(lake).as_posix()
    before = path.read_bytes() if path.is_file() else None
    (found,) = inspect_files(lake)
    assert found.path == name
    assert rule in ("", found.check)
    assert words in found.what
    assert [item.path for item in repair(lake)] == [name]
    left = broken(lake)
    assert not any(row["path"] or row["check"] == "runs_rows_present" for row in left)
    assert repair(lake) == []
    if before is not None:
        (kept,) = (lake / ".quarantine").rglob(path.name)
        assert kept.read_bytes() == before


def test_repair_names_the_command_that_wrote_the_rows(lake: Path) -> None:
    truncate(lake)
    (done,) = repair(lake)
    command = "axes ingest activations m --prompts seen --prompts other --template raw "
    assert done.restore == (f"{command}--pooling last5_mean --root {lake}",)


def test_rows_that_are_written_again_close_the_matter(lake: Path) -> None:
    path = delete(lake)
    repair(lake)
    assert put_chunk(lake, "m", list(range(7)), "activations-again") == path
    put(lake, "runs", {"run_id": "activations-again", "rows": 21})
    assert broken(lake) == []


def test_what_a_job_replaces_while_it_is_looked_at_is_not_taken_for_damage(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(lake, "fit", {})
    run.write("running")
    wrong_vectors = inspection._wrong_vectors

    def replaces(file: pq.ParquetFile, table: Table, widths: dict[str, int]):
        if table.name == "runs" and not run.messages:
            run.messages.append("a longer row than it was")
            run.write("finished")
        return wrong_vectors(file, table, widths)

    monkeypatch.setattr(inspection, "_wrong_vectors", replaces)
    assert inspect_files(lake) == []
    assert run.messages


def test_a_quick_look_reads_sizes_and_footers_and_no_contents(lake: Path) -> None:
    flip_in_a_vector(lake)
    assert inspect_files(lake, is_quick=True) == []
    truncate(lake)
    (found,) = inspect_files(lake, is_quick=True)
    assert found.check == "file_unreadable"


def test_a_file_brought_from_elsewhere_is_adopted_on_request(lake: Path, tmp_path: Path) -> None:
    other = shutil.copytree(lake, tmp_path / "other")
    path = put_chunk(other, "m", [50, 51], "activations-m")
    brought = shutil.copy(path, lake / path.relative_to(other))
    (found,) = inspect_files(lake)
    assert found.check == "file_unlisted"
    (done,) = repair(lake, adopt=True)
    assert done.done == "adopted" and Path(brought).exists()
    assert inspect_files(lake) == []


def test_a_copy_is_never_adopted(lake: Path) -> None:
    path = duplicate(lake)
    (done,) = repair(lake, adopt=True)
    assert done.done.startswith("moved to") and not path.exists()


def test_the_command_reports_every_corruption_as_json_and_exits_with_one(lake: Path) -> None:
    deleted, label = delete(lake), edit_a_label(lake)
    arguments = ["warehouse", "check", "--root", str(lake), "--format", "json"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    found = {row["path"]: row for row in json.loads(result.stdout) if row["path"]}
    for path, rule, words in (
        (deleted, "file_lost", "it held 21 rows"),
        (label, "file_changed", "other bytes than were written"),
    ):
        row = found.pop(path.relative_to(lake).as_posix())
        assert (row["check"], row["row_count"]) == (rule, 1)
        assert words in row["example"]
        assert f"{row['path']}: " in result.stderr
    assert not found
    assert all("axes warehouse repair" in text for text in inspection._TO_DO.values())


def test_a_spoilt_marker_is_one_line(lake: Path) -> None:
    (lake / MARKER).write_text("{")
    result = CliRunner().invoke(cli, ["warehouse", "check", "--root", str(lake)])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1
