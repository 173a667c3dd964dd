"""Jobs and commands in processes of their own, which can be killed, interrupted or starved of disk.

They are forked from one that has imported everything (`forked`), so that what happens to them
happens in their work and not in their imports. Nothing here needs pytest.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

import axes.ingest.activation_writer
import axes.ingest.activations
import axes.ingest.generation.traces
import axes.ingest.sinks
from axes.cli.main import main
from axes.ingest.models.registry import resolve
from axes.ingest.requests import Placement, TraceRequest
from tests.ingest.conftest import ingest_texts

# Sixteen row groups of pooled vectors and two of single tokens: each commit writes two tables.
SELECTION = {
    "sites": ("resid_post", "mlp_out"),
    "poolings": ("last5_mean", "last"),
    "token_layers": (1,),
}
TRACES = {"layers": [1, 3], "max_new_tokens": 3, "batch_size": 2, "temperature": 1.0}

# Tokens in one table, their projections on the axis called `axis` in another.
PROJECTED = {**TRACES, "layers": None, "axes": ["axis"], "prompt_tokens": True}

# Where a job can kill itself: the table that is being written, the instant, and which time.
Instant = tuple[str, str, int]
INSTANTS = ("begin", "within", "before fsync", "after fsync", "after rename", "end")


def run_activations(
    root: Path, model: Path, shard: str | None = None, instant: Instant | None = None
) -> None:
    """Run the job with a commit for every batch."""
    _prepare(instant)
    spec = resolve(str(model))
    ingest_texts(root, spec, **SELECTION, token_budget=30, shard=shard)


def run_axis_projections(root: Path, model: Path, instant: Instant | None = None) -> None:
    """Run the job that stores projections on the axis and no vectors; it commits every batch."""
    _prepare(instant)
    ingest_texts(root, resolve(str(model)), axes=["axis"], token_budget=30)


def run_traces(
    root: Path, model: Path, dtype: str | None = None, instant: Instant | None = None
) -> None:
    """Run the job that keeps vectors, which commits every batch."""
    _prepare(instant)
    request = TraceRequest(prompt_set="texts", dtype=dtype, **TRACES)
    axes.ingest.generation.traces.ingest_traces(root, resolve(str(model)), request)


def run_projected(root: Path, model: Path, instant: Instant | None = None) -> None:
    """Run the job that keeps projections and no vectors; it commits every batch."""
    _prepare(instant)
    request = TraceRequest(prompt_set="texts", **PROJECTED)
    axes.ingest.generation.traces.ingest_traces(root, resolve(str(model)), request)


def run_traces_on_ray(
    root: Path, model: Path, traces: dict[str, Any], address: str, environment: dict[str, str]
) -> None:
    """Run the job on one worker of a cluster, and kill its driver once it has committed."""
    os.environ.update(environment)
    _prepare(None)
    commit = axes.ingest.generation.traces.commit_rows

    def commit_rows(*arguments: Any) -> None:
        commit(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    axes.ingest.generation.traces.commit_rows = commit_rows
    request = TraceRequest(prompt_set="texts", **traces)
    placement = Placement(on="ray", address=address, workers=1)
    axes.ingest.generation.traces.ingest_traces(root, resolve(str(model)), request, placement)


def run_command(
    arguments: list[str],
    output: Path,
    *,
    small_commits: bool = False,
    file_limit: int | None = None,
    is_bound_by_permissions: bool = False,
) -> None:
    """Run `axes` as a shell would, stdout and stderr into a file; ends with its exit code.

    `file_limit` is the size in bytes that no file of the process may exceed.
    """
    _prepare(None)
    axes.ingest.activation_writer._FLUSH_BYTES = 1 if small_commits else 64 << 20
    # As in the foreground of a terminal, wherever the tests themselves may run.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    if is_bound_by_permissions:
        _give_up_capabilities()
    sys.argv = ["axes", *arguments]
    main()


def _prepare(instant: Instant | None) -> None:
    torch.set_num_threads(1)
    axes.ingest.activation_writer._FLUSH_BYTES = 1
    if instant is not None:
        _die_at(*instant)


def _die_at(table: str, instant: str, count: int) -> None:
    """Kill this process at the `count`th time that it comes to an instant of writing a table."""
    now: list[str] = []
    seen: Counter[tuple[str, str]] = Counter()

    def reach(passed: str) -> None:
        if now:
            seen[now[0], passed] += 1
            if seen[table, instant] == count:
                os.kill(os.getpid(), signal.SIGKILL)

    def wrap(owner: Any, name: str, before: str | None, after: str | None) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            if before:
                reach(before)
            result = real(*arguments, **options)
            if after:
                reach(after)
            return result

        setattr(owner, name, wrapped)

    wrap(pq.ParquetWriter, "write_table", None, "within")
    wrap(Path, "replace", None, "after rename")
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if is_file:
            reach("before fsync")
        sync(descriptor)
        if is_file:
            reach("after fsync")

    os.fsync = fsync
    write = axes.ingest.sinks.write_rows

    def write_rows(root: Path, written: str, *arguments: Any, **options: Any) -> Path:
        now[:] = [written]
        reach("begin")
        path = write(root, written, *arguments, **options)
        reach("end")
        now.clear()
        return path

    axes.ingest.sinks.write_rows = write_rows


def _give_up_capabilities() -> None:
    """Let root be refused what file permissions forbid, as any other user is."""
    version_3 = (ctypes.c_uint32 * 2)(0x20080522, 0)
    none = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(version_3, none):
        raise OSError(ctypes.get_errno(), "capset")
