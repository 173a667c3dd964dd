"""What a warehouse survives, by trying: kills, power cuts, refused writes, damage, two at once.

`make campaign` runs it and writes its tables to docs/reliability.md; the suite runs a short one.
A command runs in a process of its own on a small warehouse, a fault befalls it at a random call or
instant, the same command is started again, and every row and file is compared with those of a run
that nothing disturbed, vectors to the bit. `axes warehouse check` has to find nothing.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.faults.commands import COMMANDS, Command
from benchmarks.faults.table import lines, markdown, write_page
from benchmarks.faults.trials import (
    Laboratory,
    Trial,
    damage_trial,
    kill_trial,
    pair_trial,
    power_trial,
    refusal_trial,
)

if TYPE_CHECKING:
    from benchmarks.run import Figure

SEED = 1
# A kill that comes after the end is not counted: about four of ten.
COUNTS = {"kills": 1_800, "power_cuts": 60, "refusals": 60, "damages": 60, "pairs": 8}
# Kills of one command before it may end.
_MAX_IN_A_ROW = 24
_QUICK = max(command.weight for command in COMMANDS)
_BY_NAME = {command.name: command for command in COMMANDS}
# What may run at once and gives the same rows in either order.
TOGETHER = (
    ("prompts import", "prompts import"),
    ("activations import", "prompts import"),
    ("ingest activations", "ingest activations"),
    ("fit", "fit"),
    ("label refusals", "label inherit"),
    ("warehouse compact", "export"),
    ("warehouse compact", "calibrate"),
    ("warehouse vacuum", "warehouse compact"),
)


def measure() -> Iterator[Figure]:
    """The campaign, and its part of the page; Ctrl-C ends it early, with what was tried."""
    # Not above: it may be the main module, which every child would import a second time.
    from benchmarks.run import Figure

    began = time.monotonic()
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, suppress(KeyboardInterrupt):
        for trial in campaign(Laboratory(Path(folder)), COMMANDS, **COUNTS):
            trials.append(trial)
    write_page(markdown(trials, seed=SEED, seconds=time.monotonic() - began))
    for line in lines(trials):
        conditions = f"{line.tried} faults in {line.trials} trials, seed {SEED}, {line.bad}"
        yield Figure(line.fault, line.bad_count, 0.0, "lower", conditions=conditions)


def campaign(
    lab: Laboratory, commands: Sequence[Command], *, seed: int = SEED, **counts: int
) -> Iterator[Trial]:
    """The trials of each sort, so many of each; within a weight in an order of chance.

    `kills`, `power_cuts`, `refusals` are over the commands by weight, `damages` over the kinds of
    files of the last command's stage, `pairs` over what may run at once.
    """
    # Weight, fault, command, trial: those that are quick first, so that a campaign which is ended
    # early has tried most.
    plan: list[tuple[int, str, str, Callable[[random.Random], Trial]]] = []
    for command, total in shares(commands, counts.get("kills", 0)).items():
        in_a_row = min(2 * command.weight + 2, total, _MAX_IN_A_ROW)
        attempt = partial(kill_trial, lab, command, in_a_row)
        plan += [(command.weight, "kill", command.name, attempt)] * -(-total // in_a_row)
    for fault, name, trial_of in (
        ("power cut", "power_cuts", power_trial),
        ("refused write", "refusals", refusal_trial),
    ):
        for command, total in shares(commands, counts.get(name, 0)).items():
            attempt = partial(trial_of, lab, command)
            plan += [(command.weight, fault, command.name, attempt)] * total
    last = commands[-1]
    for number in range(counts.get("damages", 0)):
        attempt = partial(damage_trial, lab, last.stage, number)
        plan.append((_QUICK, "damaged file", last.stage, attempt))
    for number in range(counts.get("pairs", 0)):
        first, second = (_BY_NAME[name] for name in TOGETHER[number % len(TOGETHER)])
        attempt = partial(pair_trial, lab, first, second)
        weight = min(first.weight, second.weight)
        plan.append((weight, "two at once", f"{first.name} with {second.name}", attempt))
    random.Random(seed).shuffle(plan)
    plan.sort(key=lambda item: -item[0])
    for number, (_, fault, name, attempt) in enumerate(plan):
        try:
            trial = attempt(random.Random(f"{seed} {number}"))
        except RuntimeError as error:  # What is stored could not be read, or a command failed.
            trial = Trial(fault, name, "unclear", 1, str(error))
        place = f"{number + 1} of {len(plan)}, {trial.fault}, {trial.command}: {trial.verdict}"
        print(f"{place} {trial.detail}" if trial.verdict != "ok" else place, file=sys.stderr)
        yield trial


def shares(commands: Sequence[Command], total: int) -> dict[Command, int]:
    """How many of the faults each command gets, by weight."""
    order = [command for command in commands for _ in range(command.weight)]
    random.Random(total).shuffle(order)
    return dict(Counter(order[number % len(order)] for number in range(total)))
