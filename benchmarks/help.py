"""Wall time of `axes --help`, beside a Python that does nothing: what Tab waits for."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.run import Figure, alternate, median_figure, python, ratios, seconds

ROUNDS = 11
HELP_GOAL = 0.150
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
