"""A job on an object store stores what it stores on a disk, and goes on where it was killed."""

from __future__ import annotations

import pytest

from axes.ingest.generation.traces import ingest_traces
from axes.ingest.requests import TraceRequest
from axes.warehouse.storage.delta_log import DeltaLog
from tests.commands import ok, printed
from tests.ingest.conftest import activation_rows, ingest_texts, put_axis, put_texts, read

TEXTS = ["hello there", "hi", "what is a duck", "a"]
TRACES = TraceRequest(prompt_set="texts", layers=[0, 3], max_new_tokens=3)
TOKENS = (
    "select * exclude run_id from generation_tokens order by generation_id, layer, step, site",
    "select * exclude run_id from generations order by generation_id",
)


def test_activations_and_traces_are_bit_equal_to_those_on_a_disk(root, s3_root, llama):
    for place in (root, s3_root):
        put_texts(place, TEXTS)
        ingest_texts(place, llama)
        ingest_traces(place, llama, TRACES)
    here, there = activation_rows(root), activation_rows(s3_root)
    assert here.keys() == there.keys()
    assert all((here[key] == there[key]).all() for key in here)
    for sql in TOKENS:
        assert read(s3_root, sql) == read(root, sql) != []
    assert ingest_texts(s3_root, llama).new_count == 0
    assert ingest_traces(s3_root, llama, TRACES).new_count == 0


def test_projections_are_those_on_a_disk_and_are_stored_once(root, s3_root, llama):
    for place in (root, s3_root):
        put_texts(place, TEXTS)
        put_axis(place, llama, "axis", 1)
        ingest_texts(place, llama, axes=["axis"])
    sql = "select * exclude run_id from projections order by prompt_id"
    assert read(s3_root, sql) == read(root, sql) != []
    assert ingest_texts(s3_root, llama, axes=["axis"]).new_count == 0


def test_a_job_that_ends_between_object_and_commit_is_resumed(s3_root, llama, monkeypatch):
    put_texts(s3_root, TEXTS)
    commit = DeltaLog.commit

    def killed(log: DeltaLog, added: dict[str, object], removed: object = ()) -> None:
        if any(name.startswith("activations/") for name in added):
            raise SystemExit
        commit(log, added, removed)

    monkeypatch.setattr(DeltaLog, "commit", killed)
    with pytest.raises(SystemExit):
        ingest_texts(s3_root, llama)
    assert activation_rows(s3_root) == {}
    monkeypatch.setattr(DeltaLog, "commit", commit)
    assert ingest_texts(s3_root, llama).new_count == len(TEXTS)
    assert len({key[1] for key in activation_rows(s3_root)}) == len(TEXTS)


def test_the_commands_take_the_address_of_a_root(s3, llama_folder, tmp_path):
    prompts = tmp_path / "mine.csv"
    prompts.write_text("text,label\nhello,safe\nbad,unsafe\n")
    root = ("--root", s3)
    ok("prompts", "import", "mine", prompts, *root)
    ok("ingest", "activations", llama_folder, "--prompts", "mine", "--layers", "1", *root)
    (row,) = printed("sql", "select count(*) as number from activations", *root)
    assert row["number"] > 0 and row["number"] % 2 == 0
