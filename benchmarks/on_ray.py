"""What Ray costs: two workers against the plain job, and the memory of the driver that plans.

A part of `make bench ONLY=scale`. Both jobs have this machine's cores, and the same rows; what they
take until the model is loaded is left out. The driver plans in a process of its own
(`python -m benchmarks.on_ray ROOT MODEL`), and its peak is compared at few and at many prompts.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from axes.ingest.activations import Session, _plan, _stored, ingest_activations
from axes.ingest.forward.pooling import POOLINGS
from axes.ingest.jobs import open_job
from axes.ingest.models.registry import resolve
from axes.ingest.prompts import import_ready_sets
from axes.ingest.requests import LOCAL, ActivationRequest, Placement
from axes.warehouse.handle import Warehouse
from axes.warehouse.runs import Run
from axes.warehouse.storage.layout import init_root
from benchmarks.run import Figure, median_figure, process_megabytes, python, ratios
from benchmarks.warehouse import write_prompts
from tests.tiny_models import save_tiny

MODEL, PROMPT_SET, PROMPTS, ROUNDS = "smollm2-135m", "demo_alignment", 1_500, 3
FEW, MANY = 10_000, 1_000_000


def figures() -> Iterator[Figure]:
    """Seconds and memory as ratios."""
    on_ray, plain = [], []
    for _ in range(ROUNDS):
        on_ray.append(_seconds(Placement(on="ray", workers=2)))
        plain.append(_seconds(LOCAL))
    name = "Ray with two workers: seconds over those of the plain job, after the start"
    conditions = f"{MODEL}, {PROMPTS} prompts, every layer, one machine"
    yield median_figure(name, ratios(on_ray, plain), 1.10, "lower", conditions)
    with tempfile.TemporaryDirectory() as folder:
        model = save_tiny(Path(folder) / "tiny", "llama")
        few, many = (_peak(Path(folder), model, count) for count in (FEW, MANY))
    conditions = f"{many:.0f} MB at {MANY:,} prompts, {few:.0f} MB at {FEW:,}"
    name = "memory of a driver: peak at a million planned prompts over that at ten thousand"
    yield Figure(name, many / few, 1.10, "lower", conditions=conditions)


def _seconds(placement: Placement) -> float:
    """The job on a fresh root without its start, which ends when the model is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "lake"
        import_ready_sets(root, [PROMPT_SET])
        request = ActivationRequest(prompt_sets={PROMPT_SET: PROMPTS})
        ingest_activations(root, resolve(MODEL), request, placement)
        (spent,) = Warehouse.open(root).column(
            "select seconds - stage_seconds.load from v_runs where command = 'ingest activations'"
        )
    return spent


def _peak(folder: Path, model: Path, count: int) -> float:
    root = folder / f"{count}"
    init_root(root)
    write_prompts(root, count)
    return float(python("-m", "benchmarks.on_ray", root, model)[-1])


def _planned_megabytes(root: Path, model: Path) -> float:
    request = ActivationRequest(prompt_sets={"set": None})
    job, run = open_job(root, resolve(str(model)), request), Run(root, "plan", {})
    poolings = {name: POOLINGS[name] for name in request.poolings}
    planned = 0
    for part in _plan(job, request, poolings, {}, run, _stored(job, request, {}, run)):
        for group in part.groups:
            batches = Session.whole_batches(group, request, lambda *_: 0)
            planned += sum(len(batch.names) for batch in batches)
    print(f"{planned} prompts", file=sys.stderr)
    return process_megabytes("VmHWM")


if __name__ == "__main__":
    print(_planned_megabytes(Path(sys.argv[1]), Path(sys.argv[2])))
