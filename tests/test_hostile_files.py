"""S2 to S6 and B6: names and files of a stranger's warehouse lead nowhere, and nothing waits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import polars as pl
import pytest
from starlette.testclient import TestClient

import axes
from axes.explore.server import application
from axes.ingest.models.hub import weight_files
from axes.warehouse.connection import connect
from axes.warehouse.errors import AxesError, ModelError, RootError
from axes.warehouse.maintenance.repair import repair
from axes.warehouse.storage.files import inside, parse_json, read_file
from axes.warehouse.storage.ledger import ledger_file, locked
from tests.commands import axes as run
from tests.rows import file_bytes
from tests.warehouse.sound import put_warehouse

SECONDS = 5
_PART = 5
COMMANDS = [
    ("list", "axes"),
    ("list", "studies"),
    ("list", "models"),
    ("sql", "from prompts"),
    ("sql", "--safe", "from prompts"),
    ("report", "-o", "{out}/report.html"),
    ("export", "x", "--to", "npz", "-o", "{out}/axis.npz"),
    ("activations", "export", "m", "--prompts", "seen", "--to", "npz", "-o", "{out}/rows.npz"),
    ("study", "claims"),
    ("study", "diff", "a", "b"),
    ("diagnose",),
    ("score", "x"),
    ("calibrate", "x", "--prompts", "seen"),
    ("evaluate", "m", "--prompts", "seen"),
    ("fit", "m", "--prompts", "seen"),
    ("drift", "--axis", "x"),
    ("explain", "x"),
    ("plan", "m", "--prompts", "seen"),
    ("doctor",),
    ("warehouse", "stats"),
    ("warehouse", "open", "{out}/one.duckdb"),
    ("warehouse", "subset", "{out}/subset"),
    ("warehouse", "compact"),
    ("warehouse", "migrate"),
    ("warehouse", "vacuum", "--min-age", "0"),
    ("warehouse", "check"),
    ("warehouse", "repair", "--dry-run"),
    ("warehouse", "repair", "--set-aside"),
]
FUNCTIONS: dict[str, Callable[[Path], object]] = {
    "connect": lambda root: axes.connect(root).sql("from v_prompts").fetchall(),
    "scan": lambda root: axes.scan("prompts", root).collect(),
    "read_study": lambda root: axes.read_study(root=root),
    "load_axis": lambda root: axes.load_axis("x", root=root),
}
ROUTES = ["catalog", "choices", "start", "prompts?prompt_set=seen", "layers", "differences"]

PLACES = [
    "warehouse.json",
    ".ledger/prompts.jsonl",
    ".ledger/repair.json",
    ".index/model=m/keys.parquet",
    ".locks/maintenance.lock",
    ".tmp/x",
    ".scratch",
    ".compacting",
    "warehouse.duckdb",
    "prompts/prompt_set=__none__/schema.parquet",
    "prompts/prompt_set=seen/x.parquet",
    "models/x.parquet",
]


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # The path of a socket may be no longer than 107 bytes.
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o666 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        path.symlink_to("/dev/zero")


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": _pipe,
    "socket": _socket,
    "device": _device,
    "link": lambda path: path.symlink_to(path.parents[3] / "victim.txt"),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "deep": lambda path: path.write_text("[" * 200_000),
    "empty": lambda path: path.write_text(""),
    "huge": lambda path: (path.touch(), os.truncate(path, 1 << 34)),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound") / "lake"
    put_warehouse(root)
    connect(root).close()
    return root


@pytest.fixture
def lake(sound: Path, tmp_path: Path) -> Path:
    """A warehouse deep in a folder of victims."""
    root = tmp_path / "a" / "b" / "lake"
    shutil.copytree(sound, root)
    for folder in (tmp_path, tmp_path / "a", root.parent):
        (folder / "victim.txt").write_text("a line that no command may move")
    return root


def around(root: Path) -> dict[str, bytes]:
    return {
        path.as_posix(): path.read_bytes()
        for path in root.parents[1].rglob("*")
        if not path.is_relative_to(root) and path.is_file()
    }


@contextmanager
def in_time() -> Iterator[None]:
    """Fails where the body takes longer than `SECONDS`."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def walk(root: Path, out: Path, commands: list[tuple[str, ...]] = COMMANDS) -> None:
    """Each command and function: an answer or one line, in time, nothing touched outside."""
    before = around(root)
    for words in commands:
        out.mkdir(exist_ok=True)
        filled = [word.replace("{out}", str(out)) for word in words]
        with in_time():
            result = run(*filled, "--root", root)
        error = result.exception
        trace = "".join(traceback.format_exception(error)[-6:])
        assert error is None or isinstance(error, SystemExit), f"{words}: {trace}"
        assert around(root) == before, words
    for function in FUNCTIONS.values():
        with in_time(), suppress(AxesError, duckdb.Error, pl.exceptions.PolarsError):
            function(root)
    assert around(root) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_s3_s4_b6_no_file_in_any_place_stops_a_command(lake, tmp_path, place, kind) -> None:
    path = lake / place
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    KINDS[kind](path)
    # Each command meets each place and each kind; all of them all pairs would take minutes.
    first = (PLACES.index(place) + list(KINDS).index(kind)) % _PART
    walk(lake, tmp_path / "out", COMMANDS[first::_PART])


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "deep"])
def test_s4_the_page_answers(lake: Path, kind: str) -> None:
    before = around(lake)
    with TestClient(application(lake, token="t", port=8), base_url="http://127.0.0.1:8/t/") as page:
        path = lake / "prompts" / "prompt_set=seen" / "x.parquet"
        KINDS[kind](path)
        for route in ROUTES:
            with in_time():
                assert page.get(route).status_code in (200, 400)
    assert around(lake) == before


NAMES = [
    "../victim.txt",
    "../../victim.txt",
    "prompts/../../victim.txt",
    "/dev/zero",
    "/etc/passwd",
    "prompts",
    "labels/x.parquet",
    "",
    "a\0b",
    "x" * 5000,
    7,
    None,
    ["prompts/x"],
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_s2_s3_a_name_in_a_ledger_is_never_a_path_outside(lake, tmp_path, name) -> None:
    event = {"file": name, "rows": 1, "size": 1, "sha256": "0", "runs": {}}
    written = [{**event, "event": each} for each in ("writing", "written", "writing")]
    with ledger_file(lake, "prompts").open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in written)
    finding = {"check": "file_lost", "path": name, "what": "", "table": "prompts", "runs": {}}
    (lake / ".ledger" / "repair.json").write_text(json.dumps([finding]))
    walk(lake, tmp_path / "out", [words for words in COMMANDS if words[0] == "warehouse"])
    assert not list((lake / ".quarantine").rglob("victim*"))


@pytest.mark.parametrize("name", ["../../../x", "/tmp/x", "a/b", "a\0b", "\n", "x" * 300])
def test_s5_a_lock_lies_in_the_folder_of_locks(lake: Path, name: str) -> None:
    before = around(lake)
    try:
        with locked(lake, name):
            assert all(path.parent == lake / ".locks" for path in lake.rglob("*.lock"))
    except RootError:
        assert len(name) > 255
    assert around(lake) == before


@pytest.mark.parametrize("name", ["/dev/zero", "../victim.safetensors", "", 7, "a\0b"])
def test_s6_an_index_of_weights_names_no_file_outside(tmp_path: Path, name: object) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match="cannot be read"):
        weight_files(tmp_path)


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../../b", "~", "a\0", ".", None, 3])
def test_s2_a_name_that_is_no_path_inside_is_refused(name) -> None:
    with pytest.raises(RootError, match="is no name of a file"):
        inside(Path("folder"), name)


def test_s3_a_file_is_regular_and_bounded(tmp_path: Path) -> None:
    for kind in ("pipe", "socket", "device"):
        KINDS[kind](tmp_path / kind)
        with pytest.raises((RootError, OSError)), in_time():
            read_file(tmp_path / kind)
    (tmp_path / "file").write_bytes(b"12345")
    assert read_file(tmp_path / "file", 5) == b"12345"
    with pytest.raises(RootError, match="more than 4 bytes"):
        read_file(tmp_path / "file", 4)
    with pytest.raises(ValueError, match="too deep"):
        parse_json("[" * 200_000)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": "x"}', None])
def test_s3_a_damaged_marker_is_recovered(lake: Path, content: bytes | None) -> None:
    marker = lake / "warehouse.json"
    before = file_bytes(lake / "prompts"), marker.read_bytes()
    marker.unlink()
    if content is not None:
        marker.write_bytes(content)
        with pytest.raises(RootError, match="axes warehouse repair"):
            connect(lake)
    assert [each.path for each in repair(lake, is_dry_run=True)] == ["warehouse.json"]
    assert [each.path for each in repair(lake)] == ["warehouse.json"]
    assert (file_bytes(lake / "prompts"), marker.read_bytes()) == before
    assert repair(lake) == []


def test_s3_a_marker_of_unknown_tables_is_not_made_up(lake: Path) -> None:
    (lake / "warehouse.json").write_bytes(b"")
    (lake / "prompts" / "prompt_set=__none__" / "schema.parquet").write_bytes(b"")
    with pytest.raises(RootError, match="cannot be read"):
        repair(lake)


def test_b9_an_address_that_is_refused_is_not_repeated() -> None:
    from axes.ingest.labels.judge import JudgeClient
    from axes.warehouse.errors import LabelError

    for address in ("ftp://user:key@host/v1", "user:key@host", "//user:key@host", "key"):
        with pytest.raises(LabelError) as raised:
            JudgeClient(address, "model")
        assert "key" not in str(raised.value).replace("give a key in", "")


def test_s7_the_page_does_not_tell_where_the_warehouse_lies(lake: Path) -> None:
    with TestClient(application(lake, token="t", port=8), base_url="http://127.0.0.1:8/t/") as page:
        (lake / "prompts" / "prompt_set=seen" / "x.parquet").write_bytes(b"no Parquet")
        answers = [page.get(route) for route in ROUTES]
    assert 400 in {answer.status_code for answer in answers}
    assert not any(str(lake) in answer.text for answer in answers)
