"""One trial: a fault, what comes after it, and whether anything was lost, mixed or not noticed."""

from __future__ import annotations

import errno
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from axes.warehouse.storage.layout import EMPTY_FILE
from axes.warehouse.tables.schemas import TABLES
from benchmarks.faults.commands import Command, Stages
from benchmarks.faults.disk import Fault
from benchmarks.faults.jobs import Seen, inspect
from benchmarks.faults.power import cut_power
from benchmarks.faults.processes import Bench, Ended

Verdict = Literal["ok", "lost", "mixed", "unnoticed", "unclear"]
# The share of trials in which the rules over rows are run, and in which the warehouse is looked at
# before the command is started again.
_COMPLETE, _SEEN_BEFORE = 1 / 6, 1 / 3
REFUSALS = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EDQUOT)


@dataclass(frozen=True)
class Trial:
    """What was done to a command or a file, how often, and what came of it."""

    fault: str
    command: str
    verdict: Verdict
    count: int = 1
    detail: str = ""


@dataclass
class Laboratory:
    """The bench, the stages, and what each command leaves that nothing disturbs."""

    folder: Path
    expected: dict[str, tuple[Seen, Ended]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bench = Bench(self.folder)
        self.stages = Stages(self.bench)

    def undisturbed(self, *commands: Command) -> tuple[Seen, Ended]:
        """What is stored when the commands run one after the other, and the last one's end."""
        name = " + ".join(command.name for command in commands)
        if name not in self.expected:
            for command in commands:
                self.stages.give(command.words)
            self.stages.put(commands[0].stage)
            for command in commands:
                ended = self.bench.run(command.typed(self.bench))
                if ended.code != 0:
                    raise RuntimeError(f"{command.name} fails undisturbed: {ended.output}")
            self.expected[name] = self.see(is_complete=True), ended
        return self.expected[name]

    def see(self, *, is_complete: bool) -> Seen:
        """Everything stored on the bench, each file inspected; `is_complete` runs all rules."""
        return self.bench.ask(inspect, self.bench.root, self.bench.place / "out", is_complete)


def kill_trial(lab: Laboratory, command: Command, kills: int, chance: random.Random) -> Trial:
    """Kill a command at random calls and instants, start it again each time, and let it end.

    `count` is the number of kills that met it alive.
    """
    expected, whole = lab.undisturbed(command)
    lab.stages.put(command.stage)
    words, count, places = command.typed(lab.bench), 0, []
    for _ in range(kills):
        if chance.random() < 0.5:
            ended = lab.bench.kill_within(words, whole.seconds, chance)
            place = "an instant"
        else:
            fault = Fault("kill", chance.randrange(whole.call_count), chance.random() < 0.5)
            ended = lab.bench.run(words, fault)
            place = f"call {fault.at}{' after' if fault.is_after else ''}"
        if not ended.is_killed:
            # It had ended, or went another way than the first time: what it left counts.
            if not ended.is_clear:
                return Trial("kill", command.name, "unclear", count, ended.output[-400:])
            continue
        count += 1
        places.append(place)
    trial = _recover(lab, "kill", command, expected, chance)
    return Trial("kill", command.name, trial.verdict, count, f"{places}: {trial.detail}")


def power_trial(lab: Laboratory, command: Command, chance: random.Random) -> Trial:
    """Cut the power in a command, or once it has ended with 0: its rows are then on the disk."""
    expected, whole = lab.undisturbed(command)
    lab.stages.put(command.stage)
    is_over = chance.random() < 0.25
    at = whole.call_count * 10 if is_over else chance.randrange(whole.call_count)
    ended = lab.bench.run(command.typed(lab.bench), Fault("power cut", at))
    if not lab.bench.journal.exists():
        return Trial("power cut", command.name, "unclear", 1, ended.output[-400:])
    hurt = cut_power(lab.bench.place, lab.bench.journal, chance)
    place = f"call {at} of {whole.call_count}, {hurt} changes undone"
    if ended.code == 0:
        seen = lab.see(is_complete=chance.random() < _COMPLETE)
        verdict, detail = compare(seen, expected)
        return Trial("power cut after the end", command.name, verdict, 1, f"{place}: {detail}")
    trial = _recover(lab, "power cut", command, expected, chance)
    return Trial("power cut", command.name, trial.verdict, 1, f"{place}: {trial.detail}")


def refusal_trial(lab: Laboratory, command: Command, chance: random.Random) -> Trial:
    """Refuse a command a write: one error of the disk, a disk full from there on, or a limit."""
    expected, whole = lab.undisturbed(command)
    lab.stages.put(command.stage)
    words = command.typed(lab.bench)
    if chance.random() < 0.2:
        ended = lab.bench.run_limited(words, chance.randint(200, 20_000))
        place = "file-size limit"
    else:
        number = chance.choice(REFUSALS)
        is_lasting = chance.random() < 0.5
        at = chance.randrange(whole.call_count)
        fault = Fault("refusal", at, errno=number, is_lasting=is_lasting)
        ended = lab.bench.run(words, fault)
        place = f"{errno.errorcode[number]}{' for good' if is_lasting else ''} at call {at}"
    if not ended.is_clear:
        detail = f"{place}, exit code {ended.code}: {ended.output[-600:]}"
        return Trial("refused write", command.name, "unclear", 1, detail)
    if ended.code == 0:
        verdict, detail = compare(lab.see(is_complete=chance.random() < _COMPLETE), expected)
        return Trial("refused write", command.name, verdict, 1, f"{place}: {detail}")
    trial = _recover(lab, "refused write", command, expected, chance)
    return Trial("refused write", command.name, trial.verdict, 1, f"{place}: {trial.detail}")


def pair_trial(lab: Laboratory, first: Command, second: Command, chance: random.Random) -> Trial:
    """Two commands at once on one warehouse; one that is refused is started again afterwards."""
    expected, _ = lab.undisturbed(first, second)
    lab.stages.put(first.stage)
    commands = [first, second]
    name = " with ".join(command.name for command in commands)
    chance.shuffle(commands)
    started = [
        lab.bench.begin(command.typed(lab.bench), Fault(), name=str(number))
        for number, command in enumerate(commands)
    ]
    ends = [process.end() for process in started]
    for command, ended in zip(commands, ends, strict=True):
        if not ended.is_clear:
            return Trial("two at once", name, "unclear", 1, ended.output[-600:])
        if ended.code != 0:
            again = lab.bench.run(command.typed(lab.bench))
            if again.code != 0:
                return Trial("two at once", name, "lost", 1, again.output[-600:])
    verdict, detail = compare(lab.see(is_complete=chance.random() < _COMPLETE), expected)
    return Trial("two at once", name, verdict, 1, detail)


def damage_trial(lab: Laboratory, stage: str, number: int, chance: random.Random) -> Trial:
    """Hurt one file of a warehouse: `check` says so, or no row depends on it.

    `number` chooses the kind of file, in turns. Damage to a file with rows has to be found whatever
    was hurt in it.
    """
    if stage not in lab.expected:
        lab.stages.put(stage)
        lab.expected[stage] = lab.see(is_complete=True), Ended(0, "", 0.0, 0)
    expected, _ = lab.expected[stage]
    lab.stages.put(stage)
    kinds = files_by_kind(lab.bench.root)
    kind = sorted(kinds)[number % len(kinds)]
    path = chance.choice(kinds[kind])
    how = _hurt(path, chance)
    seen = lab.see(is_complete=False)
    detail = f"{how} in {path.relative_to(lab.bench.root)}"
    is_noticed = bool(seen.findings)
    is_data = kind in TABLES and path.name != EMPTY_FILE
    is_changed = compare(seen, expected)[0] != "ok"
    verdict: Verdict = "ok" if is_noticed or not (is_data or is_changed) else "unnoticed"
    return Trial("damaged file", kind, verdict, 1, detail)


def files_by_kind(root: Path) -> dict[str, list[Path]]:
    """The files of a warehouse by table, or by folder where they are no table's."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        kind = path.relative_to(root).parts[0]
        if path.is_file() and kind not in (".locks", ".tmp", ".retired", ".quarantine"):
            kinds.setdefault(kind, []).append(path)
    return kinds


def _hurt(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    how = chance.choice(("a bit", "a bit", "a bit", "its end cut", "emptied", "deleted", "zeros"))
    if how == "deleted":
        path.unlink()
        return how
    if how == "emptied" or not content:
        content.clear()
    elif how == "a bit":
        place = chance.randrange(len(content))
        content[place] ^= 1 << chance.randrange(8)
        how = f"bit at byte {place}"
    elif how == "its end cut":
        del content[chance.randrange(len(content)) :]
    else:
        place = chance.randrange(len(content))
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    if bytes(content) == path.read_bytes() and content:  # There were zeros.
        content[-1] ^= 1
    path.write_bytes(content)
    return how


def _recover(
    lab: Laboratory,
    fault: str,
    command: Command,
    expected: Seen,
    chance: random.Random,
) -> Trial:
    """Start the command again after a fault, and compare what it leaves with what it ought to."""
    if chance.random() < _SEEN_BEFORE and command.stage not in ("nothing", "damaged", "version 1"):
        seen = lab.see(is_complete=False)
        if seen.findings:
            detail = f"before it was started again: {seen.findings[:3]}"
            return Trial(fault, command.name, "unclear", 1, detail)
        for name, digest in seen.outputs.items():
            if expected.outputs.get(name) != digest and not name.startswith("."):
                detail = f"half of {name} before it was started again"
                return Trial(fault, command.name, "mixed", 1, detail)
    again = lab.bench.run(command.typed(lab.bench))
    if again.code != 0:
        # One that was killed as it ended may say that what it made is there.
        has_ended = again.is_clear and compare(lab.see(is_complete=True), expected)[0] == "ok"
        refused: Verdict = "ok" if has_ended else "lost" if again.is_clear else "unclear"
        detail = "" if has_ended else f"cannot be started again: {again.output[-600:]}"
        return Trial(fault, command.name, refused, 1, detail)
    verdict, detail = compare(lab.see(is_complete=chance.random() < _COMPLETE), expected)
    return Trial(fault, command.name, verdict, 1, detail)


def compare(seen: Seen, expected: Seen) -> tuple[Verdict, str]:
    """Whether the same rows and output files are stored, and nothing else is wrong."""
    for table, rows in expected.rows.items():
        held = seen.rows.get(table, {})
        if missing := rows.keys() - held.keys():
            return "lost", f"{len(missing)} of {len(rows)} rows of {table}"
        if extra := held.keys() - rows.keys():
            return "mixed", f"{len(extra)} rows of {table} too many"
        if other := [key for key, row in rows.items() if not _is_same(held[key], row)]:
            return "mixed", f"{len(other)} rows of {table} differ: {_first_difference(held, rows)}"
    if seen.doubled:
        return "mixed", f"rows doubled in {', '.join(seen.doubled)}"
    if expected.outputs.keys() - seen.outputs.keys():
        return "lost", f"files {expected.outputs.keys() - seen.outputs.keys()}"
    if wrong := [name for name, digest in expected.outputs.items() if seen.outputs[name] != digest]:
        return "mixed", f"files {wrong}"
    if seen.findings != expected.findings:
        return "unclear", f"check finds {seen.findings[:3]}"
    if seen.rules is not None and seen.rules != expected.rules:
        return "unclear", f"broken rules: {seen.rules[:3]}"
    return "ok", ""


def _is_same(mine: object, theirs: object) -> bool:
    """Whether two values are equal: vectors to the bit, other numbers up to rounding.

    Rounding differs from run to run without any fault: sums in a library depend on addresses.
    """
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        return len(mine) == len(theirs) and all(map(_is_same, mine, theirs))
    if isinstance(mine, float) and isinstance(theirs, float):
        is_close = math.isclose(mine, theirs, rel_tol=1e-9, abs_tol=1e-12)
        return is_close or (math.isnan(mine) and math.isnan(theirs))
    return mine == theirs


def _first_difference(held: Mapping[tuple, tuple], rows: Mapping[tuple, tuple]) -> str:
    for key, row in rows.items():
        for mine, theirs in zip(held[key], row, strict=True):
            if not _is_same(mine, theirs):
                return f"{key}: {str(mine)[:80]} for {str(theirs)[:80]}"
    return ""
