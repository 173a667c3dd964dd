"""A lock is held by one at a time, and is free when its holder ends, however it ends."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import axes.warehouse.ledger
from axes.warehouse.errors import RootError
from axes.warehouse.storage.store import committing, locked

KILLED = """
import os, signal, sys
from pathlib import Path
from axes.warehouse.ledger import locked

with locked(Path(sys.argv[1]), "job"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> queue.SimpleQueue[str]:
    """What is said; capsys could lose what a thread prints while it is read."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    monkeypatch.setattr(axes.warehouse.ledger, "echo", lambda line, err: lines.put(line))
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
    monkeypatch.setattr(axes.warehouse.ledger, "_PATIENCE", 0.05)
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
