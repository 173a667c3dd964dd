"""Ctrl-C, as a terminal sends it to a command: the batch is finished, committed, and said to be."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from axes.ingest.jobs import stops_between_batches
from tests.ingest.conftest import (
    ImportTexts,
    assert_checks_pass,
    forked,
    last_run,
    read,
)
from tests.ingest.processes import run_command

PROMPTS = 200
SMALL = {"activations": ["--token-budget", "1"], "traces": ["--batch-size", "1"]}
ASKED = {"activations": [], "traces": ["--max-new-tokens", "3"]}
TABLES = {"activations": "activations", "traces": "generations"}


@pytest.fixture(autouse=True)
def prompts(import_texts: ImportTexts) -> None:
    import_texts([f"prompt {index} {'x' * (index % 13)}" for index in range(PROMPTS)])


def start(kind: str, root: Path, model: Path, output: Path, sizes: list[str]) -> Any:
    arguments = ["ingest", kind, str(model), "--prompts", "texts", "--root", str(root)]
    process = forked(run_command, [*arguments, *ASKED[kind], *sizes], output)
    process.start()
    return process


def wait_for_batches(process: Any, root: Path) -> None:
    """Until the model is registered, which is just before the first batch, and a little more."""
    while process.is_alive() and len(list((root / "models").glob("*.parquet"))) < 2:
        time.sleep(0.002)
    time.sleep(0.1)


def done(root: Path, kind: str) -> int:
    found = f"select count(distinct prompt_id) as n from {TABLES[kind]}"
    return read(root, found)[0]["n"]


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_an_interrupted_job_commits_what_it_has_done_and_says_how_to_go_on(
    kind: str, root: Path, llama_folder: Path, tmp_path: Path
) -> None:
    process = start(kind, root, llama_folder, tmp_path / "output", SMALL[kind])
    wait_for_batches(process, root)
    os.kill(process.pid, signal.SIGINT)
    process.join(180)
    output = (tmp_path / "output").read_text()
    assert process.exitcode == 130, output
    assert "finishing the batch; Ctrl-C again stops at once" in output
    assert output.endswith("interrupted: run the same command again to go on from here\n")
    assert "Traceback" not in output
    row = last_run(root)
    assert row["status"] == "interrupted"
    kept = done(root, kind)
    assert 0 < kept < PROMPTS
    tokens = read(root, "select count(*) as n from generation_tokens")[0]["n"]
    assert row["rows"] == (4 * kept if kind == "activations" else tokens)
    assert_checks_pass(root)
    again = start(kind, root, llama_folder, tmp_path / "output", [])
    again.join(300)
    assert again.exitcode == 0
    assert done(root, kind) == PROMPTS
    assert last_run(root)["status"] == "finished"
    assert_checks_pass(root)


@pytest.mark.parametrize("kind", sorted(SMALL))
@pytest.mark.parametrize(
    "pause", [0.001, *(pytest.param(pause, marks=pytest.mark.campaign) for pause in (0.0, 0.004))]
)
def test_a_second_one_stops_at_once_and_leaves_a_sound_warehouse(
    kind: str, pause: float, root: Path, llama_folder: Path, tmp_path: Path
) -> None:
    process = start(kind, root, llama_folder, tmp_path / "output", SMALL[kind])
    wait_for_batches(process, root)
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(pause)
    process.join(180)
    assert process.exitcode not in (None, 0)
    assert done(root, kind) < PROMPTS
    assert_checks_pass(root)


@pytest.fixture
def sigint() -> Iterator[None]:
    """What a test makes of Ctrl-C ends with it."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_job_in_the_background_does_not_see_the_ctrl_c_of_the_foreground(sigint: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stops_between_batches() as check_interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        check_interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_one_that_comes_after_the_last_batch_is_not_lost(sigint: None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), stops_between_batches():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("line", range(1, 14))
def test_a_second_one_at_any_line_of_the_first_ones_handler_does_not_hang(line, sigint):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seen = itertools.count(1)

    def send(_frame: FrameType, event: str, _value: object) -> Any:
        if event == "line" and next(seen) == line:
            signal.raise_signal(signal.SIGINT)
        return send

    def give_up(_signal: int, _frame: Any) -> None:
        hung.append(line)
        raise TimeoutError

    hung: list[int] = []
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(10)
    try:
        with pytest.raises(KeyboardInterrupt), stops_between_batches():
            handler: Any = signal.getsignal(signal.SIGINT)
            sys.settrace(send)
            handler(signal.SIGINT, None)
    finally:
        sys.settrace(None)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert not hung
