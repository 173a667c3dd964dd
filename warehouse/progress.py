"""Progress of a job on stderr; only results go to stdout.

For people: bars with rate and time left on every long step, on a terminal and, where ipywidgets is
installed, in a notebook; a line every half minute elsewhere (nohup, CI).

For a program that watches the job (`--json-log`): all of stderr as one JSON object a line, each
with `time` (UTC), `level` (info, warning or error) and `event`, then the event's fields. A long
step is an event every few seconds. What other code prints (libraries, warnings, tracebacks) becomes
the event `message` with its `text`, so that every line is an object.
"""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TextIO

from axes.warehouse.render import visible

if TYPE_CHECKING:
    # Imported where a bar is drawn: `axes --help` must not wait for it.
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, Task
    from rich.text import Text

Advance = Callable[..., None]

# Seconds between two events of one step in a JSON log, and between two lines without a terminal.
_EVERY = 5.0
_LINE_EVERY = 30.0


@contextmanager
def track(description: str, total: int, unit: str) -> Iterator[Advance]:
    """Show a bar of `total` units; call what is yielded with the units done since the last call.

    A second argument is a better estimate of the total.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _rate_column(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with _bars(*columns) as progress:
        step = _Step(description, total, unit, is_drawn=not progress.disable)
        task = progress.add_task(visible(description), total=total, unit=unit)

        def advance(done: int, total: int | None = None) -> None:
            progress.update(task, total=total)
            progress.advance(task, done)
            step.advance(done, total)

        yield advance
    step.report("progress_end")


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """Show a spinner with the time elapsed while a step of unknown length runs.

    Where there is no terminal a thread tells the time elapsed every half minute instead.
    """
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        TimeElapsedColumn(),
    )
    started, ended = time.monotonic(), threading.Event()
    # The stream of now: a library that is run meanwhile may be silenced by another in its place.
    stream = sys.stderr

    def print_lines() -> None:
        while not ended.wait(_LINE_EVERY):
            spent = time.monotonic() - started
            if isinstance(stream, JsonLines):
                stream.emit("step", "info", {"step": description, "seconds": round(spent, 3)})
            else:
                elapsed = timedelta(seconds=round(spent))
                print(visible(f"{description}: {elapsed} so far"), file=stream)

    record("step", step=description)
    with _bars(*columns) as progress:
        task = progress.add_task(visible(description), total=None)
        if progress.disable:
            threading.Thread(target=print_lines, daemon=True).start()
        try:
            yield
        finally:
            ended.set()
        progress.update(task, total=1, completed=1)
    record("step_end", step=description, seconds=round(time.monotonic() - started, 3))


def _rate_column() -> ProgressColumn:
    """Units per second over the last half minute."""
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            return Text(f"{rate:,.1f} {task.fields['unit']}/s" if rate else "", style="cyan")

    return Rate()


def _bars(*columns: ProgressColumn) -> Progress:
    """Bars on a terminal, or as widgets in a notebook; rich heeds NO_COLOR.

    Elsewhere it would still draw the last state.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=sys.stderr)
    return Progress(
        *columns, console=console, disable=not (console.is_terminal or _has_widgets(console))
    )


def _has_widgets(console: Console) -> bool:
    """Whether this is a notebook that can show what rich draws there."""
    if not console.is_jupyter:
        return False
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        return False
    return True


class _Step:
    """What is told of one step where no bar is drawn: units done, rate and time left."""

    def __init__(self, description: str, total: int, unit: str, *, is_drawn: bool) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._is_drawn = is_drawn
        self._done = 0
        self._started = self._reported = time.monotonic()

    def advance(self, done: int, total: int | None = None) -> None:
        self._done += done
        self._total = self._total if total is None else total
        if time.monotonic() - self._reported >= (_LINE_EVERY if current() is None else _EVERY):
            self.report("progress")

    def report(self, event: str) -> None:
        self._reported = time.monotonic()
        spent = self._reported - self._started
        rate = self._done / spent if spent else 0.0
        left = (self._total - self._done) / rate if rate else None
        if event == "progress" and current() is None and not self._is_drawn:
            rest = "" if left is None else f", {timedelta(seconds=round(left))} left"
            done = f"{self._done:,} of {self._total:,} {self._unit}"
            announce(f"{self._description}: {done}, {rate:,.1f} {self._unit}/s{rest}")
        record(
            event,
            step=self._description,
            done=self._done,
            total=self._total,
            unit=self._unit,
            per_second=round(rate, 3),
            seconds=round(spent, 3),
            seconds_left=None if left is None else round(left, 3),
        )


def quiet_transformers() -> None:
    """Leave progress to this module: the library's own bars and notices off, its errors on."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def quiet_hub() -> None:
    """Leave out the hub library's line per retry; the final error is one line."""
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()


@contextmanager
def hub_bars(*, shown: bool) -> Iterator[None]:
    """Let the hub library draw its bars, or not: it alone knows how far each file is."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    were_off = are_progress_bars_disabled()
    try:
        if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
            is_drawn = shown and sys.stderr.isatty()
            (enable_progress_bars if is_drawn else disable_progress_bars)()
        yield
    finally:
        if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
            (disable_progress_bars if were_off else enable_progress_bars)()


def announce(text: str) -> None:
    """One line on stderr before a long step, for logs too, where no bar is drawn."""
    print(visible(text), file=sys.stderr)


def byte_text(count: float) -> str:
    """Bytes in decimal units, as disks and hubs count them.

    >>> byte_text(15_242_000_000), byte_text(2_300), byte_text(0)
    ('15.24 GB', '2.30 kB', '0 B')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:.0f} B"


class JsonLines(io.TextIOBase):
    """A text stream that writes each line to another one as an event."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pending = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._pending = re.split(r"[\r\n]", self._pending + text)
        for line in lines:
            self._tell(line)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def emit(self, event: str, level: str, fields: Mapping[str, object]) -> None:
        """Write one event."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"time": moment, "level": level, "event": event, **fields}
        self._stream.write(json.dumps(entry, default=str, ensure_ascii=False) + "\n")
        self._stream.flush()

    def finish_line(self) -> None:
        """Write the line that had no end yet."""
        rest, self._pending = self._pending, ""
        self._tell(rest)

    def _tell(self, line: str) -> None:
        if not line.strip():
            return
        word, _, rest = line.partition(": ")
        level = word.lower() if rest and word.lower() in ("error", "warning") else "info"
        self.emit("message", level, {"text": (line if level == "info" else rest).rstrip()})


def start() -> None:
    """Turn `sys.stderr` into JSON lines, from here on."""
    if current() is None:
        sys.stderr = JsonLines(sys.stderr)


def end(stderr: TextIO) -> None:
    """Give `sys.stderr` back, where it was turned."""
    if (lines := current()) is not None:
        lines.finish_line()
        sys.stderr = stderr


def current() -> JsonLines | None:
    """The stream, where the log is JSON."""
    return sys.stderr if isinstance(sys.stderr, JsonLines) else None


def record(event: str, *, level: str = "info", **fields: Any) -> None:
    """An event of the JSON log; nothing where stderr is for people."""
    if (lines := current()) is not None:
        lines.emit(event, level, fields)
