"""Fit on one source of prompts, judge on another: does a direction tell the classes or the sources?

In most sets a source brings one class only, so a direction may tell sources apart and look as if it
told classes. A contrast is the smallest thing that a direction can be fitted on: a source of both
classes by itself, or a source of positive prompts with one of negative prompts. Every contrast is
judged on every other, out of fold: no prompt, and nothing of its group, is in the fit that scores
it, so that cells on the diagonal, or that share a source, are held out too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.stats.auroc import Estimate, auroc_interval
from axes.analysis.stats.splits import grouped_folds
from axes.warehouse.errors import LabelError

LEAST_ROWS = 20

Fit = Callable[[Bool[np.ndarray, "fit row"]], Float[np.ndarray, "fit row"]]


@dataclass(frozen=True)
class Contrast:
    """Rows of one source, or of a positive and a negative one (`positive | negative`)."""

    name: str
    is_member: Bool[np.ndarray, " row"]


@dataclass(frozen=True)
class Cell:
    """AUROC on the contrast `judged_on` of the direction fitted on `fitted_on`, held out."""

    fitted_on: str
    judged_on: str
    auroc: Estimate
    positive_count: int
    negative_count: int


def source_contrasts(
    sources: Sequence[str | None], labels: Bool[np.ndarray, " row"], *, least: int = LEAST_ROWS
) -> list[Contrast]:
    """All contrasts of a set; a class of a source with fewer than `least` rows is left out.

    >>> found = source_contrasts(["a", "a", "b", "c"], np.array([1, 0, 1, 0], bool), least=1)
    >>> [contrast.name for contrast in found]
    ['a', 'b | c']
    """
    names = np.array([source or "" for source in sources], dtype=object)
    counts = {
        name: (int((labels & (names == name)).sum()), int((~labels & (names == name)).sum()))
        for name in sorted(set(names))
    }
    both = [name for name, found in counts.items() if min(found) >= least]
    positive = [name for name, (count, _) in counts.items() if count >= least and name not in both]
    negative = [name for name, (_, count) in counts.items() if count >= least and name not in both]
    return [Contrast(name, names == name) for name in both] + [
        Contrast(f"{one} | {other}", ((names == one) & labels) | ((names == other) & ~labels))
        for one in positive
        for other in negative
    ]


def source_matrix(
    fit: Fit,
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    contrasts: Sequence[Contrast],
    *,
    seed: int = 0,
) -> list[Cell]:
    """Every contrast judged on every contrast by what `fit` makes of it, with DeLong's interval.

    `fit` gets masks of rows to fit on, one a row, and gives every row's score by each fit. Raises
    `LabelError` where a contrast lies in so few groups that a fold takes a class of it away.
    """
    if not contrasts:
        raise LabelError(
            f"no source, and no pair of sources, brings {LEAST_ROWS} prompts of each class"
        )
    folds = grouped_folds(labels, groups, seed=seed)
    names = np.unique(folds)
    seen = np.stack(
        [contrast.is_member & (folds != name) for contrast in contrasts for name in names]
    )
    if not ((seen & labels).any(axis=1) & (seen & ~labels).any(axis=1)).all():
        raise LabelError("a source lies in too few groups to be held out: use larger sources")
    by_contrast = fit(seen).reshape(len(contrasts), len(names), len(labels))
    held_out = by_contrast[:, np.searchsorted(names, folds), np.arange(len(labels))]
    return [
        _cell(fitted_on, judged_on, row, labels, groups)
        for fitted_on, row in zip(contrasts, held_out, strict=True)
        for judged_on in contrasts
    ]


def _cell(
    fitted_on: Contrast,
    judged_on: Contrast,
    scores: Float[np.ndarray, " row"],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
) -> Cell:
    rows = judged_on.is_member
    area = auroc_interval(scores[rows], labels[rows], groups=groups[rows])
    positive_count = int(labels[rows].sum())
    return Cell(
        fitted_on.name, judged_on.name, area, positive_count, int(rows.sum()) - positive_count
    )
