"""Set broken files aside, and say which command writes their rows again. Nothing is deleted.

What is taken out of a table goes to ROOT/.quarantine/<time>/, under its path. A lost file is
struck off the ledger; how many rows of which job are then missing goes into the repair's row of
`runs`, so that the rule which counts rows against jobs knows of them. A journal of what was found
is kept until the end, so that the next repair completes one that was killed.
The command that restores rows is the one that wrote them: `runs.command_line`.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from axes.warehouse.connection import connect_tables, rows
from axes.warehouse.errors import AxesError, RootError
from axes.warehouse.maintenance.check import Finding, inspect_files
from axes.warehouse.runs import record_run
from axes.warehouse.storage.files import QUARANTINE, inside, parse_json, read_file
from axes.warehouse.storage.layout import MARKER, empty_file, recover_marker
from axes.warehouse.storage.ledger import LEDGER, Record, replace_file
from axes.warehouse.storage.roots import RemoteRoot
from axes.warehouse.storage.store import MaintainedStore, data_files, maintenance_lock, open_store
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import read_record

_ADOPTED, _STRUCK, _WRITTEN = "adopted", "struck off the ledger", "written again"
_UNDECIDED = "to be decided: --adopt or --set-aside"
_INTERRUPTED = "set aside by the repair before, which was interrupted"

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


def repair(root: Path, *, adopt: bool | None = None, is_dry_run: bool = False) -> list[Repair]:
    """Set aside every file that `inspect_files` complains of; empty where it has no complaint.

    With `adopt`, files that are sound and no copies are taken into the ledger instead, where it
    does not list them or lists them with other bytes: it may be hurt, or they are from another
    warehouse. Where it is None, `RootError` is raised for sound files that are not listed, before
    anything is changed. `is_dry_run` says what would be done. A killed repair is ended by the next.
    """
    if not isinstance(root, RemoteRoot) and recover_marker(root, is_dry_run=is_dry_run):
        done = f"would be {_WRITTEN}" if is_dry_run else _WRITTEN
        recovered = Repair("marker_damaged", MARKER, "says no schema version", done, ())
        others = [] if is_dry_run else repair(root, adopt=adopt)
        return [recovered, *others]
    store = open_store(root, allows_links=True)
    with maintenance_lock(root):
        for table in TABLES if not is_dry_run else ():
            with store.turn(table):
                store.settle(table)
        begun = _read_journal(store)
        found = inspect_files(root)
        found += _resting_on(store, [*begun, *found])
        named = {item.path for item in found}
        # What is begun and not found again is set aside, or its rows have been written again.
        begun = [item for item in begun if item.path not in named]
        aside = root / QUARANTINE / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
        deeds = [_INTERRUPTED] * len(begun) + [_deed(root, item, aside, adopt) for item in found]
        findings = begun + found
        lost: Counter[str] = Counter()
        for item, deed in zip(findings, deeds, strict=True):
            lost.update(item.runs if deed != _ADOPTED else {})
        if findings and not is_dry_run:
            if _UNDECIDED in deeds:
                raise RootError(_choice(root, found, deeds[len(begun) :]))
            content = json.dumps([vars(item) for item in findings]).encode()
            replace_file(_journal(store), content)
            with record_run(root, "warehouse repair", {}) as run:
                _carry_out(store, found, deeds[len(begun) :], aside)
                left_out = dict(sorted(lost.items()))
                run.parameters = {"quarantine": str(aside), "rows_left_out": left_out}
            _journal(store).unlink()
        commands = restore_commands(root, lost)
    return [
        Repair(
            item.check,
            item.path,
            item.what,
            f"would be {deed}" if is_dry_run and deed != _UNDECIDED else deed,
            tuple(dict.fromkeys(commands[name] for name in item.runs if name in commands)),
        )
        for item, deed in zip(findings, deeds, strict=True)
    ]


def _deed(root: Path, finding: Finding, aside: Path, adopt: bool | None) -> str:
    """What to do about a finding, as it is said once it is done."""
    if root / finding.path == empty_file(root, TABLES[finding.table]):
        return _WRITTEN
    if finding.check == "file_lost":
        return _STRUCK
    if finding.is_sound and adopt:
        return _ADOPTED
    if finding.is_sound and adopt is None and finding.check == "file_unlisted":
        return _UNDECIDED
    return f"moved to {aside / finding.path}"


def _choice(root: Path, found: Sequence[Finding], deeds: Sequence[str]) -> str:
    names = [item.path for item, deed in zip(found, deeds, strict=True) if deed == _UNDECIDED]
    return (
        f"{len(names)} sound files of {root} are not in its ledger ({names[0]}, ...): nothing was "
        "changed. `axes warehouse repair --adopt` takes them in, --set-aside moves them out, "
        "--dry-run lists them"
    )


def _carry_out(
    store: MaintainedStore, found: Sequence[Finding], deeds: Sequence[str], aside: Path
) -> None:
    adopted: defaultdict[str, list[Path]] = defaultdict(list)
    for finding, deed in zip(found, deeds, strict=True):
        path, table = store.root / finding.path, TABLES[finding.table]
        if deed == _ADOPTED:
            adopted[table.name].append(path)
        else:
            store.set_aside(table, path, aside)
    for name, paths in adopted.items():
        store.adopt(name, {path: _record(store, path) for path in paths})


def _record(store: MaintainedStore, path: Path) -> Record:
    with store.local(path) as file:
        return read_record(file)


def _read_journal(store: MaintainedStore) -> list[Finding]:
    """What a repair that was killed had found; empty where the last one ended."""
    try:
        found = [Finding(**item) for item in parse_json(read_file(_journal(store)))]
        for item in found:
            inside(store.root, item.path)
            TABLES[item.table]
            Counter(item.runs)
        return found
    except (FileNotFoundError, RootError, ValueError, TypeError, KeyError):
        return []


def _journal(store: MaintainedStore) -> Path:
    return store.home / LEDGER / "repair.json"


def _resting_on(store: MaintainedStore, findings: list[Finding]) -> list[Finding]:
    """The evaluations of the jobs whose axes, alignments or projections are lost."""
    lost = {run for item in findings if item.table in _FITTED for run in item.runs}
    named = {item.path for item in findings if item.check != "evaluation_unfounded"}
    resting = []
    for path in data_files(store.root, TABLES["evaluations"]) if lost else ():
        name = path.relative_to(store.root).as_posix()
        if name in named:
            continue
        runs = _record(store, path).runs
        if runs.keys() & lost:
            what = "rests on rows that are lost"
            resting.append(Finding("evaluation_unfounded", name, what, "evaluations", runs))
    return resting


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
