"""Commands in processes of their own, forked from one that has imported everything and run nothing.

The process that plans the campaign never opens a warehouse: what it wants to know of one, a child
writes into a file.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.faults.disk import Fault, watch

# Seconds after which a command counts as hung.
PATIENCE = 180.0
_PRELOADED = (
    "benchmarks.faults.jobs",
    "pandas",
    "transformers.generation.utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, negative for a signal, None where it hung."""

    code: int | None
    output: str
    seconds: float
    call_count: int

    @property
    def is_killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def is_clear(self) -> bool:
        """Whether what it printed is for a user: no traceback, and an error's last line says so."""
        if self.code is None or "Traceback" in self.output:
            return False
        lines = self.output.strip().splitlines()
        return self.code == 0 or (bool(lines) and lines[-1].startswith("Error: "))


def start(target: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Start a process that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


@dataclass
class Bench:
    """A folder in which one warehouse after another is put, under one path, and hurt."""

    folder: Path

    @property
    def place(self) -> Path:
        """What a fault may hurt: the warehouse and what commands write elsewhere."""
        return self.folder / "place"

    @property
    def root(self) -> Path:
        return self.place / "lake"

    @property
    def journal(self) -> Path:
        return self.folder / "journal" / "a.json"

    def begin(self, words: Sequence[str], fault: Fault, *, name: str = "a") -> Started:
        """Start a command; those that run at once have names of their own."""
        receiver, sender = multiprocessing.Pipe(duplex=False)
        output = self.folder / f"output-{name}"
        journal = self.journal.with_name(f"{name}.json")
        process = start(_command, list(words), self.place, output, fault, journal, sender)
        sender.close()
        return Started(process, receiver, output, journal)

    def run(self, words: Sequence[str], fault: Fault | None = None) -> Ended:
        """Run a command to its end, or to its fault."""
        return self.begin(words, fault or Fault()).end()

    def run_limited(self, words: Sequence[str], file_bytes: int) -> Ended:
        """Run a command that may write no file of more than so many bytes."""
        receiver, sender = multiprocessing.Pipe(duplex=False)
        output = self.folder / "output-limited"
        process = start(_limited, list(words), self.place, output, file_bytes, self.journal, sender)
        sender.close()
        return Started(process, receiver, output, self.journal).end()

    def kill_within(self, words: Sequence[str], seconds: float, chance: random.Random) -> Ended:
        """Start a command and kill it at a random instant of so many seconds."""
        started = self.begin(words, Fault())
        started.wait()
        time.sleep(chance.uniform(0, seconds))
        return started.kill()

    def ask(self, target: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns in a process of its own; what it raises, as text."""
        answer = self.folder / "answer"
        answer.unlink(missing_ok=True)
        process = start(_answer, answer, target, *arguments)
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
        if not answer.exists():
            raise RuntimeError(f"{target.__name__} ended with {process.exitcode}")
        return pickle.loads(answer.read_bytes())


@dataclass
class Started:
    """A command under way."""

    process: multiprocessing.process.BaseProcess
    receiver: Connection
    output: Path
    journal: Path
    began: float = 0.0

    def wait(self) -> None:
        """Until its imports are done and its work begins."""
        if self.receiver.poll(PATIENCE):
            self.receiver.recv()
        self.began = time.perf_counter()

    def end(self) -> Ended:
        """Wait for its end."""
        if not self.began:
            self.wait()
        self.process.join(PATIENCE)
        is_hung = self.process.exitcode is None
        if is_hung:
            self.process.kill()
            self.process.join()
        seconds = time.perf_counter() - self.began
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        count = 0
        if self.journal.exists():
            count = json.loads(self.journal.read_text())["call_count"]
        self.receiver.close()
        return Ended(None if is_hung else self.process.exitcode, text, seconds, count)

    def kill(self) -> Ended:
        """Kill it now; its code tells whether it had ended before."""
        self.process.kill()
        return self.end()


def _answer(path: Path, target: Callable[..., Any], *arguments: Any) -> None:
    path.write_bytes(pickle.dumps(target(*arguments)))


def _limited(
    words: list[str], place: Path, output: Path, file_bytes: int, journal: Path, sender: Connection
) -> None:
    """A command under the kernel's limit on the size of files, which C++ libraries meet, too."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
    _command(words, place, output, Fault(), journal, sender)


def _command(
    words: list[str], place: Path, output: Path, fault: Fault, journal: Path, sender: Connection
) -> None:
    """Run `axes` as a shell would, with a commit for every batch; ends with its exit code."""
    from benchmarks.faults.jobs import main, prepare

    prepare(place.with_name("cache"))
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    journal.parent.mkdir(exist_ok=True)
    journal.unlink(missing_ok=True)
    watched = watch(place, fault, journal)
    sender.send(True)
    sender.close()
    sys.argv = ["axes", *words]
    try:
        main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        watched.save()
