"""One warehouse to look at, and its page as `axes explore` serves it, for tests that only read."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.explored import put_explored
from tests.once import made_once


@pytest.fixture(scope="session")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warehouse of `tests.explored`, not to be written to."""
    return made_once(tmp_path_factory, "explored", put_explored)


@pytest.fixture(scope="session")
def address(explored: Path) -> Iterator[str]:
    """Where the command serves the page, printed once; Ctrl-C has to end it cleanly."""
    main = "from axes.cli.main import main; main()"
    words = ["explore", "--no-browser", "--root", str(explored)]
    with subprocess.Popen(
        [sys.executable, "-c", main, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert process.stdout.read() == ""
        assert process.stderr.read().strip() == "press Ctrl-C to stop"
