"""Progress on stderr: rate and time left on every long step, nothing on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[int], None]


class _RateColumn(ProgressColumn):
    """Units per second over the last half minute."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.1f} {task.fields['unit']}/s" if rate else "", style="cyan")


@contextmanager
def track(description: str, total: int, unit: str) -> Iterator[Advance]:
    """Show a bar of `total` units; call what is yielded with the units done since the last call."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        task = progress.add_task(description, total=total, unit=unit)

        def advance(done: int) -> None:
            progress.advance(task, done)

        yield advance


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """Show a spinner with the time elapsed while a step of unknown length runs."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=28), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        task = progress.add_task(description, total=None)
        yield
        progress.update(task, total=1, completed=1)


def quiet_transformers() -> None:
    """Leave progress to this module: the library's own bars and notices off, its errors on."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def quiet_hub() -> None:
    """Leave out the hub library's line per retry; what fails in the end is said in one."""
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
            (enable_progress_bars if shown else disable_progress_bars)()
        yield
    finally:
        if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
            (disable_progress_bars if were_off else enable_progress_bars)()


def announce(text: str) -> None:
    """One line on stderr before a long step, for logs too, where no bar is drawn."""
    print(text, file=sys.stderr)


def byte_text(count: float) -> str:
    """Bytes in decimal units, as disks and hubs count them.

    >>> byte_text(15_242_000_000), byte_text(2_300), byte_text(0)
    ('15.24 GB', '2.30 kB', '0 B')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:.0f} B"
