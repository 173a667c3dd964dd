"""Layers up to half of the model against all of them: blocks that nobody asked for are not run."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.ingest.workload import workload
from benchmarks.run import Figure, alternate, median_figure, ratios

MODEL = "smollm2-135m"
PROMPT_COUNT = 500
ROUNDS = 5
FRACTION = 0.5
GOAL = 0.6


def measure() -> Iterator[Figure]:
    """The job for layers 0 to round(fraction * (L - 1)) over the job for all."""
    with workload(MODEL, PROMPT_COUNT) as work:
        last = round(FRACTION * (work.loaded.layer_count - 1))
        lower_layers = tuple(range(last + 1))
        work.warm_up()
        lower, every = alternate(
            ROUNDS, lambda: work.job_seconds(layers=lower_layers), lambda: work.job_seconds()
        )
    name, conditions = f"layers 0 to {last} / all layers", f"{MODEL}, {PROMPT_COUNT} prompts"
    yield median_figure(name, ratios(lower, every), GOAL, "lower", conditions)
