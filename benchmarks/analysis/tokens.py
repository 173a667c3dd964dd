"""Scores of stored tokens against reading these tokens once.

A token probe scores a prompt by its tokens' projections while they pass by in blocks; the other
side only decodes the same blocks from the same files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from axes.analysis.activations import find_space, load_matrix
from axes.analysis.token_rows import TokenRows
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import layer_batches
from benchmarks.run import Figure, alternate, median_figure, ratios, seconds
from tests.token_worlds import LAYER, MODEL, make_token_world

POOLINGS = ("tokens_mean", "tokens_max", "tokens_rolling_max@10")
WIDTH, PAIRS, LENGTH, ROUNDS = 576, 400, 250, 5
TIMES = 1.2


def measure(
    width: int = WIDTH, pairs: int = PAIRS, length: int = LENGTH, rounds: int = ROUNDS
) -> Iterator[Figure]:
    """The time to score all prompts on a direction over that of reading their tokens."""
    with TemporaryDirectory() as folder:
        made = make_token_world(Path(folder) / "lake", {"set": (pairs, length)}, width=width)
        warehouse = Warehouse.open(made.root)
        for pooling in POOLINGS:
            space = find_space(warehouse, MODEL, pooling=pooling).at(LAYER)
            x = load_matrix(warehouse, space, "set").x
            assert isinstance(x, TokenRows)
            keys = {key: value for key, value in space.columns.items() if key != "pooling"}
            where = (warehouse.connection, MODEL, keys, LAYER, "prompt_tokens")
            scored, read = alternate(
                rounds,
                lambda x=x: seconds(lambda: x.project(made.axis[:, None])),
                lambda where=where: seconds(lambda: deque(layer_batches(*where), maxlen=0)),
            )
            conditions = f"{sum(map(len, made.tokens['set'])):,} tokens, width {width}"
            name = f"{pooling}: scores / reading the tokens"
            yield median_figure(name, ratios(scored, read), TIMES, "lower", conditions)
