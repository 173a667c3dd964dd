"""A root on an S3 server of this machine, which counts the requests and the bytes that it answers.

The server is a process of its own, so that its work is not that of the process that is timed:
`python -m benchmarks.object_store` prints its address; `/counts` has what it was asked for since.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from axes.ingest.forward.activation_keys import stored_items
from axes.warehouse.connection import connect
from axes.warehouse.layers import layer_batches
from axes.warehouse.maintenance.compaction import compact
from axes.warehouse.maintenance.subset import subset
from axes.warehouse.storage import store
from axes.warehouse.storage.delta_log import DeltaLog
from axes.warehouse.storage.layout import init_root
from axes.warehouse.storage.ledger import Record
from axes.warehouse.storage.objects import Objects
from axes.warehouse.storage.roots import RemoteRoot, root_path
from axes.warehouse.tables.schemas import TABLES
from benchmarks.run import Figure, seconds
from benchmarks.warehouse import write_activations, write_prompts
from tests.worlds import write_model

_KEYS = {"site": "resid_post", "pooling": "last5_mean", "template": "raw", "model_id": "id-m0"}
_BUCKET = "lakes"


@dataclass(frozen=True)
class Counts:
    """Requests by kind (`log`, `data` and others) and the bytes answered by them."""

    requests: Counter[str]
    bytes: Counter[str]


@contextmanager
def serving(cache_folder: Path) -> Iterator[Callable[[Callable[[], object]], Counts]]:
    """A server that the environment leads to; what is yielded counts the requests of a call."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.object_store"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    address = server.stdout.readline().strip()

    def ask(path: str, method: str = "GET") -> bytes:
        with urllib.request.urlopen(urllib.request.Request(address + path, method=method)) as it:
            return it.read()

    def counted(call: Callable[[], object]) -> Counts:
        ask("/counts")
        call()
        requests, answered = json.loads(ask("/counts"))
        return Counts(Counter(requests), Counter(answered))

    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    places = {"AWS_ENDPOINT_URL": address, "AXES_CACHE": str(cache_folder)}
    try:
        ask(f"/{_BUCKET}", "PUT")
        with mock.patch.dict(os.environ, keys | places):
            yield counted
    finally:
        server.terminate()
        server.wait()


def figures(folder: Path, *, file_count: int, named_count: int) -> Iterator[Figure]:
    """Requests and bytes of reading, committing and resuming; seconds of opening a large log."""
    with serving(folder / "cache") as counted:
        yield from _one_layer(folder / "layer", counted)
        yield from _resume(folder / "resume", counted, file_count)
        yield from _log(counted, file_count, named_count)


def _opened(name: str, local: Path) -> RemoteRoot:
    root = root_path(f"s3://{_BUCKET}/{name}")
    subset(local, root)
    return _as_a_new_process(root)


def _as_a_new_process(root: Path) -> RemoteRoot:
    store._remote.cache_clear()
    assert isinstance(root, RemoteRoot)
    return root


def _one_layer(
    local: Path, counted: Any, *, prompts: int = 4096, width: int = 256, layers: int = 50
) -> Iterator[Figure]:
    """One layer of one model, after compaction and before: over the bytes of its vectors."""
    init_root(local)
    write_prompts(local, prompts)
    write_model(local, "m0", width, layers)
    write_activations(local, "m0", list(range(layers)), prompts, width, chunk=512)
    root = _opened("layer", local)
    for name in ("as ingested", "compacted"):
        connection = connect(_as_a_new_process(root))

        def read(connection: Any = connection) -> None:
            batches = layer_batches(connection, "m0", _KEYS, layers // 2)
            assert sum(len(names) for names, _ in batches) == prompts

        found = counted(read)
        ratio = sum(found.bytes.values()) / (prompts * width * 4)
        yield Figure(f"S3, {name}: bytes read for one layer / its vectors", ratio, 1.5, "lower")
        count = sum(found.requests.values())
        yield Figure(f"S3, {name}: requests for one layer", count, None, "lower")
        if name == "as ingested":
            compact(root, ["activations"])


def _resume(local: Path, counted: Any, file_count: int) -> Iterator[Figure]:
    """What decides that nothing is left to do, on a machine that has not seen the root."""
    init_root(local)
    write_model(local, "m0", 8, 2)
    write_activations(local, "m0", [0, 1], 2 * file_count, 8, chunk=2)
    root = _opened("resume", local)
    for machine in ("the first machine", "another machine"):
        with mock.patch.dict(os.environ, AXES_CACHE=str(local / machine)):
            found = counted(lambda: stored_items(_as_a_new_process(root), "m0", "id-m0", "raw"))
        name = f"S3: requests of a resume of {file_count:,} files on {machine}"
        goal = 10.0 if machine == "another machine" else None
        yield Figure(name, sum(found.requests.values()), goal, "lower")


def _log(counted: Any, file_count: int, named_count: int) -> Iterator[Figure]:
    """The log alone: files of it that nothing reads have no objects."""
    objects, table = Objects(root_path(f"s3://{_BUCKET}/log")), TABLES["activations"]
    log, random = DeltaLog(objects, table), np.random.default_rng(0)

    def commit(count: int) -> None:
        names = [random.bytes(16).hex() for _ in range(count)]
        folders = [f"activations/model=m{number % 100}" for number in range(count)]
        records = {
            f"{folder}/{name[:16]}.{name[16:]}.parquet": Record(800, 48 << 20, name, {"run": 800})
            for folder, name in zip(folders, names, strict=True)
        }
        log.commit(records)

    commit(1)
    found = counted(lambda: commit(file_count))
    name = f"S3: requests of a commit of {file_count:,} files"
    yield Figure(name, sum(found.requests.values()), 10.0, "lower")
    while len(log.files) < named_count:
        commit(min(1000, named_count - len(log.files)))
    new = DeltaLog(objects, table)
    took = seconds(new.refresh)
    assert len(new.files) == len(log.files)
    yield Figure(f"S3: seconds to open a log of {named_count:,} files", took, 2.0, "lower")


@cache
def _kind(path: str) -> str:
    return "log" if "_delta_log" in path else "data" if path.endswith(".parquet") else "other"


def _serve() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    application = DomainDispatcherApplication(create_backend_app)
    requests: Counter[str] = Counter()
    answered: Counter[str] = Counter()

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    def counting(environment: dict[str, Any], start: Any) -> Any:
        path = environment["PATH_INFO"]
        if path == "/counts":
            content = json.dumps([requests, answered]).encode()
            requests.clear()
            answered.clear()
            start("200 OK", [("Content-Length", str(len(content)))])
            return [content]
        kind = _kind(path + environment["QUERY_STRING"])
        requests[kind] += 1
        body = b"".join(application(environment, start))
        answered[kind] += len(body)
        return [body]

    server = make_server("127.0.0.1", 0, counting, threaded=True, request_handler=Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve()
