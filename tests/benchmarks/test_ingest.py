"""What is compared is the same work: whole jobs on fresh roots, peers that read our vectors."""

from __future__ import annotations

import sys
from pathlib import Path

from axes.warehouse.connection import connect, rows
from benchmarks.ingest.peer_ratios import PEERS, agreement, our_vectors, running
from benchmarks.ingest.workload import Workload


def test_a_round_stores_every_row_anew_and_leaves_no_root_behind(work: Workload) -> None:
    before = set(work.lake.rglob("*"))
    roots: list[Path] = []
    for _ in range(2):
        with work.fresh_root() as root:
            work.run_job(root)
            roots.append(root)
            assert rows(connect(root), "select count(*) as n from activations") == [{"n": 4 * 4}]
    assert work.job_seconds() > 0
    assert set(work.lake.rglob("*")) == before
    assert not any(root.exists() for root in roots)


def test_a_peer_of_its_own_process_reads_the_vectors_that_we_store(work: Workload) -> None:
    peer = next(peer for peer in PEERS if peer.requirement is None)
    ours = our_vectors(work)
    assert ours[peer.pooling].shape == (4, 4, 32)
    with running(peer, Path(sys.executable), work) as process:
        theirs = process.vectors()
        assert process.seconds() > 0
    assert agreement(peer, theirs, ours[peer.pooling]).holds
    assert not agreement(peer, theirs[::-1], ours[peer.pooling]).holds
