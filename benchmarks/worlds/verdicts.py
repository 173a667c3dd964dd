"""Verdicts on worlds whose truth is known: how often is one wrong, or none given?

Studies are run on small warehouses, since the rules are views. In a world of a confound, of a map
or of benign prompts that do not carry the direction, "cannot tell" is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from axes.analysis.study.run import run_study
from axes.warehouse.connection import connect, rows
from benchmarks.worlds.rates import Rate, over_worlds, rate
from tests.worlds import BENIGN, SURFACES, define_study, make_world

WIDTHS = {"alpha": 16, "beta": 20, "gamma": 24, "delta": 18}
PART = "verdicts"
SHARED, AS_GOOD, BREAK = "shared_axis", "universal_at_least_native", "regime_break"
VERDICTS = YES, NO, _, _ = "supported", "not supported", "undecided", "cannot tell"
CLAIMS = SHARED, AS_GOOD, BREAK
_EVERY = {(claim, verdict) for claim in CLAIMS for verdict in (YES, NO)}
_SOUND = {(SHARED, NO), (AS_GOOD, NO), (BREAK, YES)}

# World -> what is planted, and the verdicts that would be wrong of it.
WORLDS: dict[str, tuple[dict[str, Any], set[tuple[str, str]]]] = {
    "planted axis": ({}, _SOUND),
    "planted axis, mislabelled by 0.2": ({"mislabelled": 0.2}, _SOUND),
    "planted axis and a topic of each pair": ({"topic": 1.0}, _SOUND),
    "nothing planted": ({"strength": 0.0}, _EVERY - {(SHARED, NO)}),
    **{
        f"{surface} only": (
            {"strength": 0.0, "confound": 3.0, "surface": surface},
            {(SHARED, YES), (AS_GOOD, YES), (BREAK, YES)},
        )
        for surface in SURFACES
    },
    "activation norm only": (
        {"strength": 0.0, "norm": 1.0},
        {(SHARED, YES), (AS_GOOD, YES), (BREAK, YES)},
    ),
    "benign prompts without the concept": ({"is_benign_flat": True}, _SOUND),
    "maps of R2 near zero": ({"unrelated": ("alpha", "beta", "delta")}, _SOUND),
    "each model its own direction": ({"rotation": np.pi / 2}, {(SHARED, YES), (BREAK, YES)}),
    "one of four flipped": ({"flipped": "beta"}, {(SHARED, YES), (AS_GOOD, YES), (BREAK, NO)}),
    "two of four flipped": (
        {"flipped": ("alpha", "beta")},
        {(SHARED, YES), (AS_GOOD, YES), (BREAK, YES)},
    ),
    "a few prompts carry the means of one": ({"outliers": "beta"}, {(SHARED, YES), (AS_GOOD, YES)}),
    "twelve pairs": ({"labelled": {"labelled": 12}}, _SOUND),
    # The prompts that align the models are those that are evaluated.
    "planted axis, aligned on the labelled prompts": ({"align": "labelled"}, _EVERY),
    "nothing planted, aligned on the labelled prompts": (
        {"strength": 0.0, "align": "labelled"},
        _EVERY,
    ),
}


@dataclass(frozen=True)
class VerdictRates:
    """How often a kind of world got each verdict of each claim, and how often a wrong one."""

    wrong: Rate
    verdicts: dict[tuple[str, str], int]


class Verdicts:
    """Claim -> verdict in a world of one kind; a class, since worlds go to other processes."""

    def __init__(self, name: str, pairs: int = 100) -> None:
        self.name, self.pairs = name, pairs

    def __call__(self, seed: int) -> dict[str, str]:
        planted = {"strength": 1.5, "noise": 0.3, "labelled": {"labelled": self.pairs}}
        planted |= WORLDS[self.name][0]
        align = planted.pop("align", BENIGN)
        with TemporaryDirectory() as folder:
            world = make_world(
                Path(folder) / "lake",
                widths=WIDTHS,
                benign_count=200,
                layer_count=1,
                seed=seed,
                **planted,
            )
            study_id = run_study(world.root, define_study(WIDTHS, reference="gamma", align=align))
            found = rows(
                connect(world.root),
                "select claim, verdict from v_claims where study_id = ?",
                [study_id],
            )
        return {row["claim"]: row["verdict"] for row in found}


def measure_verdicts(world_count: int) -> list[VerdictRates]:
    """Of each kind of world the share with a wrong verdict, and how often each was given."""
    found = []
    for place, (name, (_, wrong)) in enumerate(WORLDS.items()):
        worlds = over_worlds(Verdicts(name), world_count, first_seed=83_000_000 + place * 100_000)
        is_wrong = [not wrong.isdisjoint(world.items()) for world in worlds]
        verdicts = Counter((claim, world[claim]) for world in worlds for claim in CLAIMS)
        found.append(VerdictRates(rate(PART, name, is_wrong, (0.0, 0.05)), verdicts))
    return found


def verdict_table(found: Sequence[VerdictRates]) -> list[str]:
    """Markdown: of each kind of world the share of wrong verdicts, and the counts of each."""
    lines = [f"| world | worlds | wrong verdict | {' | '.join(CLAIMS)} |", "|" + " --- |" * 6]
    for each in found:
        counts = (
            " / ".join(str(each.verdicts.get((claim, verdict), 0)) for verdict in VERDICTS)
            for claim in CLAIMS
        )
        lines.append(
            f"| {each.wrong.name} | {each.wrong.count} | {each.wrong.share:.3f} "
            f"| {' | '.join(counts)} |"
        )
    return lines
