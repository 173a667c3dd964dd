"""A corruption campaign: whatever happens to a file is found, named, and set aside by repair."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from axes.warehouse.connection import connect, rows, scan
from axes.warehouse.errors import RootError
from axes.warehouse.maintenance import check as inspection
from axes.warehouse.maintenance.check import inspect_files
from axes.warehouse.maintenance.repair import Repair, repair
from axes.warehouse.runs import Run
from axes.warehouse.storage import ledger
from axes.warehouse.storage.layout import MARKER
from axes.warehouse.storage.ledger import ledger_file
from axes.warehouse.storage.store import data_files, maintained
from axes.warehouse.tables.catalog import check_rules
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, data_file, read_record, write_parquet
from tests.commands import axes
from tests.rows import put
from tests.warehouse.sound import (
    activation_group,
    broken,
    contents,
    flip_byte,
    killed_at,
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
    path.unlink()
    write_parquet(path, TABLES["activations"], [short])
    maintained(root).adopt("activations", {path: read_record(path)})
    return path


def edit_a_label(root: Path) -> Path:
    """Read, change one label, write: a sound Parquet file with sound checksums."""
    path = labels_file(root)
    edited = pq.read_table(path, partitioning=None).to_pylist()
    edited[0]["is_positive"] = not edited[0]["is_positive"]
    table = pa.Table.from_pylist(edited, schema=TABLES["labels"].file_schema)
    path.unlink()
    write_parquet(path, TABLES["labels"], [table])
    return path


def drop_a_column(root: Path) -> Path:
    path = labels_file(root)
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["score"]), path)
    return path


def flip_in_the_name_of_a_column(root: Path) -> Path:
    """The footer then holds a name that is no UTF-8."""
    content = bytearray(chunk(root).read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[content.index(b"prompt_id", footer)] ^= 0x80
    chunk(root).write_bytes(content)
    return chunk(root)


def add_a_folder_named_like_a_file(root: Path) -> Path:
    path = chunk(root).with_name("x.parquet")
    path.mkdir()
    return path


def add_a_dangling_link(root: Path) -> Path:
    path = chunk(root).with_name("x.parquet")
    path.symlink_to(root / "nowhere")
    return path


def link_a_partition(root: Path) -> Path:
    """A link to a folder elsewhere that holds a sound file."""
    path = root / "activations" / "model=else"
    path.symlink_to(shutil.copytree(chunk(root).parent, root.parent / "elsewhere"))
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
    (flip_in_the_name_of_a_column, "file_unreadable", "utf"),
    (add_a_folder_named_like_a_file, "file_foreign", "does not belong"),
    (add_a_dangling_link, "file_foreign", "is a link"),
    (link_a_partition, "file_foreign", "is a link"),
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
def test_a_corruption_alone_is_found_and_named_and_repair_sets_it_aside(lake, spoil, rule, words):
    path = spoil(lake)
    name = path.relative_to(lake).as_posix()
    before = path.read_bytes() if path.is_file() else None
    (found,) = inspect_files(lake)
    assert found.path == name
    assert rule in ("", found.check)
    assert words in found.what
    assert [item.path for item in repair(lake)] == [name]
    assert inspect_files(lake) == [] == repair(lake)
    # The one rule over rows that a job whose file was set aside would break.
    assert not rows(connect(lake), check_rules()["runs_rows_present"])
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


def test_what_a_job_replaces_while_it_is_looked_at_is_not_taken_for_damage(lake, monkeypatch):
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


HURT = {
    "empty": lambda content: b"",
    "half of it zeros": lambda content: content[: len(content) // 2].ljust(len(content), b"\0"),
    "a file's lines gone": lambda content: content.split(b"\n", 4)[-1],
}


@pytest.mark.parametrize("hurt", HURT.values(), ids=HURT)
def test_where_the_ledger_is_hurt_sound_files_stay_until_it_is_decided(lake, hurt):
    before, ledger = files_of(lake), ledger_file(lake, "activations")
    ledger.write_bytes(hurt(ledger.read_bytes()))
    hurt_ledger = ledger.read_bytes()
    for done in (repair(lake, is_dry_run=True), repair(lake, adopt=False, is_dry_run=True)):
        assert done and files_of(lake) == before and ledger.read_bytes() == hurt_ledger
        assert not (lake / ".quarantine").exists()
    with pytest.raises(RootError, match=r"not in its ledger .*nothing was changed.*--adopt"):
        repair(lake)
    assert files_of(lake) == before
    assert {item.done for item in repair(lake, adopt=True)} == {"adopted"}
    assert files_of(lake).items() >= before.items() and broken(lake) == []


def test_an_older_copy_of_the_ledger_costs_no_row(lake: Path) -> None:
    older = {table: ledger_file(lake, table).read_bytes() for table in ("runs", "activations")}
    run = Run(lake, "fit", {})
    run.write("running")
    older["runs"] = ledger_file(lake, "runs").read_bytes()
    run.messages.append("a longer row than it was")
    run.write("finished")
    put_chunk(lake, "m", [50, 51], "activations-m")
    before = files_of(lake)
    for table, content in older.items():
        ledger_file(lake, table).write_bytes(content)
    with pytest.raises(RootError, match="1 sound files"):
        repair(lake)
    assert [item.done for item in repair(lake, adopt=True)] == ["adopted"] * 2
    assert files_of(lake).items() >= before.items() and inspect_files(lake) == []


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.glob("[a-z]*/**/*.parquet")}


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("name", ["ParquetFile", "sha256"])
def test_an_error_of_the_machine_ends_the_command_and_moves_nothing(
    lake: Path, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    before, place = files_of(lake), inspection if name == "sha256" else inspection.pq
    read = getattr(place, name)

    def fails(path: Path, **options: object) -> object:
        if path == chunk(lake):
            raise OSError(number, "what the system says")
        return read(path, **options)

    monkeypatch.setattr(place, name, fails)
    for act in (inspect_files, repair):
        with pytest.raises(RootError, match=r"what the system says.*no file was moved"):
            act(lake)
    assert files_of(lake) == before


STEPS = [(ledger, "_append"), (ledger, "replace_file"), (Path, "rename"), (Path, "unlink")]


@pytest.mark.parametrize("is_each", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_a_repair_that_is_killed_is_ended_by_the_next(lake, tmp_path, is_each):
    put(lake, "evaluations", {"study_id": "a", "run_id": "fit-m"})
    (stored,) = (path for path in data_files(lake, TABLES["axes"]) if b"fit-m" in path.read_bytes())
    stored.unlink()
    truncate(lake)
    root = shutil.copytree(lake, tmp_path / "whole")
    called = killed_at(None, STEPS, lambda: repair(root))
    expected = sorted((row["check"], row["row_count"]) for row in broken(root))
    commands = {command for item in repair_of(tmp_path, lake) for command in item.restore}
    for at in range(len(called)) if is_each else range(2, len(called), 9):
        root = shutil.copytree(lake, tmp_path / str(at))
        assert killed_at(at, STEPS, lambda root=root: repair(root)) == called[:at]
        again = repair(root)
        left = sorted((row["check"], row["row_count"]) for row in broken(root))
        assert left == expected, f"killed at step {at}"
        assert repair(root) == [] and not data_files(root, TABLES["evaluations"])[1:]
        if again:
            named = {command for item in again for command in item.restore}
            assert {each.partition(" --root")[0] for each in named} == {
                each.partition(" --root")[0] for each in commands
            }, f"killed at step {at}"


def repair_of(folder: Path, lake: Path) -> list[Repair]:
    return repair(shutil.copytree(lake, folder / "named"))


@pytest.mark.parametrize("name", [".ipynb_checkpoints/a.parquet", "model=m/.a.parquet"])
def test_hidden_files_are_no_rows_and_shut_nothing(lake: Path, name: str) -> None:
    before = contents(lake)
    hidden = lake / "activations" / name
    hidden.parent.mkdir(exist_ok=True)
    shutil.copy(chunk(lake), hidden)
    assert inspect_files(lake) == [] and contents(lake) == before
    assert len(scan("activations", lake).collect()) == len(before["activations"])
    assert len(rows(connect(lake), "select distinct file from v_stored")) == 6


def test_a_copy_is_never_adopted(lake: Path) -> None:
    path = duplicate(lake)
    (done,) = repair(lake, adopt=True)
    assert done.done.startswith("moved to") and not path.exists()


def test_the_command_reports_every_corruption_as_json_and_exits_with_one(lake: Path) -> None:
    deleted, label = delete(lake), edit_a_label(lake)
    result = axes("warehouse", "check", "--root", lake, "--format", "json")
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
    result = axes("warehouse", "check", "--root", lake)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1
