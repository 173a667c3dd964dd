"""What every step costs at once, 10 and 100 times the rows, and how it grows.

The exponent is that of the last tenfold step: 1 is linear, 0 does not depend on the rows. Stored
vectors are random, with a row group for each layer in files of 1,000 prompts; ingest runs a model
on a two-hundredth of the prompts.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from axes.analysis.activations import find_space, load_matrix, project
from axes.analysis.exchange.export_activations import export_activations
from axes.analysis.methods import AlignmentOptions
from axes.analysis.methods.directions import difference_in_means
from axes.analysis.methods.maps.alignment import fit_alignment
from axes.analysis.projections import project_stored, score
from axes.analysis.stats.auroc import auroc_interval
from axes.warehouse.connection import connect, query
from axes.warehouse.handle import Warehouse
from axes.warehouse.maintenance.check import check
from axes.warehouse.storage.layout import init_root
from benchmarks.ingest.workload import Workload, workload
from benchmarks.run import Figure, seconds
from benchmarks.warehouse import write_activations, write_prompts
from tests.rows import put
from tests.worlds import write_model

MODEL = "smollm2-135m"
SIZES = (1_000, 10_000, 100_000)
INGEST_SHARE = 200
WIDTH, LAYERS, CHUNK = 128, 4, 1_000
ROUNDS = 3
# An exponent of 1, and what caches and logarithms add to it.
GOAL = 1.15
_STATEMENTS = {
    "a scan of a layer": "select sum(dot(vector, vector)) from v_activations where layer = 3",
    "the vectors of one prompt": (
        "from activations where prompt_id = (select min(prompt_id) from prompts)"
    ),
    "the keys of all rows": "from v_coverage",
}


def measure(sizes: Sequence[int] = SIZES, model: str = MODEL) -> Iterator[Figure]:
    """The exponent of each step, with its seconds at each size."""
    spent: dict[str, list[float]] = {}
    with workload(model, max(sizes) // INGEST_SHARE) as work:
        work.warm_up()
        for count in sizes:
            with tempfile.TemporaryDirectory() as folder:
                for name, call in _steps(Path(folder), work, count):
                    spent.setdefault(name, []).append(
                        statistics.median(seconds(call) for _ in range(ROUNDS))
                    )
    rows = ", ".join(f"{count:,}" for count in sizes)
    for name, times in spent.items():
        exponent = math.log(times[-1] / times[-2]) / math.log(sizes[-1] / sizes[-2])
        listed = ", ".join(f"{each:.3g}" for each in times)
        yield Figure(
            f"exponent of {name}", exponent, GOAL, "lower", conditions=f"{rows} rows: {listed} s"
        )


def _steps(folder: Path, work: Workload, count: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each step at a number of prompts, by name; what a step needs is stored before it."""
    root = folder / "lake"
    yield "ingest", partial(_ingest, work, count // INGEST_SHARE)
    init_root(root)
    write_prompts(root, count)
    for model in ("m", "ref"):
        write_model(root, model, WIDTH, LAYERS)
        write_activations(root, model, list(range(LAYERS)), count, WIDTH, chunk=CHUNK)
    vector = np.random.default_rng(0).standard_normal(WIDTH).tolist()
    place = {"layer": 3, "site": "resid_post", "pooling": "last5_mean", "template": "raw"}
    space = {"space_model": "m", "space_model_id": "id-m"}
    put(root, "axes", {"axis_id": "axis", "name": "axis", "vector": vector, **place, **space})
    connection, warehouse = connect(root), Warehouse.open(root)
    yield "opening", partial(connect, root)
    for name, statement in _STATEMENTS.items():
        yield f"{name} in SQL", partial(query, connection, statement)
    m, ref = (find_space(warehouse, name).at(3) for name in ("m", "ref"))
    yield "reading a layer with its labels", lambda: load_matrix(warehouse, m, "set").x
    x, y = (load_matrix(warehouse, each, "set") for each in (m, ref))
    direction = difference_in_means(x.x, x.labels).vector
    yield "a direction", partial(difference_in_means, x.x, x.labels)
    yield "AUROC with its interval", lambda: auroc_interval(project(x.x, direction), x.labels)
    yield "an alignment", lambda: fit_alignment(x.x, y.x, AlignmentOptions())
    yield "projecting a layer", partial(project_stored, warehouse, m, [(direction, 0.0)])
    score(root, "axis")
    yield "v_auroc", partial(query, connection, "from v_auroc")
    target = folder / "export.safetensors"
    yield "export", lambda: export_activations(warehouse, m, "set", "safetensors", target)
    yield "warehouse check", partial(check, root)


def _ingest(work: Workload, count: int) -> None:
    with work.fresh_root() as root:
        work.run_job(root, limit=count)
