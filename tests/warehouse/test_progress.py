from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from types import SimpleNamespace

import click
import pytest

from axes.warehouse import progress
from axes.warehouse.progress import announce, track, waiting
from axes.warehouse.runs import record_run


def started(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What stderr holds, now that the log is JSON; a fixture would come before pytest's own."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    progress.start()
    return stream


def events(log: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_whatever_is_printed_becomes_an_event(monkeypatch):
    log = started(monkeypatch)
    print("half a ", end="", file=sys.stderr)
    print('line with "quotes"\n\nand another\r', file=sys.stderr)
    click.echo("warning: little", err=True)
    click.echo("Error: much", err=True)
    announce("download m: 1 GB")
    found = events(log)
    assert all(event.keys() == {"time", "level", "event", "text"} for event in found)
    assert [(event["level"], event["text"]) for event in found] == [
        ("info", 'half a line with "quotes"'),
        ("info", "and another"),
        ("warning", "little"),
        ("error", "much"),
        ("info", "download m: 1 GB"),
    ]


def test_a_step_tells_how_far_it_is_how_fast_and_what_is_left(monkeypatch):
    log = started(monkeypatch)
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("axes.warehouse.progress.time", clock)
    with track("ingest m", 40, "tok") as advance:
        for now, done in ((4.0, 8), (10.0, 12), (20.0, 20)):  # The first comes too soon.
            clock.now = now
            advance(done)
    half, all_of_it, end = events(log)
    assert half["event"] == "progress" and half["step"] == "ingest m"
    assert (half["done"], half["total"], half["unit"]) == (20, 40, "tok")
    assert (half["per_second"], half["seconds_left"]) == (2.0, 10.0)
    assert all_of_it["done"] == end["done"] == 40
    assert end["event"] == "progress_end" and end["seconds_left"] == 0.0


def test_without_a_terminal_a_line_is_printed_every_half_minute(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("axes.warehouse.progress.time", clock)
    with track("ingest m", 4000, "tok") as advance:
        for now, done in ((29.0, 900), (40.0, 100), (69.0, 500), (80.0, 2500)):
            clock.now = now
            advance(done)
    assert stream.getvalue().splitlines() == [
        "ingest m: 1,000 of 4,000 tok, 25.0 tok/s, 0:02:00 left",
        "ingest m: 4,000 of 4,000 tok, 50.0 tok/s, 0:00:00 left",
    ]


def test_without_a_terminal_a_wait_is_told_even_where_stderr_is_silenced(monkeypatch):
    monkeypatch.setattr("axes.warehouse.progress._LINE_EVERY", 0.01)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with waiting("convert m"), contextlib.redirect_stderr(io.StringIO()):
        deadline = time.monotonic() + 10
        while not stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert stream.getvalue().startswith("convert m: 0:00:00 so far\n")
    told = stream.getvalue()
    time.sleep(0.05)
    assert stream.getvalue() == told


def test_waiting_and_runs_are_told(monkeypatch, root):
    log = started(monkeypatch)
    with waiting("load m"):
        pass
    with pytest.raises(ValueError), record_run(root, "score", {}) as run, run.stage("plan"):
        raise ValueError("no")
    found = events(log)
    assert [event["event"] for event in found] == ["step", "step_end", "run", "run"]
    assert [event.get("status") for event in found[2:]] == ["running", "failed"]
    assert found[3]["stage_seconds"]["plan"] >= 0
    assert found[3]["level"] == "error" and found[3]["message"] == "ValueError: no"


def test_the_end_writes_the_line_that_was_begun_and_gives_stderr_back(monkeypatch):
    log = started(monkeypatch)
    print("no end", end="", file=sys.stderr)
    progress.end(log)
    assert events(log)[0]["text"] == "no end"
    assert sys.stderr is log
    progress.record("nothing")
    assert len(events(log)) == 1


@pytest.mark.parametrize("step", [lambda: track("s", 1, "u"), lambda: waiting("s")])
def test_nothing_is_drawn_where_stderr_is_no_terminal(step, capsys):
    with step():
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("is_notebook", "widgets", "is_drawn"),
    [(True, SimpleNamespace(), True), (True, None, False), (False, SimpleNamespace(), False)],
)
def test_bars_are_drawn_in_a_notebook_that_has_widgets(monkeypatch, is_notebook, widgets, is_drawn):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: is_notebook)
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    assert progress._bars().disable is not is_drawn
