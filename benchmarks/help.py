"""Wall time of `axes --help`, beside a Python that does nothing: what Tab waits for.

And the processor time of a query, beside the libraries that it cannot do without.
"""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

from axes.warehouse.connection import connect
from axes.warehouse.storage.layout import init_root
from benchmarks.run import Figure, alternate, median_figure, python, ratios, seconds

ROUNDS = 11
HELP_GOAL = 0.150
QUERY_GOAL = 0.300
_AXES = "from axes.cli.main import main; main()"


def measure() -> Iterator[Figure]:
    """Seconds of the help and of a completion, and how many bare interpreters the help is."""
    bare, helped, completed = alternate(
        ROUNDS,
        lambda: seconds(lambda: python("-c", "pass")),
        lambda: seconds(lambda: python("-c", _AXES, "--help")),
        lambda: seconds(lambda: python("-c", _COMPLETION)),
    )
    yield median_figure("axes --help, seconds", helped, HELP_GOAL, "lower")
    yield median_figure("axes --help / python -c pass", ratios(helped, bare), None, "lower")
    yield median_figure("completing a model's name, seconds", completed, None, "lower")
    yield from _query()


def _query() -> Iterator[Figure]:
    """Processor seconds of `axes sql "select 1"` on an empty root that was opened before."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "lake"
        init_root(root)
        connect(root)
        libraries, query = alternate(
            ROUNDS,
            lambda: _processor_seconds("-c", "import duckdb, pyarrow.parquet; duckdb.connect()"),
            lambda: _processor_seconds("-c", _AXES, "sql", "select 1", "--root", root),
        )
    yield median_figure('axes sql "select 1", processor seconds', query, QUERY_GOAL, "lower")
    yield median_figure("axes sql / duckdb and pyarrow", ratios(query, libraries), None, "lower")


def _processor_seconds(*arguments: object) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# As the shell's script asks: words and the number of the one that is completed.
_COMPLETION = """
import os
os.environ |= {"_AXES_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
os.environ["COMP_WORDS"] = "axes models fetch smol"
import sys
sys.argv = ["axes"]
from axes.cli.main import main
main()
"""
