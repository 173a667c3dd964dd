"""A provenance row per job: written when it starts, replaced when it ends.

A job that is killed keeps the status `running` and no end time, which is the truth about it.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from axes.warehouse import progress
from axes.warehouse.errors import RootError
from axes.warehouse.settings import command_line
from axes.warehouse.writer import rows_table, write_rows

_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow", "duckdb", "scikit-learn")


@dataclass
class Run:
    """A job under way; the counters are set by the job, the rest by `record_run`."""

    root: Path
    command: str
    parameters: Mapping[str, Any]
    device: str | None = None
    seed: int | None = None
    rows: int = 0
    tokens: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    command_line: str | None = field(default_factory=command_line)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    run_id: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    # What each worker did, of a job that spreads over several.
    shares: list[dict[str, object]] = field(default_factory=list)
    _nested: float = 0.0

    def __post_init__(self) -> None:
        self.run_id = f"{self.started_at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the body as of this stage, and not as of one around it."""
        outer, self._nested, started = self._nested, 0.0, time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.stage_seconds[name] = self.stage_seconds.get(name, 0.0) + spent - self._nested
            self._nested = outer + spent

    def row(self, status: str, finished_at: datetime | None) -> dict[str, object]:
        """The job's row of `runs`."""
        seconds = (finished_at - self.started_at).total_seconds() if finished_at else 0.0
        parameters = {**self.parameters}
        if self.stage_seconds:
            parameters["stage_seconds"] = self.stage_seconds
        if self.shares:
            parameters["shares"] = self.shares
        return {
            "run_id": self.run_id,
            "command": self.command,
            "parameters": json.dumps(parameters, sort_keys=True, default=str),
            "command_line": self.command_line,
            "status": status,
            "message": "; ".join(self.messages) or None,
            "code_version": code_version(),
            "library_versions": json.dumps(library_versions(), sort_keys=True),
            "device": self.device,
            "seed": self.seed,
            "rows": self.rows,
            "tokens": self.tokens,
            "tokens_per_second": self.tokens / seconds if self.tokens and seconds else None,
            "skipped": self.skipped,
            "started_at": self.started_at,
            "finished_at": finished_at,
        }

    def write(self, status: str) -> None:
        row = self.row(status, None if status == "running" else datetime.now(UTC))
        write_rows(self.root, "runs", rows_table("runs", [row]), name=self.run_id)
        columns = ("run_id", "command", "status", "rows", "tokens", "tokens_per_second", "message")
        level = "error" if status == "failed" else "info"
        fields = {name: row[name] for name in columns} | {"stage_seconds": self.stage_seconds}
        progress.record("run", level=level, **fields)


@contextmanager
def record_run(
    root: Path,
    command: str,
    parameters: Mapping[str, Any],
    *,
    device: str | None = None,
    seed: int | None = None,
    options: str = "",
) -> Iterator[Run]:
    """Yield a `Run`; its row says running, and at the end finished, failed or interrupted.

    `options` are appended to the command line: defaults that depend on the machine.
    """
    run = Run(root, command, parameters, device=device, seed=seed)
    if run.command_line is not None:
        run.command_line += options
    run.write("running")
    try:
        yield run
    except BaseException as error:
        is_interrupt = isinstance(error, KeyboardInterrupt)
        if not is_interrupt:
            run.messages.append(f"{type(error).__name__}: {error}")
        # Where the disk is full the row cannot be written either: the error is the one to report.
        with contextlib.suppress(RootError):
            run.write("interrupted" if is_interrupt else "failed")
        raise
    run.write("finished")


@cache
def code_version() -> str:
    """The installed version of this package."""
    return version("safety-axes")


@cache
def library_versions() -> dict[str, str]:
    """The version of Python and of each library that numbers depend on."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
