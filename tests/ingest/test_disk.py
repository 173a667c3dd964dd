"""A disk that is full or read-only: one line, what was committed stays, and the job goes on later.

The kernel itself refuses: a small tmpfs where mounting is allowed, a limit on the size of files,
and permissions that hold for root too.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from axes.ingest.activations import ingest_activations
from axes.ingest.requests import ActivationRequest
from axes.warehouse.maintenance.check import check
from tests.ingest.conftest import (
    activation_rows,
    exit_codes,
    forked,
    ingest_texts,
    last_run,
    read,
)
from tests.ingest.processes import run_command
from tests.rows import put

PROMPTS = 100


def mount(*options: str) -> bool:
    return subprocess.run(["mount", *options], capture_output=True).returncode == 0


@pytest.fixture
def small_disk(root: Path, tmp_path: Path) -> Iterator[Path]:
    """An empty disk with room for a copy of the root and 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    pages = sum(-(-path.stat().st_size // 4096) for path in root.rglob("*") if path.is_file())
    size = f"size={4 * pages + 300}k"
    if shutil.which("mount") is None or not mount("-t", "tmpfs", "-o", size, "none", disk):
        pytest.skip("this user may not mount a disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def axes(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Run a command in a process of its own; its exit code and what it printed."""

    def run(*arguments: str | Path, **options: object) -> tuple[int, str]:
        output = tmp_path / "output"
        process = forked(run_command, [str(part) for part in arguments], output, **options)
        (code,) = exit_codes([process])
        assert code is not None
        return code, output.read_text()

    return run


def command(kind: str, model: Path, root: Path) -> list[str | Path]:
    """`axes ingest activations` or `traces` in small batches."""
    sizes = ["--token-budget", "30"] if kind == "activations" else ["--batch-size", "4"]
    generated = [] if kind == "activations" else ["--max-new-tokens", "8"]
    return ["ingest", kind, model, "--prompts", "texts", "--root", root, *sizes, *generated]


def assert_one_line(output: str, reason: str) -> None:
    """The error is the last line and the only one, beside the bars of progress."""
    lines = [line for line in output.splitlines() if "━" not in line and line.strip()]
    (error,) = (line for line in lines if "/s" not in line)
    assert error.startswith("Error: cannot write ") and reason in error


def assert_sound(root: Path) -> None:
    assert [row for row in check(root).to_pylist() if row["row_count"]] == []
    assert [path for path in root.rglob("*.tmp") if path.is_file()] == []


@pytest.fixture(autouse=True)
def known_import(root: Path) -> None:
    """The job that `import_texts` names as its own, written while there is room."""
    put(root, "runs", {"run_id": "none"})


def prompts_done(root: Path, kind: str) -> int:
    table = {"activations": "activations", "traces": "generations"}[kind]
    return read(root, f"select count(distinct prompt_id) as n from {table}")[0]["n"]


@pytest.mark.parametrize("kind", ["activations", "traces"])
def test_a_full_disk_stops_a_job_that_goes_on_when_there_is_room(
    kind, root, import_texts, llama_folder, small_disk, axes
):
    import_texts([f"prompt {index} {'x' * (index % 13)}" for index in range(PROMPTS)])
    lake = shutil.copytree(root, small_disk / "lake")
    for _ in range(2):
        code, output = axes(*command(kind, llama_folder, lake), small_commits=True)
        assert code == 1
        assert_one_line(output, "No space left on device")
        assert 0 < prompts_done(lake, kind) < PROMPTS
        assert_sound(lake)
    assert shutil.disk_usage(small_disk).free < 1 << 16, "the disk was full, not merely refused"
    assert mount("-o", "remount,size=64m", small_disk)
    code, output = axes(*command(kind, llama_folder, lake), small_commits=True)
    assert code == 0, output
    assert prompts_done(lake, kind) == PROMPTS
    assert_sound(lake)


def test_a_file_that_may_not_grow_is_taken_back_and_written_later(
    root, import_texts, llama, llama_folder, axes
):
    import_texts([f"prompt {index}" for index in range(PROMPTS)])
    ingest_activations(root, llama, ActivationRequest(prompt_sets={"texts": 5}))
    before = activation_rows(root)
    code, output = axes(*command("activations", llama_folder, root), file_limit=32 << 10)
    assert code == 1
    assert_one_line(output, "File too large")
    assert activation_rows(root).keys() == before.keys()
    row = last_run(root)
    assert (row["status"], row["rows"]) == ("failed", 0)
    assert "File too large" in row["message"] and "\n" not in row["message"]
    assert_sound(root)
    assert ingest_texts(root, llama).new_count == PROMPTS - 5
    assert_sound(root)


@pytest.mark.parametrize("kind", ["activations", "traces"])
def test_a_read_only_root_is_one_line(kind, root, import_texts, llama, llama_folder, axes):
    import_texts(["one", "two", "three"])
    ingest_activations(root, llama, ActivationRequest(prompt_sets={"texts": 2}))
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    files = list(before)
    for path in [*folders, *files]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        refused = command(kind, llama_folder, root)
        code, output = axes(*refused, is_bound_by_permissions=True)
        read = axes(
            *("sql", "select count(*) as n from activations", "--format", "csv", "--root", root),
            is_bound_by_permissions=True,
        )
    finally:
        for path in [*folders, *files]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert code == 1
    assert_one_line(output, "Permission denied")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert read == (0, "n\n8\n"), "reading needs no permission to write"
