"""Kills of drivers and of workers of Ray on a bucket; the rows are those of one process on a disk.

`make bench ONLY=faults.cluster` kills 200 times ($AXES_BENCH_KILLS). Each trial begins with a new
root on a local S3 server, starts a job on two workers again and again while it or they are killed,
lets it end, and compares every row with those of a job that nothing disturbed, vectors to the bit.
Every batch is committed on its own, and the lease of a killed driver ends after 3 s and not 30.
"""

from __future__ import annotations

import csv
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.faults.processes import PATIENCE, Bench, start

if TYPE_CHECKING:
    from benchmarks.run import Figure

SEED, PROMPTS, BUCKET = 1, 24, "faults"
JOBS = {
    "activations": ("--token-budget", "40", "--keep-tokens", "1"),
    "traces": ("--max-new-tokens", "3", "--batch-size", "2", "--layers", "1"),
}
TABLES = {
    "activations": ("activations", "prompt_tokens"),
    "traces": ("generation_tokens", "generations"),
}
# Of a trial, and of the workers in one run of its job.
_KILLS, _WORKER_KILLS = 5, 3


@dataclass
class Place:
    """A folder, and what leads a process to the cluster and the bucket."""

    folder: Path
    environment: dict[str, str]
    ray: str

    def words(self, job: str, root: str, *more: str) -> list[str]:
        """The command of a job on a root."""
        model = str(self.folder / "models" / "small")
        words = ["ingest", job, model, "--prompts", "marked", *JOBS[job], "--root", root]
        return [*words, *more]


def measure() -> Iterator[Figure]:
    """Trials that went wrong, by what was killed."""
    from benchmarks.run import Figure

    total = int(os.environ.get("AXES_BENCH_KILLS", "200"))
    killed = {"driver": 0, "worker": 0}
    bad: list[str] = []
    trials, chance = 0, random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="cluster-") as name, serving(Path(name)) as place:
        expected, began = prepare(place), time.monotonic()
        if wrong := trial(place, "traces", f"s3://{BUCKET}/0", expected["traces"], {}, chance, 0.0):
            raise RuntimeError(f"nothing was killed: {wrong}")
        seconds = time.monotonic() - began
        with suppress(KeyboardInterrupt):
            while sum(killed.values()) < total:
                trials += 1
                job = chance.choice([*JOBS])
                root = f"s3://{BUCKET}/{trials}"
                wrong = trial(place, job, root, expected[job], killed, chance, seconds)
                bad += [f"trial {trials}, {job}: {wrong}"] if wrong else []
                print(f"{trials}: {job}, {killed}, {wrong or 'ok'}", file=sys.stderr)
    for fault, count in killed.items():
        conditions = f"{count} kills in {trials} trials, seed {SEED}; {bad or 'none went wrong'}"
        name = f"trials with kills of a {fault} on Ray and S3 that went wrong"
        yield Figure(name, len(bad), 0.0, "lower", conditions=conditions)


@contextmanager
def serving(folder: Path) -> Iterator[Place]:
    """An S3 server and a Ray with two places, of processes of their own."""
    import ray
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    for name in ("werkzeug", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{address}/{BUCKET}", method="PUT")).close()
    environment = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "not-a-secret-of-anybody",
        "AXES_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    os.environ.update(environment)
    options: Any = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    context = ray.init("local", num_cpus=2, **options)
    try:
        yield Place(folder, environment, context.address_info["gcs_address"])
    finally:
        ray.shutdown()
        server.stop()


def prepare(place: Place) -> dict[str, dict]:
    """Make a model and prompts; what each job stores on a disk, by job."""
    from benchmarks.faults.jobs import build, save_models

    bench, lake = Bench(place.folder), str(place.folder / "lake")
    bench.ask(save_models, place.folder / "models")
    with (place.folder / "marked.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        texts = [f"count to {n:02d} {'x' * (n % 7)}" for n in range(PROMPTS)]
        writer.writerows([("text", "label"), *((text, "safe") for text in texts)])
    imported = ["prompts", "import", "marked", str(place.folder / "marked.csv")]
    commands = [[*imported, "--root", lake], *(place.words(job, lake) for job in JOBS)]
    bench.ask(build, place.folder / "cache", commands)
    return {job: bench.ask(stored, lake, TABLES[job]) for job in JOBS}


def trial(
    place: Place,
    job: str,
    root: str,
    expected: dict,
    killed: dict[str, int],
    chance: random.Random,
    seconds: float,
) -> str:
    """Kill a job some times, let it end, and compare; what went wrong, or nothing.

    `seconds` are those of a job that nothing disturbs, which is run where they are 0.
    """
    from benchmarks.faults.jobs import build

    bench = Bench(place.folder)
    imported = ["prompts", "import", "marked", str(place.folder / "marked.csv"), "--root", root]
    bench.ask(build, place.folder / "cache", [imported])
    words = place.words(job, root, "--on", "ray", "--workers", "2", "--address", place.ray)
    output = place.folder / "output"
    for turn in range(_KILLS + 1 if seconds else 1):
        driver = start(drive, words, output, place.environment)
        is_last = not seconds or turn == _KILLS
        fault = "nothing" if is_last else chance.choice(["driver", "worker"])
        for _ in range(chance.randint(1, _WORKER_KILLS) if fault == "worker" else 1):
            if fault != "nothing":
                wait(driver, seconds, chance)
            if fault == "driver" and driver.is_alive():
                driver.kill()
                driver.join()
                killed[fault] += driver.exitcode == -signal.SIGKILL
            while fault == "worker" and driver.is_alive():
                if ids := worker_ids():
                    with suppress(ProcessLookupError):
                        os.kill(chance.choice(ids), signal.SIGKILL)
                        killed[fault] += 1
                    break
                driver.join(0.1)
        driver.join(PATIENCE)
        if driver.exitcode is None:
            driver.kill()
            return f"hung: {output.read_text()[-400:]}"
        if driver.exitcode not in (0, -signal.SIGKILL):
            return f"exit code {driver.exitcode}: {output.read_text()[-400:]}"
        if "Traceback" in output.read_text():
            return output.read_text()[-400:]
        if driver.exitcode == 0:
            break
    held = bench.ask(stored, root, TABLES[job])
    return "" if held == expected else f"other rows: {difference(held, expected)}"


def drive(words: list[str], output: Path, environment: dict[str, str]) -> None:
    """Run a command as a shell would; each batch is a chunk, and a lease is short."""
    os.environ.update(environment)
    from axes.ingest.cluster import pool
    from axes.warehouse.storage import leases
    from benchmarks.faults.jobs import main, prepare

    prepare(output.with_name("cache"))
    pool._MAX_SECONDS = pool._MIN_SECONDS = 0.0
    leases._LIFE, leases._BEAT, leases._LOOK = 3.0, 0.5, 0.1
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["axes", *words]
    main()


def wait(driver: BaseProcess, seconds: float, chance: random.Random) -> None:
    """Until a random instant of the job: half of them are while workers compute."""
    until = time.monotonic() + chance.uniform(0, seconds)
    if chance.random() < 0.5:
        while driver.is_alive() and not worker_ids("run"):
            driver.join(0.05)
        until = time.monotonic() + chance.uniform(0, 1.5)
    driver.join(max(until - time.monotonic(), 0))


def worker_ids(method: str = "") -> list[int]:
    """The processes of workers of this process's Ray, or those that are in a method."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True)
    lines = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    parents = {int(line[0]): int(line[1]) for line in lines}

    def is_own(process_id: int) -> bool:
        while process_id > 1 and process_id != os.getpid():
            process_id = parents.get(process_id, 0)
        return process_id == os.getpid()

    named = (int(line[0]) for line in lines if f"ray::Worker.{method}" in "".join(line[2:]))
    return [process_id for process_id in named if is_own(process_id)]


def stored(root: str, tables: tuple[str, ...]) -> dict[str, list]:
    """Every row of the tables but for the job that made it, in order; two of one key are seen."""
    from axes.warehouse.connection import connect_tables, query
    from axes.warehouse.storage.roots import root_path

    connection = connect_tables(root_path(root), *tables)
    return {
        table: sorted(
            map(repr, query(connection, f"select * exclude run_id from {table}").to_pylist())
        )
        for table in tables
    }


def difference(held: dict[str, list], expected: dict[str, list]) -> str:
    """How many rows are lost, and how many are too many or different."""
    counts = [
        f"{table}: {len({*rows} - {*held[table]})} lost, {len(held[table]) - len(rows)} too many"
        for table, rows in expected.items()
    ]
    return "; ".join(counts)
