"""A study of six concepts against a study of one, of three models with all layers stored.

Both start without a row of results: directions at every layer, alignments with the null of R2, all
evaluations, and of the six the k-way step. The rows are planted and of the shape of the demo's.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from axes.study_plan import PlannedStudy, run_concepts, run_planned
from benchmarks.run import Figure, alternate, median_figure, ratios, seconds
from tests.worlds import LATENT, define_study, make_concepts

WIDTHS = {"alpha": 576, "beta": 640, "gamma": 896}
CONCEPTS, LAYERS, ALIGNMENT_ROWS, PAIRS, ROUNDS = 6, 24, 1_500, 100, 3
TIMES = 3.0


def measure(
    widths: Mapping[str, int] = WIDTHS,
    concepts: int = CONCEPTS,
    layers: int = LAYERS,
    alignment_rows: int = ALIGNMENT_ROWS,
    pairs: int = PAIRS,
    rounds: int = ROUNDS,
) -> Iterator[Figure]:
    """The time of the study of all concepts over that of the first one."""
    names = tuple(f"concept-{index}" for index in range(concepts))
    with TemporaryDirectory() as folder:
        root = Path(folder) / "lake"
        make_concepts(
            root,
            widths=dict(widths),
            axes=dict(zip(names, np.eye(LATENT), strict=False)),
            pairs=pairs,
            layer_count=layers,
            benign_count=alignment_rows,
        )
        several, single = alternate(
            rounds,
            lambda: _study(root, widths, names),
            lambda: _study(root, widths, names[:1]),
        )
    conditions = f"{layers} layers of {len(widths)} models, {pairs} pairs a concept"
    name = f"study of {concepts} concepts / of one"
    yield median_figure(name, ratios(several, single), TIMES, "lower", conditions)


def _study(root: Path, widths: Mapping[str, int], names: Sequence[str]) -> float:
    """Seconds of the study of these concepts in a copy of the warehouse."""
    usual = define_study(list(widths))
    concepts = tuple(names) if len(names) > 1 else ()
    planned = [PlannedStudy(replace(usual, prompts=name), {}, {}, concepts) for name in names]
    copied = shutil.copytree(root, root.with_name("copy"))

    def run() -> None:
        study_ids = list(run_planned(copied, planned, no_ingest=True))
        run_concepts(copied, planned, study_ids)

    taken = seconds(run)
    shutil.rmtree(copied)
    return taken
