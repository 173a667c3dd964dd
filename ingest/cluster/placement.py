"""Where a job's model runs: in this process, or in workers of Ray.

Ray gives places, processes and news of their deaths. Nothing of it is stored: which rows there are
says the warehouse alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from axes.ingest.cluster.pool import Pool
from axes.ingest.jobs import ModelRow, Part, RunningJob
from axes.ingest.models.config import one_line
from axes.ingest.requests import ModelRequest, Placement
from axes.warehouse.errors import ModelError
from axes.warehouse.progress import waiting
from axes.warehouse.storage.roots import resolved

Request = TypeVar("Request", bound=ModelRequest)


@contextmanager
def placed(
    placement: Placement, root: Path, request: Request
) -> Iterator[tuple[Path, Request, Pool | None]]:
    """Root and request as they are to be used there, and with Ray the pool of its workers.

    Raises `ModelError` where Ray or a cluster at the address is missing, and for an option that
    needs `--on ray`.
    """
    if placement.on == "local":
        for name in ("address", "workers", "gpus_per_worker"):
            if getattr(placement, name) is not None:
                raise ModelError(f"--{name.replace('_', '-')} needs --on ray")
        yield root, request, None
        return
    # What Ray says of a dead worker it says on stdout.
    with _connected(placement.address) as ray, Path(os.devnull).open("w") as nothing:
        pool = _pool(ray, placement)
        try:
            with redirect_stdout(nothing):
                yield resolved(root), replace(request, device=request.device or pool.device), pool
        except ray.exceptions.RayError as error:
            raise ModelError(f"Ray ends the job: {one_line(error)}") from error
        finally:
            pool.close()


class Spread(NamedTuple):
    """A job's work, in a session of this process or on those of a pool; see `Pool.start`."""

    running: RunningJob
    pool: Pool | None
    kind: Any
    options: Mapping[str, Any]
    sink: Any

    def compute(self, label: str, unit: str, parts: Iterable[Part], total: int) -> tuple[int, int]:
        """Do the work; returns how many prompts it has, and how many were run."""
        running, pool, counts = self.running, self.pool, [0, 0]

        def counted() -> Iterator[Part]:
            for part in parts:
                counts[0] += part.prompt_count
                counts[1] += part.new_count
                yield part
            if pool is not None:
                pool.finish()

        def load() -> tuple[Any, ModelRow]:
            if pool is not None:
                return pool, pool.start(running, self.kind, self.options)
            loaded, row = running.load()
            return self.kind(running.run, loaded, **self.options), row

        def compute(session: Any, groups: Sequence[Any], done: Callable[[int], None]) -> None:
            for group in groups:
                session.run_group(group, self.sink, done)

        running.compute(label, unit, counted(), compute, load, prompt_count=total)
        return counts[0], counts[1]


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster, or to one that is made of this machine and ends with the body.

    A connection that the caller has made is used, and left.
    """
    # Ray reads them when it starts; workers are as nice as one process would be.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ImportError as error:
        raise ModelError("--on ray needs Ray: pip install 'safety-axes[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: Any = {"include_dashboard": False} if address == "local" else {}
    try:
        with waiting("start Ray" if address == "local" else f"connect to Ray at {address}"):
            ray.init(address=address, log_to_driver=False, configure_logging=False, **options)
    except Exception as error:
        raise ModelError(f"no Ray at {address}: {one_line(error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _pool(ray: Any, placement: Placement) -> Pool:
    """The workers that were asked for, or as many as the cluster has places for."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(machine.get("GPU", 0) for machine in machines))
    each = min(gpus, 1) if placement.gpus_per_worker is None else placement.gpus_per_worker
    cores = [machine["CPU"] for machine in machines if machine.get("CPU")] or [1.0]
    count = placement.workers or max(gpus // each if each else len(cores), 1)
    # Without GPUs, workers share the cores of a machine; a share of one core is a fraction.
    cpus = min(cores) / -(-count // len(cores))
    cpus = 1 if each else int(cpus) if cpus >= 1 else cpus
    return Pool(ray, count, gpus=each, cpus=cpus)
