"""A worker that waited answers as a new one does, once, and sees what came after it started."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from axes.warehouse.errors import QueryError
from axes.warehouse.safe import Limits, WarmWorkers, Worker, ask
from tests.rows import put

LIMITS = Limits(seconds=5, memory_mb=256, threads=1, result_mb=8)


@pytest.fixture
def workers(lake: Path) -> Iterator[WarmWorkers]:
    made = WarmWorkers(lake, LIMITS)
    yield made
    made.close()


def asked(workers: WarmWorkers, sql: str) -> list[dict]:
    with workers.worker() as worker:
        return ask(workers.root, sql, workers.limits, worker=worker).to_pylist()


def test_each_question_is_answered_by_a_process_of_its_own(workers: WarmWorkers) -> None:
    with workers.worker() as first, workers.worker() as second:
        assert first is not second
        assert first.answer("select 1 as one").to_pylist() == [{"one": 1}]
        assert first.is_over
        assert not second.is_over
    assert second.is_over, "one that was not asked is not given to anybody else"
    with workers.worker() as third:
        assert third not in (first, second)


def test_rows_written_while_a_worker_waits_are_seen(workers: WarmWorkers, lake: Path) -> None:
    counted = "select count(*) as n from prompts"
    before = asked(workers, counted)[0]["n"]
    put(lake, "prompts", {"prompt_set": "late", "prompt_id": "late", "run_id": "run"})
    assert asked(workers, counted) == [{"n": before + 1}]


def test_a_link_planted_while_a_worker_waits_is_refused(lake: Path, tmp_path: Path) -> None:
    worker = Worker(lake, LIMITS)
    # It has opened the warehouse when another, started later, has answered.
    ask(lake, "select 1", LIMITS)
    (tmp_path / "theirs").mkdir()
    (lake / "prompts" / "prompt_set=linked").symlink_to(tmp_path / "theirs")
    with pytest.raises(QueryError, match="prompt_set=linked is a link, and could lead out"):
        worker.answer("select 1")


def test_a_statement_that_breaks_its_process_costs_no_other(workers: WarmWorkers) -> None:
    with pytest.raises(QueryError):
        asked(workers, f"select {'(' * 40_000}1{')' * 40_000}")
    with pytest.raises(QueryError, match="safe mode"):
        asked(workers, "set memory_limit = '100GB'")
    assert asked(workers, "select 1 as one") == [{"one": 1}]


def test_a_worker_that_ended_while_it_waited_is_replaced(workers: WarmWorkers) -> None:
    for worker in list(workers._waiting):
        worker.stop()
    assert asked(workers, "select 1 as one") == [{"one": 1}]


def test_a_worker_ends_when_it_is_stopped_and_when_nobody_is_left(lake: Path) -> None:
    busy, idle = Worker(lake, LIMITS), Worker(lake, LIMITS)
    busy.stop()
    assert busy.is_over
    idle._process.stdin.close()
    assert idle._process.wait(timeout=30) == 0


def test_after_closing_none_waits(lake: Path) -> None:
    workers = WarmWorkers(lake, LIMITS, count=1)
    (waiting,) = workers._waiting
    workers.close()
    assert waiting.is_over
    started = time.monotonic()
    with workers.worker() as worker:
        assert worker.answer("select 1 as one").num_rows == 1
    assert not workers._waiting and time.monotonic() - started < 30
