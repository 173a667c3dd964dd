"""The command binds this machine alone, says where, and ends with Ctrl-C."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from axes.explore.server import serve
from axes.warehouse.errors import RootError, ServingError
from tests.explored import put_explored


def test_it_prints_an_address_answers_there_and_ends_cleanly(tmp_path: Path) -> None:
    put_explored(tmp_path / "lake")
    main = "from axes.cli.main import main; main()"
    command = [sys.executable, "-c", main, "explore", "--no-browser"]
    with subprocess.Popen(
        [*command, "--root", str(tmp_path / "lake")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", address)
        with httpx2.Client(base_url=address, timeout=30) as client:
            assert "axes explore" in client.get("").text
            asked = client.post("sql", json={"sql": "select 1 as one"})
            assert asked.json()["rows"] == [[1]]
            assert "server" not in asked.headers
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        rest = process.stderr.read()
        assert rest.strip() == "press Ctrl-C to stop"


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServingError, match=f"port {port} .*--port"):
            serve(tmp_path, port=port, tell=print)


def test_a_folder_that_is_no_warehouse_is_refused_before_an_address_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(RootError):
        serve(tmp_path, tell=told.append)
    assert told == []
