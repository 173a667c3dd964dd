"""Jobs beside each other on one root: all end well, every row is there once."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import axes.ingest.activation_writer
import axes.ingest.jobs
import axes.ingest.sinks
from axes.ingest.activation_writer import ChunkWriter
from axes.ingest.activations import ingest_activations
from axes.ingest.generation.traces import ingest_traces
from axes.ingest.models.load import LoadedModel
from axes.ingest.models.registry import ModelSpec
from axes.ingest.requests import ActivationRequest, TraceRequest
from axes.warehouse.maintenance.merge import merge
from axes.warehouse.storage.layout import init_root
from tests.ingest.conftest import (
    ImportTexts,
    activation_rows,
    assert_checks_pass,
    exit_codes,
    forked,
    ingest_texts,
    last_run,
    read,
)
from tests.ingest.processes import TRACES, run_activations, run_traces

TEXTS = [f"prompt number {index}" for index in range(40)]


@pytest.fixture(autouse=True)
def prompts(import_texts: ImportTexts) -> None:
    import_texts(TEXTS)


def counts(root: Path, table: str, *key: str) -> tuple[int, int]:
    """How many rows, and how many of different keys."""
    names = ", ".join(key)
    (found,) = read(root, f"select count(*) as n, count(distinct ({names})) as k from {table}")
    return found["n"], found["k"]


@pytest.mark.parametrize("shards", [[None, None], ["1/2", "2/3", "2/2"], ["1/1", None, "3/4"]])
def test_jobs_on_overlapping_parts_store_each_row_once(root, llama_folder, shards):
    jobs = [forked(run_activations, root, llama_folder, shard) for shard in shards]
    assert exit_codes(jobs) == [0] * len(jobs)
    pooled = counts(root, "activations", "prompt_id", "layer", "site", "pooling")
    assert pooled == (len(TEXTS) * 16, len(TEXTS) * 16)
    tokens = sum(2 * (len(text) + 1) for text in TEXTS)
    assert counts(root, "prompt_tokens", "prompt_id", "site", "position") == (tokens, tokens)
    found = read(root, "select rows from runs where status = 'finished' order by rows")
    written = [row["rows"] for row in found]
    assert sum(written) == len(TEXTS) * 16 + tokens
    # Of two jobs on the same rows the second waits, and then finds them stored.
    assert shards != [None, None] or written == [0, len(TEXTS) * 16 + tokens]
    assert_checks_pass(root)


def test_what_others_store_while_the_weights_are_loaded_is_not_stored_again(
    root: Path, llama: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = axes.ingest.jobs.load

    def slowly(*arguments: Any) -> LoadedModel:
        with monkeypatch.context() as patch:
            patch.setattr(axes.ingest.jobs, "load", load)
            assert ingest_texts(root, llama, shard="1/2").rows > 0
        return load(*arguments)

    monkeypatch.setattr(axes.ingest.jobs, "load", slowly)
    ingest_texts(root, llama)
    assert len(activation_rows(root)) == 4 * len(TEXTS)
    assert_checks_pass(root)


def test_what_others_stored_before_one_commit_is_left_out_of_all_later_ones(
    root: Path, llama: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Prompts in two groups, by what they lack: the second begins after the other job has written.
    ingest_activations(root, llama, ActivationRequest(prompt_sets={"texts": 10}, layers=(0,)))
    flush, flushed = ChunkWriter.flush, []

    def flush_after_another_job(writer: ChunkWriter) -> None:
        if not flushed:
            flushed.append(writer)
            with monkeypatch.context() as patch:
                patch.setattr(axes.ingest.activation_writer, "_FLUSH_BYTES", 64 << 20)
                ingest_texts(root, llama, shard="1/2")
        flush(writer)

    monkeypatch.setattr(axes.ingest.activation_writer, "_FLUSH_BYTES", 1)
    monkeypatch.setattr(ChunkWriter, "flush", flush_after_another_job)
    ingest_texts(root, llama, token_budget=40)
    assert len(activation_rows(root)) == 4 * len(TEXTS)
    assert_checks_pass(root)


def test_clearing_up_spares_the_tokens_of_a_job_on_another_version_of_the_model(
    root: Path, llama: ModelSpec, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = axes.ingest.sinks.write_rows
    other = forked(run_traces, root, llama_folder, "bfloat16")

    def pause_between_tables(*arguments: Any, **options: Any) -> Path:
        path = write(*arguments, **options)
        if arguments[1] == "generation_tokens" and other.pid is None:
            other.start()
            while len(list((root / "runs").glob("*.parquet"))) < 3:
                time.sleep(0.01)
            # The other job is at work: it clears up at once, unless it waits for this one.
            other.join(0.3)
        return path

    monkeypatch.setattr(axes.ingest.sinks, "write_rows", pause_between_tables)
    ingest_traces(root, llama, TraceRequest(prompt_set="texts", **TRACES))
    other.join(120)
    assert other.exitcode == 0
    assert counts(root, "generations", "prompt_id", "model_id") == (80, 80)
    assert_checks_pass(root)


def test_two_processes_that_start_a_warehouse_do_not_disturb_each_other(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    starters = [forked(init_root, fresh) for _ in range(6)]
    assert exit_codes(starters) == [0] * 6
    assert read(fresh, "select count(*) as n from activations") == [{"n": 0}]


def test_parts_run_in_roots_of_their_own_are_merged_into_one(root, llama, tmp_path):
    for number in (1, 2, 3):
        part = shutil.copytree(root, tmp_path / f"part{number}")
        assert ingest_texts(part, llama, shard=f"{number}/3").rows > 0
        assert last_run(part)["status"] == "finished"
    merge(root, [tmp_path / f"part{number}" for number in (1, 2, 3)])
    together = activation_rows(root)
    assert len(together) == 4 * len(TEXTS)
    assert_checks_pass(root)
    assert ingest_texts(root, llama).new_count == 0
