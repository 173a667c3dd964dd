"""On workers of Ray a job stores the bits of a job in one process, whichever process is killed.

One small cluster for all tests of a process; each job starts workers of its own, which takes
seconds, so few tests start one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from axes.ingest.activations import ingest_activations, plan_activations
from axes.ingest.cluster import pool as pools
from axes.ingest.cluster.worker import Opening, Worker, versions
from axes.ingest.generation.traces import ingest_traces
from axes.ingest.requests import Placement, TraceRequest
from axes.warehouse.errors import ModelError
from axes.warehouse.storage import leases
from tests.commands import refused
from tests.ingest.conftest import (
    activation_rows,
    assert_checks_pass,
    exit_codes,
    for_texts,
    forked,
    identity_of,
    last_run,
    put_axis,
    put_texts,
    read,
)
from tests.ingest.processes import run_traces_on_ray

TEXTS = [f"prompt {number} {'x' * (number % 11)}" for number in range(60)]
# Some of them with examples before them, of which some go on in another turn.
EXAMPLES = (
    "",
    "north is to south as ",
    "seven is to eight as ",
    "seven is to eight as. And then: ",
)
TEXTS_OF_TREE = [f"{EXAMPLES[at % 4]}{text}" for at, text in enumerate(TEXTS)]
SYSTEM = {"template": "chat", "system": "You answer in few words."}
TRACES = {"layers": [1], "max_new_tokens": 3, "batch_size": 3, "temperature": 1.0}
DIES = """
import os
from pathlib import Path
from axes.ingest.forward.pooling import Pooling, mean

def reduce(hidden, mask):
    try:
        Path({flag!r}).unlink()
    except FileNotFoundError:
        return mean(hidden, mask)
    os._exit(137)

POOLING = Pooling("dies", lambda count, user_end: (max(count - 4, 0), count), reduce)
"""


@pytest.fixture(scope="module")
def cluster(s3_server: str) -> Iterator[str]:
    """The address of a Ray of two places, whose workers reach the S3 server of the tests."""
    ray = pytest.importorskip("ray")
    environment = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "not-a-secret-of-anybody",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        options: Any = {"include_dashboard": False, "configure_logging": False}
        context = ray.init("local", num_cpus=2, log_to_driver=False, **options)
        yield context.address_info["gcs_address"]
        ray.shutdown()


def on_ray(workers: int) -> Placement:
    return Placement(on="ray", workers=workers)


def test_activations_have_the_bits_of_one_process_though_a_worker_is_killed(
    cluster, root, llama, tmp_path, monkeypatch, capfd
):
    """In three slices, with prefixes that all prompts share, and some of them."""
    monkeypatch.setattr("axes.ingest.prompts.SLICE", 25)
    put_texts(root, TEXTS_OF_TREE)
    other = shutil.copytree(root, tmp_path / "other")
    flag, file = tmp_path / "flag", tmp_path / "dies.py"
    file.write_text(DIES.format(flag=str(flag)))
    request = for_texts(
        poolings=("last5_mean", str(file)), token_layers=(2,), token_budget=70, **SYSTEM
    )
    here = ingest_activations(other, llama, request)
    whole = plan_activations(root, llama, replace(request, shares_prefix=False))
    system = len(f"<system>{SYSTEM['system']}<user>") + 1
    assert here.tokens < whole.tokens - 57 * system - 25 * len(EXAMPLES[1])
    flag.touch()
    there = ingest_activations(root, llama, request, on_ray(2))
    assert not flag.exists()
    assert (there.rows, there.new_count) == (here.rows, here.new_count) == (here.rows, 60)
    expected, stored = activation_rows(other), activation_rows(root)
    assert expected.keys() == stored.keys()
    assert all((stored[key] == expected[key]).all() for key in expected)
    tokens = "select * exclude run_id from prompt_tokens order by prompt_id, layer, position"
    assert read(root, tokens) == read(other, tokens) != []
    assert_checks_pass(root)
    printed = capfd.readouterr()
    assert "warning: a worker was lost" in printed.err and not printed.out
    run = last_run(root)
    shares = json.loads(run["parameters"])["shares"]
    assert sum(share["rows"] for share in shares) == run["rows"] == here.rows
    assert ingest_activations(root, llama, request, on_ray(2)).new_count == 0


def test_projections_have_the_bits_of_one_process(cluster, root, llama, tmp_path):
    put_texts(root, TEXTS)
    put_axis(root, llama, "axis", 1)
    other = shutil.copytree(root, tmp_path / "other")
    request = for_texts(axes=["axis"])
    ingest_activations(other, llama, request)
    assert ingest_activations(root, llama, request, on_ray(1)).rows == len(TEXTS)
    sql = "select * exclude run_id from projections order by prompt_id"
    assert read(root, sql) == read(other, sql) != []
    assert ingest_activations(root, llama, request, on_ray(1)).new_count == 0


def test_traces_on_a_bucket_go_on_where_the_driver_was_killed(
    cluster, s3_root, root, llama, llama_folder, monkeypatch
):
    for place in (root, s3_root):
        put_texts(place, TEXTS[:20])
    request = TraceRequest(prompt_set="texts", **TRACES)
    ingest_traces(root, llama, request)
    environment = {
        name: value for name, value in os.environ.items() if name.startswith(("AWS", "RAY", "AXES"))
    }
    driver = forked(run_traces_on_ray, s3_root, llama_folder, TRACES, cluster, environment)
    assert exit_codes([driver]) == [-signal.SIGKILL]
    before = read(s3_root, "select generation_id from generations")
    assert 0 < len(before) < 20
    # Its lease is as good as run out.
    for name, seconds in {"_LIFE": 2.0, "_BEAT": 0.2, "_LOOK": 0.05}.items():
        monkeypatch.setattr(leases, name, seconds)
    summary = ingest_traces(s3_root, llama, request, on_ray(1))
    assert summary.new_count == 20 - len(before)
    for sql in (
        "select * exclude run_id from generation_tokens order by generation_id, layer, step",
        "select * exclude run_id from generations order by generation_id",
    ):
        assert read(s3_root, sql) == read(root, sql) != []


def test_a_worker_with_other_libraries_is_refused(cluster, root, llama, monkeypatch):
    put_texts(root, TEXTS)
    monkeypatch.setattr(pools, "versions", lambda: {**versions(), "transformers": "4.0.0"})
    with pytest.raises(ModelError, match=r"has transformers 5\S+, the driver 4\.0\.0: install the"):
        ingest_activations(root, llama, for_texts(), on_ray(1))
    assert activation_rows(root) == {}
    assert last_run(root)["status"] == "failed"


def test_a_worker_with_other_weights_is_refused(root, llama):
    key = identity_of(llama).model_id
    opening = Opening(root, llama, for_texts(), "f" * 16, versions(), "run", 1, None, {})
    with pytest.raises(ModelError, match=f"other files of tiny-llama .*key {key}, the driver's f"):
        Worker().start(opening)


def test_without_ray_the_options_say_what_to_do(root, llama_folder, monkeypatch):
    put_texts(root, ["hi"])
    words = ("ingest", "activations", llama_folder, "--prompts", "texts", "--root", root)
    assert refused(*words, "--workers", 2).endswith("--workers needs --on ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refused(*words, "--on", "ray").endswith("pip install 'safety-axes[ray]'")
    assert read(root, "from runs") == []
