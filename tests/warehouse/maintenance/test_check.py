"""A corruption campaign: whatever happens to a file is found, named, and set aside by repair."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from axes.cli.main import cli
from axes.warehouse.layout import MARKER
from axes.warehouse.maintenance import check as inspection
from axes.warehouse.maintenance.check import check, inspect_files
from axes.warehouse.maintenance.repair import adopt_file, repair
from axes.warehouse.runs import Run
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, data_file, write_parquet
from tests.rows import put
from tests.warehouse.sound import activation_group, put_chunk, put_warehouse, vectors_of


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("original") / "lake"
    put_warehouse(root)
    return root


@pytest.fixture
def sound(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "lake")


def chunk(root: Path) -> Path:
    """The first file of one model's activations: seven prompts at three layers."""
    return data_file(root, "activations", content_key("chunk", "m", list(range(7))), "m")


def labels_file(root: Path) -> Path:
    return sorted((root / "labels" / "labeler=dataset").glob("*.parquet"))[0]


def truncate(root: Path) -> Path:
    path = chunk(root)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def empty(root: Path) -> Path:
    chunk(root).write_bytes(b"")
    return chunk(root)


def cut_the_last_byte(root: Path) -> Path:
    path = chunk(root)
    path.write_bytes(path.read_bytes()[:-1])
    return path


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
    path = chunk(root)
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(0).column(1)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start + column.total_compressed_size - 1] ^= 0xFF
    path.write_bytes(content)
    return path


def flip_in_the_footer(root: Path) -> Path:
    path = chunk(root)
    content = bytearray(path.read_bytes())
    content[-40] ^= 0xFF
    path.write_bytes(content)
    return path


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


@dataclass(frozen=True)
class Corruption:
    spoil: Callable[[Path], Path]
    check: str
    words: str


CAMPAIGN = [
    Corruption(truncate, "file_unreadable", ""),
    Corruption(empty, "file_unreadable", ""),
    Corruption(cut_the_last_byte, "file_unreadable", ""),
    Corruption(flip_in_a_vector, "file_unreadable", "CRC checksum"),
    Corruption(flip_in_a_compressed_page, "file_unreadable", "CRC checksum"),
    Corruption(flip_in_the_footer, "", ""),
    Corruption(delete, "file_lost", "it held 21 rows"),
    Corruption(delete_the_empty_file, "file_lost", ""),
    Corruption(duplicate, "file_unlisted", "is a copy of activations/model=m/"),
    Corruption(duplicate_in_another_partition, "file_unlisted", "is a copy of"),
    Corruption(add_a_foreign_parquet, "file_unlisted", "not written by this warehouse"),
    Corruption(add_notes, "file_foreign", "does not belong"),
    Corruption(add_a_folder, "file_foreign", "does not belong"),
    Corruption(narrow, "vector_width", "2 numbers in row group 0, 64 are d_model of id-m"),
    Corruption(edit_a_label, "file_changed", "other bytes than were written"),
    Corruption(drop_a_column, "file_schema", "lacks score"),
]


def broken(root: Path) -> list[dict]:
    return [row for row in check(root).to_pylist() if row["row_count"]]


def test_a_sound_warehouse_has_nothing_to_find(sound: Path) -> None:
    assert inspect_files(sound) == []
    assert broken(sound) == []
    assert repair(sound) == []


@pytest.mark.parametrize("corruption", CAMPAIGN, ids=lambda item: item.spoil.__name__)
def test_each_corruption_is_found_and_named_and_nothing_else_is(
    sound: Path, corruption: Corruption
) -> None:
    path = corruption.spoil(sound).relative_to(sound).as_posix()
    (found,) = (row for row in broken(sound) if row["path"])
    assert found["path"] == path
    assert corruption.check in ("", found["check"])
    assert corruption.words in found["example"]
    assert "axes warehouse repair" in found["to_do"]


@pytest.mark.parametrize("corruption", CAMPAIGN, ids=lambda item: item.spoil.__name__)
def test_repair_leaves_a_sound_warehouse_and_deletes_nothing(
    sound: Path, corruption: Corruption
) -> None:
    path = corruption.spoil(sound)
    before = path.read_bytes() if path.is_file() else None
    done = repair(sound)
    assert [item.path for item in done] == [path.relative_to(sound).as_posix()]
    assert [row for row in broken(sound) if row["path"]] == []
    assert "runs_rows_present" not in {row["check"] for row in broken(sound)}
    assert repair(sound) == []
    if before is not None:
        (kept,) = (sound / ".quarantine").rglob(path.name)
        assert kept.read_bytes() == before


def test_repair_names_the_command_that_wrote_the_rows(sound: Path) -> None:
    truncate(sound)
    (done,) = repair(sound)
    command = "axes ingest activations m --prompts seen --prompts other --template raw "
    assert done.restore == (f"{command}--pooling last5_mean --root {sound}",)


def test_rows_that_are_written_again_close_the_matter(sound: Path) -> None:
    path = delete(sound)
    repair(sound)
    assert put_chunk(sound, "m", list(range(7)), "activations-again") == path
    put(sound, "runs", {"run_id": "activations-again", "rows": 21})
    assert broken(sound) == []


def test_what_a_job_replaces_while_it_is_looked_at_is_not_taken_for_damage(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(sound, "fit", {})
    run.write("running")
    wrong_vectors = inspection._wrong_vectors

    def replaces(file: pq.ParquetFile, table: Table, widths: dict[str, int]):
        if table.name == "runs" and not run.messages:
            run.messages.append("a longer row than it was")
            run.write("finished")
        return wrong_vectors(file, table, widths)

    monkeypatch.setattr(inspection, "_wrong_vectors", replaces)
    assert inspect_files(sound) == []
    assert run.messages


def test_a_quick_look_finds_what_sizes_and_footers_tell(sound: Path) -> None:
    truncate(sound)
    (found,) = inspect_files(sound, is_quick=True)
    assert found.check == "file_unreadable"


def test_a_quick_look_does_not_read_contents(sound: Path) -> None:
    flip_in_a_vector(sound)
    assert inspect_files(sound, is_quick=True) == []


def test_a_file_brought_from_elsewhere_is_adopted_on_request(sound: Path, tmp_path: Path) -> None:
    other = shutil.copytree(sound, tmp_path / "other")
    path = put_chunk(other, "m", [50, 51], "activations-m")
    brought = shutil.copy(path, sound / path.relative_to(other))
    (found,) = inspect_files(sound)
    assert found.check == "file_unlisted"
    (done,) = repair(sound, adopt=True)
    assert done.done == "adopted" and Path(brought).exists()
    assert inspect_files(sound) == []


def test_a_copy_is_never_adopted(sound: Path) -> None:
    path = duplicate(sound)
    (done,) = repair(sound, adopt=True)
    assert done.done.startswith("moved to") and not path.exists()


def test_the_command_reports_every_corruption_as_json_and_exits_with_one(sound: Path) -> None:
    deleted, label = delete(sound), edit_a_label(sound)
    arguments = ["warehouse", "check", "--root", str(sound), "--format", "json"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    found = {row["path"]: row["check"] for row in json.loads(result.stdout) if row["row_count"]}
    assert found[deleted.relative_to(sound).as_posix()] == "file_lost"
    assert found[label.relative_to(sound).as_posix()] == "file_changed"
    for path in (deleted, label):
        assert f"{path.relative_to(sound).as_posix()}: " in result.stderr


def test_a_spoilt_marker_is_one_line(sound: Path) -> None:
    (sound / MARKER).write_text("{")
    result = CliRunner().invoke(cli, ["warehouse", "check", "--root", str(sound)])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1
