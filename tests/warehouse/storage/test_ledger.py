"""A lock is free when its holder ends, however it ends; a ledger is right after any kill."""

from __future__ import annotations

import hashlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import axes.warehouse.storage.ledger
from axes.warehouse.errors import RootError
from axes.warehouse.storage.ledger import (
    Entry,
    Record,
    held_locks,
    ledger_file,
    read_ledger,
    record,
    removing,
    settle,
    write_ledger,
    writing,
)
from axes.warehouse.storage.store import committing, locked
from tests.warehouse.sound import Killed

KILLED = """
import os, signal, sys
from pathlib import Path
from axes.warehouse.storage.ledger import locked

with locked(Path(sys.argv[1]), "job"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> queue.SimpleQueue[str]:
    """What is said; capsys could lose what a thread prints while it is read."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    monkeypatch.setattr(axes.warehouse.storage.ledger, "echo", lambda line, err: lines.put(line))
    return lines


def test_whoever_comes_second_says_so_and_waits(tmp_path, said):
    events: list[str] = []

    def second() -> None:
        with locked(tmp_path, "job", notice="waiting"):
            events.append("second")

    thread = threading.Thread(target=second)
    with locked(tmp_path, "job", notice="not said"):
        thread.start()
        assert said.get(timeout=60) == "waiting"
        with locked(tmp_path, "other", notice="not said"):
            events.append("first")
    thread.join(10)
    assert events == ["first", "second"]
    assert said.empty()


def test_a_lock_that_does_not_come_free_is_named(tmp_path, said, monkeypatch):
    monkeypatch.setattr(axes.warehouse.storage.ledger, "_PATIENCE", 0.05)
    is_done = threading.Event()

    def second() -> None:
        with locked(tmp_path, "prompts"):
            is_done.set()

    thread = threading.Thread(target=second)
    with locked(tmp_path, "prompts"):
        thread.start()
        assert f"waiting for {tmp_path / '.locks' / 'prompts.lock'}: " in said.get(timeout=60)
        assert not is_done.is_set()
    thread.join(10)
    assert is_done.is_set()


def test_versions_of_a_model_commit_in_turn_and_other_models_meanwhile(tmp_path: Path) -> None:
    with committing(tmp_path, "owner/name"), committing(tmp_path, "owner/other"):
        files = sorted(path.name for path in (tmp_path / ".locks").iterdir())
    assert files == ["owner%2Fname.commit.lock", "owner%2Fother.commit.lock"]


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / ".locks" / "job.lock").exists()
    with locked(tmp_path, "job", notice="not said"):
        assert [path.name for path in (tmp_path / ".locks").iterdir()] == ["job.lock"]


def test_a_lock_is_let_go_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path, "job", notice="not said"):
            raise KeyError


def test_a_lock_that_cannot_be_made_is_a_root_error(tmp_path: Path) -> None:
    (tmp_path / ".locks").write_text("a file in the way")
    with pytest.raises(RootError, match="cannot write .*job.lock"), locked(tmp_path, "job"):
        pytest.fail("locked")


def test_a_refusal_is_raised_instead_of_waiting(tmp_path: Path) -> None:
    with (
        locked(tmp_path, "job"),
        pytest.raises(RootError, match="come back later"),
        locked(tmp_path, "job", refusal="come back later"),
    ):
        pytest.fail("held by two")
    with locked(tmp_path, "job", refusal="come back later"):
        pass


def test_held_locks_are_named_in_order_and_free_ones_are_not(tmp_path: Path) -> None:
    with locked(tmp_path, "free"):
        pass
    with locked(tmp_path, "second"), locked(tmp_path, "first"):
        assert held_locks(tmp_path) == ["first", "second"]
    assert held_locks(tmp_path) == []


def test_a_lock_that_cannot_be_opened_is_a_root_error(tmp_path: Path) -> None:
    (tmp_path / ".locks" / "job.lock").mkdir(parents=True)
    with pytest.raises(RootError, match="cannot open .*job.lock"):
        held_locks(tmp_path)


def stored(content: bytes, name: str = "run") -> Record:
    """The record of a file with this content, computed here."""
    return Record(
        len(content), len(content), hashlib.sha256(content).hexdigest(), {name: len(content)}
    )


def write(root: Path, name: str, content: bytes, killed: str = "never") -> None:
    """Put a file in its place as a store does, killed `before` or `after` its rename."""
    path = root / name
    with suppress(Killed), writing(root, "runs", {path: stored(content)}):
        if killed == "before":
            raise Killed
        path.write_bytes(content)
        if killed == "after":
            raise Killed


def remove(root: Path, name: str, killed: str = "never") -> None:
    with suppress(Killed), removing(root, "runs", [root / name]):
        if killed == "before":
            raise Killed
        (root / name).unlink()
        if killed == "after":
            raise Killed


_steps = st.tuples(
    st.sampled_from(["write", "remove", "settle"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from([b"1", b"22", b"333"]),
    st.sampled_from(["never", "before", "after"]),
)


@given(st.lists(_steps, max_size=12))
def test_no_kill_is_taken_for_damage_and_settling_finds_what_it_left(steps) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for step, name, content, killed in steps:
            if step == "write":
                write(root, name, content, killed)
            elif step == "settle":
                settle(root, "runs")
            elif (root / name).exists():
                remove(root, name, killed)
                assert killed != "never" or name not in read_ledger(root, "runs")
            entries = read_ledger(root, "runs")
            files = {each.name: each.read_bytes() for each in root.glob("[ab]")}
            for each, found in files.items():
                assert entries[each].has(stored(found).sha256)
            assert {each for each, entry in entries.items() if entry.is_due} <= set(files)
            if step == "write" and killed == "never":
                assert entries[name] == Entry([stored(content)], is_due=True)
        settle(root, "runs")
        assert read_ledger(root, "runs") == {
            each.name: Entry([stored(each.read_bytes())], is_due=True) for each in root.glob("[ab]")
        }


def test_settling_does_not_forget_a_file_that_is_missing_or_damaged(tmp_path: Path) -> None:
    for name in ("deleted", "replaced", "damaged"):
        write(tmp_path, name, b"1")
    write(tmp_path, "new", b"1", killed="before")
    for name in ("replaced", "damaged", "new"):
        write(tmp_path, name, b"22", killed="after")
    for name in ("damaged", "new"):
        (tmp_path / name).write_bytes(b"neither")
    for name in ("deleted", "replaced"):
        (tmp_path / name).unlink()
    two = [stored(b"1"), stored(b"22")]
    for _ in range(2):
        settle(tmp_path, "runs")
        assert read_ledger(tmp_path, "runs") == {
            "deleted": Entry(two[:1], is_due=True),
            **dict.fromkeys(("replaced", "damaged", "new"), Entry(two, is_due=True)),
        }


def test_the_lines_of_a_ledger_stay_as_they_are(tmp_path: Path) -> None:
    # Ledgers of older versions are read: other names or values here would be taken for damage.
    digest = hashlib.sha256(b"1").hexdigest()
    added = (
        '{"event": "writing", "file": "a", "rows": 1, "runs": {"run": 1}, '
        f'"sha256": "{digest}", "size": 1}}\n'
        f'{{"event": "written", "file": "a", "sha256": "{digest}"}}\n'
    )
    write(tmp_path, "a", b"1")
    remove(tmp_path, "a")
    taken = '{"event": "removing", "file": "a"}\n{"event": "removed", "file": "a"}\n'
    assert (tmp_path / ".ledger" / "runs.jsonl").read_text() == added + taken
    write_ledger(ledger_file(tmp_path, "new"), {"b": stored(b"1"), "a": stored(b"1")})
    written = (tmp_path / ".ledger" / "new.jsonl").read_text()
    assert written == added + added.replace('"a"', '"b"')


def test_an_intent_is_on_the_disk_before_its_file_is(tmp_path, monkeypatch):
    flushed: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda number: flushed.append(Path(f"/proc/self/fd/{number}").readlink().name)
    )
    for names in ([tmp_path.name, "runs.jsonl", ".ledger"], ["runs.jsonl"]):
        with writing(tmp_path, "runs", {tmp_path / "a": stored(b"1")}):
            assert flushed == names
        assert flushed == names
        flushed.clear()
    with removing(tmp_path, "runs", [tmp_path / "a"]):
        assert flushed == ["runs.jsonl"]
    assert flushed == ["runs.jsonl"]


def test_a_torn_line_costs_no_other_line(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path, name, b"1")
    path = ledger_file(tmp_path, "runs")
    content = path.read_bytes()
    for cut in range(len(content)):
        path.write_bytes(content[:cut] + b"\n")
        expected = read_ledger(tmp_path, "runs")
        path.write_bytes(content[:cut])
        write(tmp_path, "c", b"333")
        assert read_ledger(tmp_path, "runs") == {**expected, "c": Entry([stored(b"333")], True)}
        assert b"\n\n" not in path.read_bytes()


@pytest.mark.parametrize(
    "line",
    [
        *(b"null", b"[]", b"3", b'"file"', b"{}", b"\xff\xfe", b"\0" * 9, b"{", b'{"file": "a"}'),
        b"[" * 100_000,
        b'{"event": "writing", "file": "a"}',
        b'{"event": "written", "file": "a"}',
        b'{"event": "written", "file": "gone", "sha256": "x"}',
        b'{"event": "removing", "file": "gone"}',
        b'{"event": "removed", "file": "gone"}',
        b'{"event": "removed", "file": ["a"]}',
        b'{"event": "other", "file": "a"}',
    ],
)
def test_a_line_that_is_no_event_of_a_file_changes_nothing(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, "a", b"1")
    path = ledger_file(tmp_path, "runs")
    path.write_bytes(path.read_bytes() + line + b"\n")
    write(tmp_path, "b", b"1")
    assert read_ledger(tmp_path, "runs") == dict.fromkeys("ab", Entry([stored(b"1")], is_due=True))


def test_an_entry_knows_each_of_its_records_and_the_jobs_of_the_last(tmp_path: Path) -> None:
    entry = Entry([Record(1, 1, "ab", {"old": 1}), Record(2, 2, "cd", {"new": 2})])
    assert [entry.has(digest) for digest in ("ab01", "cd", "a", "01ab")] == [
        True,
        True,
        False,
        False,
    ]
    assert entry.runs == {"new": 2}
    (tmp_path / "file").write_bytes(b"333")
    assert record(tmp_path / "file", 3, {"run": 3}) == stored(b"333")
