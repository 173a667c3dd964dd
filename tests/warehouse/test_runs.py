"""The provenance row of a job tells the truth about it at every instant."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from axes.warehouse.connection import connect, rows
from axes.warehouse.runs import code_version, record_run


def the_run(root: Path) -> dict[str, Any]:
    (row,) = rows(connect(root), "from runs")
    return row


def test_a_job_under_way_says_running_and_has_no_end(root: Path) -> None:
    with record_run(root, "axes ingest activations", {}):
        row = the_run(root)
    assert (row["status"], row["finished_at"], row["message"]) == ("running", None, None)
    assert row["command"] == "axes ingest activations"


def test_a_finished_job_is_one_row_with_its_counts_and_times(root: Path) -> None:
    before = datetime.now(UTC)
    with record_run(root, "job", {"model": "m", "at": Path("a/b")}, device="cpu", seed=7) as run:
        run.rows, run.tokens = 12, 3400
        run.skipped.append({"prompt_id": "p", "reason": "too long"})
        run.messages += ["fell back to eager attention", "halved the batch"]
    after = datetime.now(UTC)
    row = the_run(root)
    assert row["status"] == "finished"
    assert row["run_id"] == run.run_id
    assert json.loads(row["parameters"]) == {"at": "a/b", "model": "m"}
    assert (row["device"], row["seed"]) == ("cpu", 7)
    assert (row["rows"], row["tokens"]) == (12, 3400)
    assert row["skipped"] == [{"prompt_id": "p", "reason": "too long"}]
    assert row["message"] == "fell back to eager attention; halved the batch"
    assert before <= row["started_at"] <= row["finished_at"] <= after
    seconds = (row["finished_at"] - row["started_at"]).total_seconds()
    assert row["tokens_per_second"] == pytest.approx(3400 / seconds)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("no layer 40"), "failed", "remark; ValueError: no layer 40"),
        (SystemExit(), "failed", "remark; SystemExit: "),
        (KeyboardInterrupt(), "interrupted", "remark"),
    ],
)
def test_a_job_that_is_stopped_says_by_what_and_still_stops(root, error, status, message):
    with pytest.raises(type(error)), record_run(root, "job", {}) as run:
        run.rows = 5
        run.messages.append("remark")
        raise error
    row = the_run(root)
    assert (row["status"], row["message"], row["rows"]) == (status, message, 5)
    assert row["finished_at"] is not None


KILLED = """
import os, signal, sys
from pathlib import Path
from axes.warehouse.runs import record_run

with record_run(Path(sys.argv[1]), "job", {}):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_job_keeps_the_status_running(root: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, os.fspath(root)])
    assert killed.returncode == -signal.SIGKILL
    row = the_run(root)
    assert (row["status"], row["finished_at"]) == ("running", None)


def test_two_jobs_at_once_are_two_rows(root: Path) -> None:
    with record_run(root, "outer", {}) as outer, record_run(root, "inner", {}) as inner:
        pass
    assert outer.run_id != inner.run_id
    found = rows(connect(root), "select command, status from runs order by command")
    assert found == [
        {"command": "inner", "status": "finished"},
        {"command": "outer", "status": "finished"},
    ]


def test_the_versions_behind_a_result_are_kept_and_no_tokens_have_no_rate(root: Path) -> None:
    with record_run(root, "job", {}):
        pass
    row = the_run(root)
    assert row["tokens_per_second"] is None
    libraries = json.loads(row["library_versions"])
    assert row["code_version"] == code_version() == version("safety-axes")
    assert libraries["python"] == ".".join(map(str, sys.version_info[:3]))
    for name in ("torch", "transformers", "numpy", "pyarrow", "duckdb"):
        assert libraries[name] == version(name)


def test_a_stage_counts_its_own_time_and_not_that_of_one_inside(root: Path, monkeypatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 6.0, 10.0, 10.5])
    clocks = SimpleNamespace(perf_counter=lambda: next(clock))
    monkeypatch.setattr("axes.warehouse.runs.time", clocks)
    with record_run(root, "job", {"model": "m"}) as run:
        with run.stage("write"), run.stage("encode"):  # 0 to 6, and 1 to 4
            pass
        with pytest.raises(ValueError), run.stage("write"):  # 10 to 10.5
            raise ValueError
    (row,) = rows(connect(root), "select parameters, stage_seconds from v_runs")
    stages = {name: value for name, value in row["stage_seconds"].items() if value is not None}
    assert stages == {"write": 3.5, "encode": 3.0}
    assert json.loads(row["parameters"])["model"] == "m"
