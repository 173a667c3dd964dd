"""What analysis costs, against the obvious script with scikit-learn, and in memory.

Each part can be run alone (`make bench ONLY=analysis.ridge_path`).
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.run import Figure


def measure() -> Iterator[Figure]:
    """All parts, one after the other."""
    from benchmarks.analysis import auroc, concepts, ridge_path, streaming, sweep, tokens

    for part in (ridge_path, sweep, auroc, streaming, concepts, tokens):
        yield from part.measure()
