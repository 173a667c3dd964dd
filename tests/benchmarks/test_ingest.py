"""What is compared is the same work: whole jobs on fresh roots, peers that read our vectors."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from axes.warehouse.connection import connect, rows
from benchmarks import gpu
from benchmarks.ingest import floor, prefixes
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


def test_prefixes_are_compared_on_the_same_vectors(work: Workload, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("AXES_BENCH_PROMPTS", "")
    for name, value in (("PROMPT_COUNT", 16), ("ROUNDS", 1), ("FAMILIES", 2)):
        monkeypatch.setattr(prefixes, name, value)
    figures = {each.name: each for each in prefixes.measure(str(work.folder))}
    for what in ("one prefix", "2 prefixes"):
        assert figures[f"{what}: largest difference over norm"].holds
        assert figures[f"{what}: tokens run, shared / recomputed"].value < 0.95


def test_the_benchmark_of_a_gpu_says_that_there_is_none_and_runs_on_a_cpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert list(gpu.measure()) == [] and "not measured: no CUDA device" in capsys.readouterr().out
    monkeypatch.setattr(gpu, "PROMPT_COUNT", 8)
    monkeypatch.setattr(floor, "ROUNDS", 2)
    (figure,) = gpu.measure("cpu", {"max_position_embeddings": 512})
    assert figure.low <= figure.value <= figure.high and "interval of 2 rounds" in figure.conditions
