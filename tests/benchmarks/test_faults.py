"""A short campaign of faults, and that the long one would see what goes wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults import COMMANDS, campaign, shares
from benchmarks.faults.disk import Fault, watch
from benchmarks.faults.jobs import Seen
from benchmarks.faults.power import cut_power
from benchmarks.faults.processes import start
from benchmarks.faults.table import BEGIN, END, lines, markdown, wilson_upper, write_page
from benchmarks.faults.trials import Laboratory, Trial, compare

# Those that need no model.
NAMES = ("warehouse init", "warehouse migrate", "prompts import")
SEEN = Seen({"labels": {("p",): (1, 0.5)}}, [], {"axis.json": "digest"}, [], [])


@pytest.fixture
def trials(tmp_path: Path) -> Iterator[Trial]:
    commands = [command for command in COMMANDS if command.name in NAMES]
    counts = {"kills": 12, "power_cuts": 3, "refusals": 3, "damages": 3}
    return campaign(Laboratory(tmp_path / "bench"), commands, **counts)


def test_twenty_faults_lose_and_mix_nothing(trials: Iterator[Trial]) -> None:
    tried = list(trials)
    assert [trial for trial in tried if trial.verdict != "ok"] == []
    counted = {line.fault: line.tried for line in lines(tried)}
    assert counted["kill"] >= 6 and counted["refused write"] == counted["damaged file"] == 3
    assert counted["power cut"] + counted.get("power cut after the end", 0) == 3


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"rows": {"labels": {}}}, "lost"),
        ({"rows": {"labels": {("p",): (1, 0.5), ("q",): (1, 0.5)}}}, "mixed"),
        ({"rows": {"labels": {("p",): (0, 0.5)}}}, "mixed"),
        ({"rows": {"labels": {("p",): (1, 0.5001)}}}, "mixed"),
        ({"rows": {"labels": {("p",): (1, 0.5 + 1e-15)}}}, "ok"),
        ({"doubled": ["labels"]}, "mixed"),
        ({"outputs": {}}, "lost"),
        ({"outputs": {"axis.json": "other"}}, "mixed"),
        ({"findings": ["file_lost labels/a.parquet"]}, "unclear"),
        ({"rules": ["runs_rows_present"]}, "unclear"),
        ({"rules": None}, "ok"),
    ],
)
def test_what_is_missing_or_different_is_seen(change: dict, verdict: str) -> None:
    assert compare(SEEN._replace(**change), SEEN)[0] == verdict


def write_and_rename(folder: Path, journal: Path, is_flushed: bool) -> None:
    """A new file under its last name, flushed or not."""
    watched = watch(folder, Fault("power cut"), journal)
    with (folder / "a.tmp").open("wb") as file:
        file.write(b"content")
        file.flush()
        if is_flushed:
            os.fsync(file.fileno())
    (folder / "a.tmp").rename(folder / "a")
    if is_flushed:
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
    watched.save()


@pytest.mark.parametrize("is_flushed", [False, True])
def test_a_power_cut_takes_what_was_not_flushed_and_nothing_else(
    tmp_path: Path, is_flushed: bool
) -> None:
    outcomes = set()
    for seed in range(8):
        folder, journal = tmp_path / f"{seed}" / "place", tmp_path / f"{seed}" / "journal"
        folder.mkdir(parents=True)
        (folder / "a").write_bytes(b"older")
        process = start(write_and_rename, folder, journal, is_flushed)
        process.join(60)
        assert process.exitcode == 0
        cut_power(folder, journal, random.Random(seed))
        outcomes.add((folder / "a").read_bytes() if (folder / "a").exists() else None)
    assert outcomes == {b"content"} if is_flushed else b"older" in outcomes and len(outcomes) > 2


def test_every_command_gets_its_share_of_the_kills() -> None:
    counts = shares(COMMANDS, 1_000)
    assert sum(counts.values()) == 1_000 and {*counts} == {*COMMANDS}


def test_the_page_has_a_row_per_fault_and_says_what_went_wrong(tmp_path: Path) -> None:
    tried = [
        Trial("kill", "fit", "ok", 7),
        Trial("kill", "fit", "lost", 3, "2 rows of axes"),
        Trial("damaged file", "labels", "ok"),
    ]
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    write_page(markdown(tried, seed=1, seconds=60), page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert f"| kill | 10 | 2 | 1 | 0 | 0 | 0 | {wilson_upper(1, 10):.1%} |" in text
    assert "- kill, fit, lost: 2 rows of axes" in text
    page.write_text("none")
    with pytest.raises(ValueError, match="no place for the campaign"):
        write_page("", page)
