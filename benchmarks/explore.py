"""Seconds from a click on the page of `axes explore` to its answer, over HTTP.

On a warehouse of the demo's size, or on the one that AXES_BENCH_ROOT names.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from benchmarks.run import Figure, median_figure, seconds
from tests.explored import put_explored

GOAL = 0.2
ROUNDS = 9
# A person reads an answer before the next question; a worker is warmed meanwhile.
READING_SECONDS = 1.5

QUESTIONS = {
    "select of one table": "select command, status, rows from runs order by started_at desc",
    "select of projections": "select model, label, projection from v_projections "
    "where kind = 'universal'",
    "select of a view over everything": "select model, prompt_set, kind, auroc from v_auroc "
    "order by all",
    "select of drift": "select model, step, is_positive, avg(running_mean) as running_mean "
    "from v_generation_projections where kind = 'universal' and step >= 0 group by all",
}


def measure() -> Iterator[Figure]:
    """Medians of each kind of click, the slowest of its rounds beside it."""
    with _warehouse() as root, _page(root) as client:
        conditions = f"{root.name}, {os.cpu_count()} cores, {ROUNDS} clicks"
        for name, click in _clicks(client).items():
            click()
            rounds = [_after_reading(click) for _ in range(ROUNDS)]
            yield median_figure(f"seconds: {name}", rounds, GOAL, "lower", conditions)
        statement = QUESTIONS["select of one table"]
        rushed = [seconds(lambda: _ask(client, statement)) for _ in range(8)]
        yield median_figure("seconds: select, 8 without a pause", rushed, None, "lower", conditions)


def _clicks(client: httpx2.Client) -> dict[str, Callable[[], object]]:
    choices = _get(client, "choices")
    prompt_set = max(choices["sets"], key=lambda one: bool(one["labels"]))["name"]
    axis = choices["axes"][0]["axis_id"]
    prompts = {"prompt_set": prompt_set, "axis": axis}
    completions = _get(client, "completions")["completions"]
    generation = completions[0]["generation_id"]
    place = _get(client, "completion", generation=generation)
    clicks: dict[str, Callable[[], object]] = {
        name: lambda sql=sql: _ask(client, sql) for name, sql in QUESTIONS.items()
    }
    return clicks | {
        "prompts by disagreement": lambda: _get(
            client, "prompts", **prompts, order="disagreement", is_descending="true"
        ),
        "prompts by native projections": lambda: _get(
            client, "prompts", **prompts, source="native", order="disagreement"
        ),
        "prompts searched": lambda: _get(client, "prompts", **prompts, search="the"),
        "axis opened": lambda: _get(client, "axis", axis=axis),
        "prompts on two axes": lambda: _get(client, "scatter", prompt_set=prompt_set),
        "layers by models": lambda: _get(client, "layers"),
        "differences of two versions": lambda: _get(client, "differences"),
        "completions listed": lambda: _get(client, "completions"),
        "completion opened": lambda: _get(
            client, "completion", generation=generation, axis=place["axis"], layer=place["layer"]
        ),
        "names completed": lambda: client.post(
            "complete", json={"before": "select a from v_projections where p", "after": ""}
        ).raise_for_status(),
    }


def _after_reading(click: Callable[[], object]) -> float:
    time.sleep(READING_SECONDS)
    return seconds(click)


def _ask(client: httpx2.Client, sql: str) -> None:
    client.post("sql", json={"sql": sql}).raise_for_status()


def _get(client: httpx2.Client, path: str, **parameters: object) -> dict:
    return client.get(path, params=parameters).raise_for_status().json()


@contextmanager
def _warehouse() -> Iterator[Path]:
    """The warehouse named by AXES_BENCH_ROOT, else one of the demo's size."""
    if named := os.environ.get("AXES_BENCH_ROOT"):
        yield Path(named)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "lake"
        models = ("alpha", "beta", "gamma")
        put_explored(root, prompt_count=600, completion_count=48, steps=16, models=models)
        yield root


@contextmanager
def _page(root: Path) -> Iterator[httpx2.Client]:
    command = [sys.executable, "-c", "from axes.cli.main import main; main()", "explore"]
    with subprocess.Popen(
        [*command, "--no-browser", "--root", str(root)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        try:
            with httpx2.Client(base_url=address, timeout=60) as client:
                yield client
        finally:
            process.terminate()
