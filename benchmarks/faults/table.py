"""The table of a campaign: tried, lost, mixed, unnoticed, unclear; and the page that holds it."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.faults.trials import Trial

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- written by make campaign -->", "<!-- end of what make campaign wrote -->"
BAD = ("lost", "mixed", "unnoticed", "unclear")
_Z = 1.96


@dataclass(frozen=True)
class Line:
    """The trials of one fault; `tried` counts faults, of which a trial of kills has several."""

    fault: str
    tried: int
    trials: int
    bad: dict[str, int]

    @property
    def bad_count(self) -> int:
        return sum(self.bad.values())

    @property
    def upper(self) -> float:
        """Wilson's 95 % upper bound of the share of faults that go wrong, one in a bad trial."""
        return wilson_upper(self.bad_count, self.tried)


def wilson_upper(count: int, trials: int) -> float:
    """The upper end of Wilson's 95 % interval of a share.

    >>> round(wilson_upper(0, 100), 3), round(wilson_upper(5, 100), 3)
    (0.037, 0.112)
    """
    if not trials:
        return 1.0
    share, square = count / trials, _Z**2
    spread = _Z * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    return (share + square / (2 * trials) + spread) / (1 + square / trials)


def lines(trials: Sequence[Trial], *, by_command: bool = False) -> list[Line]:
    """One line per fault, or per command that was killed."""
    grouped: dict[str, list[Trial]] = {}
    for trial in trials:
        grouped.setdefault(trial.command if by_command else trial.fault, []).append(trial)
    return [
        Line(
            fault=name,
            tried=sum(trial.count for trial in members),
            trials=len(members),
            bad={kind: sum(trial.verdict == kind for trial in members) for kind in BAD},
        )
        for name, members in grouped.items()
    ]


def markdown(trials: Sequence[Trial], *, seed: int, seconds: float) -> str:
    """The tables, on what and when they were measured, and everything that went wrong."""
    kills = [trial for trial in trials if trial.fault == "kill"]
    written = [
        f"{datetime.now(UTC):%Y-%m-%d}, {_machine()}, seed {seed}, {seconds / 60:.0f} minutes:",
        "",
        *_rows("fault", lines(trials)),
        "",
        f"The {sum(trial.count for trial in kills)} kills by command:",
        "",
        *_rows("command", lines(kills, by_command=True)),
    ]
    wrong = [trial for trial in trials if trial.verdict != "ok"]
    if wrong:
        written += ["", "What went wrong:", ""]
        written += [
            f"- {trial.fault}, {trial.command}, {trial.verdict}: {_short(trial.detail)}"
            for trial in wrong
        ]
    return "\n".join(written) + "\n"


def write_page(block: str, page: Path = PAGE) -> None:
    """Put the block between the page's two marks, which have to be there."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the campaign: {BEGIN} ... {END}")
    page.write_text(f"{before}{BEGIN}\n\n{block}\n{END}{after}")


def _rows(title: str, found: Iterable[Line]) -> list[str]:
    return [
        f"| {title} | tried | trials | {' | '.join(BAD)} | 95 % upper bound |",
        f"| --- | {'--- | ' * (len(BAD) + 3)}".rstrip(),
        *(
            f"| {line.fault} | {line.tried} | {line.trials} | "
            f"{' | '.join(str(line.bad[kind]) for kind in BAD)} | {line.upper:.1%} |"
            for line in found
        ),
    ]


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]} ..."
