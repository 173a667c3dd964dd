"""Worlds whose truth is known: coverage of intervals, size of tests, recovery, flags, diagnoses.

The full campaign (`make bench ONLY=worlds`) writes its table to docs/worlds.md; the suite runs a
small one. Everything is seeded, and the same on every machine up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.run import Figure
from benchmarks.worlds.intervals import measure_intervals
from benchmarks.worlds.methods import measure_methods
from benchmarks.worlds.nulls import measure_nulls
from benchmarks.worlds.rates import Rate
from benchmarks.worlds.recovery import measure_recovery, spread_of_cosines
from benchmarks.worlds.verdicts import VerdictRates, measure_verdicts, verdict_table

PAGE = Path(__file__).parent.parent.parent / "docs" / "worlds.md"
INTERVAL_WORLDS, NULL_WORLDS, METHOD_WORLDS = 600, 600, 400
RECOVERY_WORLDS, VERDICT_WORLDS = 100, 40

_INTRODUCTION = """\
<!-- Written by benchmarks/worlds (make bench ONLY=worlds); edit the source, not this file. -->

# Worlds where the truth is known

Synthetic groups of models (`tests/worlds.py`): a prompt is a latent vector, every model shows it
through a rotation of its own with noise, and what is planted is known exactly. Each row below is
the share of seeded worlds in which something happened, with its standard error over the worlds.
Rows without a goal are there for contrast. A share within two errors of its goal is not told from
one that holds. `make bench ONLY=worlds` computes all of it again.

- **Intervals**: three models, 100 pairs to fit on and 100 others to judge on, strength 0.5 to 2.5
  standard deviations, noise 0.05 to 0.5, axes turned by 0 to 0.6 radians. The truth of an axis that
  was fitted is exact: both classes are normal along it. Where pairs share a topic, its standard
  deviation is 1.5 times that of everything else: rows alone are then not what is independent.
  The angle of the axis is bounded by resampling the labelled rows. Resampled angles alone are too
  small: the fitted axis is longer than the true one by its own noise, so that
  `sin(angle) = tan(resampled angle)`.
- **Tests with nothing planted**: no label has to do with any activation. The models see the same
  prompts and so share their noise: their directions agree although there is nothing, and only
  labels that are shuffled alike in all models make a null of that.
- **Concepts, subspaces and rates**: four concepts at right angles in ten dimensions, 30 items of
  each; 30 pairs in ten dimensions for the null of a subspace; scores of two normal classes for the
  rate of 0.1 %.
- **Planted axis**: four models, 300 pairs, noise 0.05, lambda 1.
- **Drift**: five completions of each of 80 prompts; each prompt has a slope of its own.
- **Confounds**: the source of a prompt determines its label and moves its activations by 3
  standard deviations; nothing else is planted. Flagged is an axis that is not shown to exceed
  word pairs.
- **Diagnoses**: one fault a world, in one model or set; right is the check named after the colon.

"""
_VERDICTS = """\
## Verdicts

Complete studies of four models on 100 pairs, classes 1.5 standard deviations apart, noise 0.3. In
worlds of a confound nothing but the surface differs, and in that the activations; "cannot tell" is
then right, and wherever the map or the benign prompts do not carry the direction. Counts of worlds:
supported / not supported / undecided / cannot tell. A wrong verdict is one of any of the claims
that contradicts what was planted (`WORLDS` of `benchmarks/worlds/verdicts.py`); none should exceed
0.05.
"""


def measure() -> Iterator[Figure]:
    """The full campaign, and its page."""
    found: list[Rate] = []
    for part in (
        measure_intervals(INTERVAL_WORLDS),
        measure_nulls(NULL_WORLDS),
        measure_methods(METHOD_WORLDS),
        measure_recovery(RECOVERY_WORLDS),
    ):
        found += part
        yield from (_figure(measured) for measured in part)
    verdicts = measure_verdicts(VERDICT_WORLDS)
    yield from (_figure(each.wrong) for each in verdicts)
    PAGE.write_text(page(found, verdicts, RECOVERY_WORLDS))


def page(found: Sequence[Rate], verdicts: Sequence[VerdictRates], cosine_worlds: int) -> str:
    """All rates as Markdown, and how near the recovered axis comes by strength."""
    lines = ["| part | what | share | error | worlds | goal | holds |", "|" + " --- |" * 7]
    lines += [
        f"| {one.part} | {one.name} | {one.share:.4f} | {one.error:.4f} | {one.count} "
        f"| {one.goal} | {_answer(one.holds)} |"
        for one in found
    ]
    lines += ["", _VERDICTS, *verdict_table(verdicts)]
    lines += [
        "",
        f"Cosine of the recovered universal axis with the planted one, {cosine_worlds} worlds:",
        "",
        "| strength | 5th percentile | median | 95th percentile |",
        "| --- | --- | --- | --- |",
    ]
    for strength, cosines in spread_of_cosines(cosine_worlds).items():
        lines.append(f"| {strength:g} | " + " | ".join(f"{value:.4f}" for value in cosines) + " |")
    return _INTRODUCTION + "\n".join(lines) + "\n"


def _answer(holds: bool | None) -> str:
    return "" if holds is None else "yes" if holds else "no"


def _figure(measured: Rate) -> Figure:
    """How far the share lies outside its goal: 0 where it holds."""
    conditions = f"share {measured.share:.4f} of {measured.count} worlds, goal {measured.goal}"
    if measured.lowest is None or measured.highest is None:
        conditions = f"{measured.count} worlds"
        return Figure(measured.name, measured.share, None, "higher", conditions=conditions)
    outside = max(measured.lowest - measured.share, measured.share - measured.highest, 0.0)
    name = f"{measured.name}: outside its goal by"
    return Figure(name, outside, 0.0, "lower", conditions=conditions)
