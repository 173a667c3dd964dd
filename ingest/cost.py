"""The price of storing activations before a model runs: rows, bytes, files, requests, time, money.

The one model of it, for `axes plan`, `axes study --estimate` and `axes models show --estimate`. A
row is its vector and about 40 bytes. A layer is read by the footer of each file and one range for
each row group. A token takes two operations for each linear weight of the blocks that run. Where
the warehouse has files or a finished job of the model, bytes and speed are the measured ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from axes.ingest.models.load import require_layers
from axes.warehouse.handle import Warehouse
from axes.warehouse.progress import byte_text
from axes.warehouse.storage.layout import partition_folder
from axes.warehouse.storage.store import store_at
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import ROW_GROUP_BYTES

if TYPE_CHECKING:
    from axes.ingest.model_estimate import Estimate
    from axes.ingest.prompts import Prompt
    from axes.ingest.requests import PlanRequest

# A round number, from which users can scale the time to their speed.
TERAFLOPS = 1.0
# A prompt of the built-in sets has 18 tokens on average.
TOKENS_PER_PROMPT = 20.0

# The built-in sets have 4.1: 74.6 characters in 18 tokens on average.
_CHARACTERS_PER_TOKEN = 4.0
# Of a stored row without its vector, measured: 41 bytes where d_model is 640, 39 at 576.
_ROW_BYTES = 40.0
# Of a stored projection, measured on the demo.
PROJECTION_BYTES = 21.0
# Stored bytes of a vector's number; of the rounded ones as measured on the demo.
_NUMBER_BYTES = {"float32": 4.0, "float16": 1.8, "bfloat16": 1.4}
_TERA = 1e12
# Enough for a mean: the footers of a large warehouse take minutes.
_MEASURED_FILES = 32


@dataclass(frozen=True)
class Measured:
    """Of a model in a warehouse: bytes of a row without its vector, tokens per second; or None."""

    row_bytes: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True)
class Cost:
    """What `model_count` models take; None where only fetching the model, or a rate, can tell.

    `layer_requests` read one layer of one model. `compute_cost` and `storage_cost`, for a month,
    are in the currency of the rates. `bytes_from` is schema or files, `seconds_from` operations or
    job.
    """

    model: str
    model_count: int
    prompt_count: int
    token_count: int
    bytes_from: str
    seconds_from: str
    rows: int | None = None
    bytes: int | None = None
    files: int | None = None
    layer_requests: int | None = None
    seconds: float | None = None
    compute_cost: float | None = None
    storage_cost: float | None = None


_UNMEASURED = Measured()
# Column of a cost -> its heading for people, and its text.
_WORDS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "token_count": ("tokens", "{:,}".format),
    "rows": ("rows", "{:,}".format),
    "bytes": ("stored", byte_text),
    "files": ("files", "{:,}".format),
    "layer_requests": ("requests of a layer", "{:,}".format),
    "seconds": ("time", lambda seconds: str(timedelta(seconds=round(seconds)))),
    "compute_cost": ("compute", "{:,.2f}".format),
    "storage_cost": ("storage, a month", "{:,.2f}".format),
}


def row_bytes(d_model: int, besides: float | None = None, store_dtype: str = "float32") -> float:
    """Bytes of a stored row: its vector, and `besides` (default: as measured on the demo).

    >>> row_bytes(576)
    2344.0
    """
    return _NUMBER_BYTES[store_dtype] * d_model + (_ROW_BYTES if besides is None else besides)


def estimated_tokens(prompts: Iterable[Prompt]) -> int:
    """Tokens of the prompts, by the length of their texts."""
    return round(sum(len(prompt.text) for prompt in prompts) / _CHARACTERS_PER_TOKEN)


def measure_stored(root: Path, model: str) -> Measured:
    """What a warehouse has of a model: its files, and of its finished jobs that of most tokens."""
    store = store_at(root)
    if not store.exists():
        return _UNMEASURED
    rows = besides = 0
    store.refresh("activations")
    files = store.files(partition_folder(root, TABLES["activations"], model))
    for path in files[:_MEASURED_FILES]:
        footer = pq.read_metadata(store.source(path))
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        columns = [group.column(index) for group in groups for index in range(group.num_columns)]
        vectors = [each for each in columns if each.path_in_schema.startswith("vector.")]
        rows += footer.num_rows
        besides += store.size(path) - sum(each.total_compressed_size for each in vectors)
    speeds = Warehouse.open_tables(root, "runs").column(
        """
        select tokens_per_second
        from runs
        where
            command = 'ingest activations' and status = 'finished'
            and parameters ->> '$.model' = ? and tokens_per_second > 0
            and coalesce(parameters ->> '$.axes', '[]') = '[]'
        order by tokens desc, run_id desc
        limit 1
        """,
        [model],
    )
    return Measured(besides / rows if rows else None, speeds[0] if speeds else None)


def cost_of(
    estimate: Estimate,
    request: PlanRequest,
    prompt_count: int,
    token_count: int,
    measured: Measured = _UNMEASURED,
) -> Cost:
    """The cost of prompts of `token_count` tokens in all; raises `LayerError`."""
    is_timed = measured.tokens_per_second is not None and request.teraflops is None
    cost = Cost(
        model=estimate.model,
        model_count=request.copies,
        prompt_count=prompt_count,
        token_count=request.copies * token_count,
        bytes_from="schema" if measured.row_bytes is None else "files",
        seconds_from="job" if is_timed else "operations",
    )
    width, layer_count = estimate.d_model, estimate.layer_count
    weights = estimate.linear_parameter_count
    if width is None or layer_count is None or weights is None:
        return cost
    layers = range(layer_count) if request.layers is None else request.layers
    require_layers(estimate.model, layer_count, layers)
    layer_rows = prompt_count * request.vectors
    bytes_of_row = row_bytes(width, measured.row_bytes, request.store_dtype)
    size = round(layer_rows * len(layers) * bytes_of_row)
    files = max(math.ceil(size / (request.file_mib << 20)), 1)
    # Row groups are cut by the size of the vectors in memory.
    groups = math.ceil(layer_rows * row_bytes(width, 0.0) / files / ROW_GROUP_BYTES)
    speed = (request.teraflops or TERAFLOPS) * _TERA * request.efficiency / (2 * weights)
    if is_timed and measured.tokens_per_second is not None:
        speed = measured.tokens_per_second
    # The blocks above the highest layer are not run.
    seconds = request.copies * token_count / speed * (max(layers) + 1) / layer_count
    size *= request.copies
    return replace(
        cost,
        rows=request.copies * layer_rows * len(layers),
        bytes=size,
        files=request.copies * files,
        layer_requests=files * (1 + groups),
        seconds=seconds,
        compute_cost=None if request.rate is None else request.rate * seconds / 3600,
        storage_cost=None if request.storage_rate is None else request.storage_rate * size / _TERA,
    )


def in_words(costs: Sequence[Cost]) -> list[dict[str, str | None]]:
    """The costs as rows for people, with their sums in a last row where there are several."""
    counts = [f" x {cost.model_count:,}" if cost.model_count > 1 else "" for cost in costs]
    names = [cost.model + count for cost, count in zip(costs, counts, strict=True)]
    rows: list[Mapping[str, Any]] = [asdict(cost) for cost in costs]
    if len(rows) > 1:
        columns = {name: [row[name] for row in rows] for name in _WORDS}
        sums = {name: None if None in each else sum(each) for name, each in columns.items()}
        rows.append({**sums, "layer_requests": None})
        names.append(f"all {sum(cost.model_count for cost in costs):,}")
    return [
        {
            "model": model,
            **{
                heading: None if row[name] is None else text(row[name])
                for name, (heading, text) in _WORDS.items()
            },
        }
        for model, row in zip(names, rows, strict=True)
    ]
