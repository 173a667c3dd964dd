"""One worker of a pool: it loads the model once, runs chunks, and writes files it does not commit.

A worker whose files of the model or whose libraries are not the driver's is refused: its rows would
have the keys of other numbers.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from axes.ingest.jobs import ModelRow, open_job
from axes.ingest.models.load import model_row
from axes.ingest.models.registry import ModelSpec
from axes.ingest.requests import ModelRequest
from axes.ingest.sinks import Outbox
from axes.warehouse.errors import ModelError
from axes.warehouse.runs import Run, code_version, library_versions
from axes.warehouse.writer import SentFile


@dataclass(frozen=True)
class Opening:
    """What a worker has to know before it begins; see `Pool.start`."""

    root: Path
    spec: ModelSpec
    request: ModelRequest
    model_id: str
    versions: Mapping[str, str]
    run_id: str
    threads: int
    kind: Any
    options: Mapping[str, Any]


class Written(NamedTuple):
    """The files of a chunk, and what they took."""

    files: list[SentFile]
    tokens: int
    seconds: float
    stage_seconds: dict[str, float]
    messages: list[str]


class Worker:
    """An actor of Ray. Nothing happens in its `__init__`, whose errors Ray would wrap."""

    def start(self, opening: Opening) -> tuple[ModelRow, str]:
        """Load the model; returns its row, and the name of this machine."""
        import torch

        torch.set_num_threads(opening.threads)
        node = platform.node()
        require_versions(opening.versions, node)
        job = open_job(opening.root, opening.spec, opening.request)
        if job.identity.model_id != opening.model_id:
            raise ModelError(
                f"{node} has other files of {opening.spec.name} than the driver (key "
                f"{job.identity.model_id}, the driver's {opening.model_id}): give both the same"
            )
        self._root, self._model = opening.root, opening.spec.name
        self._run = Run(opening.root, "worker", {})
        self._run.run_id = opening.run_id
        loaded = job.load()
        self._session = opening.kind(self._run, loaded, **opening.options)
        return model_row(loaded, opening.run_id), node

    def ask(self, method: str, group: Any) -> Any:
        """What a method of the session gives."""
        return getattr(self._session, method)(group)

    def run(self, group: Any) -> Written:
        """Run a chunk and write its rows."""
        run, outbox, began = self._run, Outbox(self._root, self._model), time.monotonic()
        run.tokens, run.stage_seconds, run.messages = 0, {}, []
        self._session.run_group(group, outbox, lambda _: None)
        seconds = time.monotonic() - began
        return Written(outbox.files, run.tokens, seconds, run.stage_seconds, run.messages)


def versions() -> dict[str, str]:
    """The versions that a worker's have to equal."""
    return {"safety-axes": code_version(), **library_versions()}


def require_versions(expected: Mapping[str, str], node: str) -> None:
    """Raise `ModelError` where this process has other libraries than `expected`."""
    for name, version in {**expected, **versions()}.items():
        if version != expected.get(name):
            raise ModelError(
                f"{node} has {name} {version}, the driver {expected.get(name, 'none')}: "
                "install the same versions on every machine"
            )
