"""What the warehouse costs over the bare minimum: reading, pruning, counting, ranking, streaming.

Every figure is a ratio of two things done in turn in one run, the median over rounds, except counts
of bytes and what the goal states in seconds. Files are dropped from the page cache before a cold
read, on both sides. The data are random and lie in a temporary folder.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from axes.analysis.activations import Space
from axes.analysis.projections import project_stored
from axes.warehouse.connection import connect, query, rows
from axes.warehouse.handle import Warehouse
from axes.warehouse.storage.layout import init_root, partition_folder
from axes.warehouse.tables.catalog import sql_files
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, rows_table, vector_array, write_rows
from benchmarks.run import Figure, median_figure, python
from tests.rows import put
from tests.worlds import write_model

ROUNDS = 5
MEMORY_LIMITS = (256_000_000, 512_000_000, 2_000_000_000)


def measure() -> list[Figure]:
    """Projection, pruning, AUROC, opening, out of core, growth."""
    parts = (_projection, _one_layer, _auroc, _ten_thousand_files, _out_of_core, _growth)
    figures = []
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "lake"
            init_root(root)
            figures += part(root)
    return figures


def _projection(root: Path, count: int = 60_000, width: int = 1024) -> list[Figure]:
    """One layer on an axis: by SQL and by the library, over pyarrow to numpy and a product."""
    write_prompts(root, count)
    write_model(root, "m", width, 1)
    write_activations(root, "m", [0], count, width, chunk=8192)
    vector = np.random.default_rng(1).standard_normal(width)
    files = list((root / "activations" / "model=m").iterdir())

    def floor() -> None:
        for path in files:
            column = pq.read_table(path, columns=["vector"], partitioning=None)["vector"]
            values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
            values.reshape(-1, width) @ vector.astype(np.float32)

    def by_sql() -> None:
        query(
            connect(root),
            "select prompt_id, dot(vector, ?) from activations where model = 'm' and layer = 0",
            [vector.tolist()],
        )

    def by_library() -> None:
        project_stored(Warehouse.open(root), _space("m", width, 1), [(vector, 0.0)])

    sql, library = [], []
    for _ in range(ROUNDS):
        least = seconds(floor, cold=files)
        sql.append(seconds(by_sql, cold=files) / least)
        library.append(seconds(by_library, cold=files) / least)
    return [
        median_figure("projection by SQL / pyarrow and numpy", sql, 3.0, "lower"),
        median_figure("by the library / pyarrow and numpy", library, 1.1, "lower"),
    ]


def _one_layer(root: Path, count: int = 512, width: int = 256) -> list[Figure]:
    """Bytes read for one layer of one model of 100, 50 layers each, over the layer's vectors."""
    write_prompts(root, count)
    write_model(root, "m0", width, 50)
    write_activations(root, "m0", list(range(50)), count, width, chunk=count)
    link_models(root, "m0", 100)
    script = (
        "import sys; from pathlib import Path\n"
        "from axes.warehouse.connection import connect, query\n"
        "connection = connect(Path(sys.argv[1]))\n"
        "count = lambda: int(open('/proc/self/io').readline().split()[1])\n"
        "before = count()\n"
        "query(connection, \"select vector from activations where model = 'm7' and layer = 30\")\n"
        "print(count() - before)"
    )
    read = int(python("-c", script, root)[-1])
    name = "bytes read for one layer of 100 models x 50 / its vectors"
    return [Figure(name, read / (count * width * 4), 1.3, "lower")]


def _auroc(root: Path, prompts: int = 500_000, axes: int = 5, models: int = 4) -> list[Figure]:
    """v_auroc over 10 million projections, against scikit-learn on arrays ready in memory."""
    random = np.random.default_rng(0)
    labels = write_prompts(root, prompts)
    ids = pa.array(_prompt_ids(prompts))
    put(root, "axes", *({"axis_id": f"axis{axis}"} for axis in range(axes)))
    groups = []
    for model in range(models):
        for axis in range(axes):
            scores = np.round(random.standard_normal(prompts) + 0.3 * labels, 5)
            groups.append(scores)
            same = {"axis_id": f"axis{axis}", "model_id": f"id-m{model}", "run_id": "bench"}
            columns = {name: pa.repeat(value, prompts) for name, value in same.items()}
            layer = pa.array(np.zeros(prompts, np.int16))
            missing = pa.nulls(prompts, pa.string())
            table = rows_table(
                "projections",
                [],
                **columns,
                prompt_id=ids,
                layer=layer,
                alignment_id=missing,
                projection=pa.array(scores),
            )
            write_rows(root, "projections", table, name=f"axis{axis}", partition=f"m{model}")
    connection = connect(root)
    # Both sides start from rows in memory: reading and joining them is not what is compared.
    connection.execute("create temp table ready as from v_projections")
    view = sql_files("marts")["v_auroc"]
    connection.execute(
        view.replace("view v_auroc", "temp view ranked").replace("from v_projections", "from ready")
    )
    # Below the sorted lists of the view no AUROC by SQL can come.
    in_order = "select list(projection order by projection)[1] from ready group by model, axis_id"
    ratios, over_sort = [], []
    for _ in range(3):
        in_sql = seconds(lambda: query(connection, "from ranked"))
        loop = seconds(lambda: [roc_auc_score(labels, scores) for scores in groups])
        ratios.append(loop / in_sql)
        over_sort.append(loop / seconds(lambda: query(connection, in_order)))
    found = {row["auroc"] for row in rows(connection, "from ranked")}
    assert len(found) == axes * models
    np.testing.assert_allclose(
        sorted(found), sorted(roc_auc_score(labels, scores) for scores in groups), atol=1e-12
    )
    name = "scikit-learn loop / {}, 10 million rows"
    return [
        median_figure(name.format("AUROC by SQL"), ratios, 1.5, "higher"),
        median_figure(name.format("sort alone by SQL"), over_sort, None, "higher"),
    ]


def _ten_thousand_files(root: Path, chunks: int = 100, models: int = 100) -> list[Figure]:
    """Seconds to open a root of 10,000 activation files and list its coverage."""
    write_prompts(root, chunks * 16)
    for model in range(models):
        write_model(root, f"m{model}", 8, 4)
    write_activations(root, "m0", [0, 1, 2, 3], chunks * 16, 8, chunk=16)
    link_models(root, "m0", models)
    connect(root)

    def coverage() -> None:
        query(connect(root), "from v_coverage")

    taken = [seconds(coverage) for _ in range(ROUNDS)]
    return [median_figure("seconds to open 10,000 files and list coverage", taken, 1.0, "lower")]


def _out_of_core(root: Path, width: int = 1024) -> list[Figure]:
    """Fit and project a layer of twice the largest memory limit, on and off the disk."""
    size = 2 * MEMORY_LIMITS[-1]
    count = size // (4 * width)
    write_prompts(root, count)
    write_model(root, "m", width, 1)
    write_activations(root, "m", [0], count, width, chunk=16_384)
    write_model(root, "ref", 64, 1)
    write_activations(root, "ref", [0], count, 64, chunk=16_384)
    script = (
        "import json, sys, time; from pathlib import Path\n"
        "from axes.analysis.methods import AlignmentOptions\n"
        "from axes.analysis.methods.maps.alignment import fit_alignment\n"
        "from axes.analysis.activations import find_space, load_matrix\n"
        "from axes.analysis.methods.directions import difference_in_means\n"
        "from axes.analysis.activations import project\n"
        "from axes.warehouse.handle import Warehouse\n"
        "from benchmarks.run import process_megabytes\n"
        "start = time.perf_counter()\n"
        "warehouse = Warehouse.open(Path(sys.argv[1]), memory_limit=int(sys.argv[2]))\n"
        "m, ref = (load_matrix(warehouse, find_space(warehouse, name), 'set')\n"
        "          for name in ('m', 'ref'))\n"
        "project(m.x, difference_in_means(m.x, m.labels).vector)\n"
        "fit_alignment(m.x, ref.x, AlignmentOptions(ridge_lambda=1.0))\n"
        "seconds = time.perf_counter() - start\n"
        "print(json.dumps([seconds, process_megabytes('VmHWM') * 1024**2]))"
    )
    connect(root)
    in_memory, _ = json.loads(python("-c", script, root, 1 << 40)[-1])
    figures = []
    for limit in MEMORY_LIMITS:
        on_disk, peak = json.loads(python("-c", script, root, limit)[-1])
        conditions = f"limit {limit // 10**6} MB, matrix of {size / limit:.0f} limits"
        for name, value, goal in (
            ("peak memory / limit", peak / limit, 1.0),
            ("time of fit and score, out of core / in memory", on_disk / in_memory, 2.0),
        ):
            figures.append(Figure(name, value, goal, "lower", conditions=conditions))
    return figures


def _growth(root: Path, count: int = 1_000, width: int = 512) -> list[Figure]:
    """Ten times the rows (ten times the files): a scan of one layer, and one prompt's vectors."""
    few, many = root / "few", root / "many"
    for part, factor in ((few, 1), (many, 10)):
        init_root(part)
        write_prompts(part, count * factor)
        write_model(part, "m", width, 8)
        write_activations(part, "m", list(range(8)), count * factor, width, chunk=250)
    connections = {part: connect(part) for part in (few, many)}
    scan = "select sum(dot(vector, vector)) from activations where model = 'm' and layer = 3"
    look_up = f"from activations where model = 'm' and prompt_id = '{_prompt_ids(9)[8]}'"
    figures = []
    for name, statement, goal in (("scan", scan, 11.0), ("look-up", look_up, 2.0)):
        ratios = []
        for _ in range(2 * ROUNDS):
            taken = {
                part: seconds(partial(query, connections[part], statement)) for part in (few, many)
            }
            ratios.append(taken[many] / taken[few])
        figures.append(median_figure(f"{name}: 10 x the rows / once", ratios, goal, "lower"))
    return figures


def _prompt_ids(count: int) -> list[str]:
    return [content_key(row) for row in range(count)]


def write_prompts(root: Path, count: int) -> np.ndarray:
    """A prompt set `set`, every second prompt positive; returns the labels."""
    ids, labels = _prompt_ids(count), np.arange(count) % 2 == 0
    prompts = [
        {"prompt_id": name, "position": row, "text": f"text {row}", "run_id": "bench"}
        for row, name in enumerate(ids)
    ]
    write_rows(root, "prompts", rows_table("prompts", prompts), name="set", partition="set")
    marked = [
        {"prompt_set": "set", "prompt_id": name, "label": "x", "is_positive": bool(label)}
        for name, label in zip(ids, labels, strict=True)
    ]
    described = [{**row, "run_id": "bench"} for row in marked]
    write_rows(root, "labels", rows_table("labels", described), name="set", partition="dataset")
    return labels


def write_activations(
    root: Path, model: str, layers: list[int], count: int, width: int, *, chunk: int
) -> None:
    """Files of `chunk` prompts, each with a row group per layer, as ingest writes them."""
    ids = _prompt_ids(count)
    vectors = np.random.default_rng(0).standard_normal((chunk, width), dtype=np.float32)
    # Prompts come in another order than that of the set: ingest runs them by length.
    order = np.random.default_rng(2).permutation(count)
    for start in range(0, count, chunk):
        names = [ids[row] for row in order[start : start + chunk]]
        groups = (_layer(model, layer, names, vectors[: len(names)]) for layer in layers)
        write_rows(root, "activations", groups, name=content_key(names), partition=model)


def _layer(model: str, layer: int, names: list[str], vectors: np.ndarray) -> pa.Table:
    described = [
        {
            "model_id": f"id-{model}",
            "prompt_id": name,
            "layer": layer,
            "site": "resid_post",
            "pooling": "last5_mean",
            "template": "raw",
            "rendered_hash": name,
            "token_count": 9,
            "pooled_start": 4,
            "pooled_end": 9,
            "pooled_tokens": list("abcde"),
            "run_id": "bench",
        }
        for name in names
    ]
    norms = np.linalg.norm(vectors, axis=1).astype(np.float32)
    return rows_table("activations", described, vector=vector_array(vectors), norm=pa.array(norms))


def link_models(root: Path, model: str, count: int) -> None:
    """The files of a model under other models' names too."""
    source = partition_folder(root, TABLES["activations"], model)
    for number in range(1, count):
        folder = partition_folder(root, TABLES["activations"], f"m{number}")
        folder.mkdir()
        for path in source.iterdir():
            os.link(path, folder / path.name)


def _space(model: str, width: int, layer_count: int) -> Space:
    return Space(model, f"id-{model}", 0, "last5_mean", "raw", width, layer_count)


def seconds(call: Callable[[], object], *, cold: Iterable[Path] = ()) -> float:
    """How long a call takes; the files of `cold` are dropped from the page cache before it."""
    for path in cold:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # Only pages that the disk has can be dropped.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
