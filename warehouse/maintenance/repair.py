"""Set broken files aside, and say which command writes their rows again. Nothing is deleted.

What is taken out of a table goes to ROOT/.quarantine/<time>/, under its path. A lost file is
struck off the ledger; how many rows of which job are then missing goes into the repair's row of
`runs`, so that the rule which counts rows against jobs knows of them.
The command that restores rows is the one that wrote them: `runs.command_line`.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from axes.warehouse.connection import connect_tables, rows
from axes.warehouse.errors import AxesError, RootError
from axes.warehouse.layout import data_files, empty_file, require_root, write_empty_file
from axes.warehouse.ledger import LEDGER, maintenance_lock, removing, settle, table_lock, writing
from axes.warehouse.maintenance.check import Finding, inspect_file, inspect_files
from axes.warehouse.runs import record_run
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import read_record, sync_folder

QUARANTINE = ".quarantine"

# A study is not fitted again while its evaluations are stored: they go with what they rest on.
_FITTED = ("axes", "alignments", "projections", "token_projections")


@dataclass(frozen=True)
class Repair:
    """What was done about one finding, and the commands that restore its rows."""

    check: str
    path: str
    what: str
    done: str
    restore: tuple[str, ...]


def repair(root: Path, *, adopt: bool = False) -> list[Repair]:
    """Set aside every file that `inspect_files` complains of; empty where it has no complaint.

    `adopt` takes unlisted files into the ledger instead where they are sound and no copies: for
    files older than the ledger, or copied from another warehouse.
    """
    require_root(root)
    if not adopt and not (root / LEDGER).exists():
        raise RootError(
            f"{root} is older than its ledger, so that every file would be set aside: "
            "take them in with `axes warehouse repair --adopt`"
        )
    with maintenance_lock(root):
        for table in TABLES:
            with table_lock(root, table):
                settle(root, table)
        findings = inspect_files(root)
        if not findings:
            return []
        findings += _resting_on(root, findings)
        aside = root / QUARANTINE / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
        lost: Counter[str] = Counter()
        with record_run(root, "warehouse repair", {}) as run:
            done = []
            for finding in findings:
                done.append(_fix(root, finding, aside, adopt))
                if done[-1] != "adopted":
                    lost.update(finding.runs)
            run.parameters = {"quarantine": str(aside), "rows_left_out": dict(sorted(lost.items()))}
        commands = restore_commands(root, lost)
    return [
        Repair(
            item.check,
            item.path,
            item.what,
            deed,
            tuple(dict.fromkeys(commands[name] for name in item.runs)),
        )
        for item, deed in zip(findings, done, strict=True)
    ]


def _resting_on(root: Path, findings: list[Finding]) -> list[Finding]:
    """The evaluations of the jobs whose axes, alignments or projections are lost."""
    lost = {run for item in findings if item.table in _FITTED for run in item.runs}
    named = {item.path for item in findings}
    resting = []
    for path in data_files(root, TABLES["evaluations"]):
        name = path.relative_to(root).as_posix()
        if name in named or not lost:
            continue
        with pq.ParquetFile(path) as file:
            runs = Counter(file.read(columns=["run_id"]).column("run_id").to_pylist())
        if runs.keys() & lost:
            what = "rests on rows that are lost"
            resting.append(Finding("evaluation_unfounded", name, what, "evaluations", dict(runs)))
    return resting


def _fix(root: Path, finding: Finding, aside: Path, adopt: bool) -> str:
    table = TABLES[finding.table]
    path = root / finding.path
    with table_lock(root, table.name):
        if path == empty_file(root, table):
            _quarantine(root, path, aside)
            write_empty_file(root, table)
            return "written again"
        if finding.check == "file_lost":
            with removing(root, table.name, [path]):
                return "struck off the ledger"
        if finding.check == "file_unlisted" and adopt and _is_sound(root, table, finding):
            adopt_file(root, table.name, path)
            return "adopted"
        with removing(root, table.name, [path]):
            _quarantine(root, path, aside)
        return f"moved to {aside / finding.path}"


def _is_sound(root: Path, table: Table, finding: Finding) -> bool:
    is_copy = finding.what.startswith("is a copy")
    return not is_copy and inspect_file(root, table, root / finding.path) is None


def adopt_file(root: Path, table: str, path: Path) -> None:
    """Enter a file that is in its place into the ledger; the caller holds the table's lock."""
    with writing(root, table, {path: read_record(path)}):
        pass


def _quarantine(root: Path, path: Path, aside: Path) -> None:
    target = aside / path.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() or path.is_symlink():
        path.rename(target)
        sync_folder(path.parent)


def restore_commands(root: Path, run_ids: Iterable[str]) -> dict[str, str]:
    """run_id -> the command line that writes the rows of that job again, or why there is none."""
    lost = sorted(set(run_ids))
    if not lost:
        return {}
    try:
        jobs = rows(connect_tables(root, "runs"), "select run_id, command, command_line from runs")
    except AxesError as error:
        return dict.fromkeys(lost, f"runs cannot be read ({error}): ingest or import again")
    stored = {row["run_id"]: row for row in jobs}
    commands = {}
    for run_id in lost:
        if run_id not in stored:
            commands[run_id] = "the job that wrote it is unknown: ingest or import again"
        elif line := stored[run_id]["command_line"]:
            # Quoted again: a warehouse from a stranger must not put more than one command here.
            commands[run_id] = shlex.join([*shlex.split(line), "--root", str(root)])
        else:
            command = stored[run_id]["command"]
            commands[run_id] = f"Python code ran {command}: run it again (parameters of {run_id})"
    return commands


def in_order(done: Sequence[Repair]) -> list[str]:
    """Each command that restores rows, once: prompts, then model output, then what is fitted.

    Imports are first, since ingest reads prompts; what is not a command is last.
    """
    commands = {command for item in done for command in item.restore}
    order = ("axes prompts", "axes ingest", "axes label", "axes fit", "axes study")

    def place(command: str) -> tuple[int, str]:
        places = [index for index, start in enumerate(order) if command.startswith(start)]
        return (places or [len(order)])[0], command

    return sorted(commands, key=place)
