"""What ingest costs: over the bare model, against other libraries, in memory and at the start.

Each part can be run alone (`make bench ONLY=ingest.floor`). The prompts are the built-in
`demo_alignment`; with `BENCH_PROMPTS=alpaca.parquet` those of that file.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.run import Figure


def measure() -> Iterator[Figure]:
    """All parts, one after the other."""
    from benchmarks.ingest import early_exit, floor, memory, peer_ratios, prefixes, startup

    for part in (floor, early_exit, prefixes, peer_ratios, memory, startup):
        yield from part.measure()
