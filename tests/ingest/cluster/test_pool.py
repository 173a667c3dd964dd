"""Chunks are whole batches, none is lost with its worker, and none is tried for ever."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from axes.ingest.activations import Session, _plan, _stored
from axes.ingest.cluster import pool as pools
from axes.ingest.cluster.pool import Pool, WholeBatch
from axes.ingest.cluster.worker import Written
from axes.ingest.forward.batching import plan_batches
from axes.ingest.forward.pooling import POOLINGS
from axes.ingest.jobs import open_job
from axes.ingest.sinks import Outbox
from axes.warehouse.errors import ModelError, RootError
from axes.warehouse.runs import Run
from tests.ingest.conftest import activation_rows, for_texts, ingest_texts, loaded_on_cpu, put_texts

KEYS = [f"{batch} {key}" for batch in range(12) for key in range(3)]
TEXTS = ["hello there", "hi", "what is a duck", "a", "some more words"]


@dataclass(eq=False)
class Ref:
    """An answer to come."""

    actor: int
    method: str
    arguments: tuple


class FakeRay:
    """Ray in this process: actors answer when they are waited for; `fate` may kill them."""

    def __init__(self, fate: Any) -> None:
        self.fate, self.actors, self.ran = fate, 0, []

    def remote(self, _: type) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._actor))

    def _actor(self) -> Any:
        number, self.actors = self.actors, self.actors + 1

        def method(name: str) -> Any:
            return SimpleNamespace(remote=lambda *arguments: Ref(number, name, arguments))

        return SimpleNamespace(start=method("start"), run=method("run"))

    def wait(self, refs: list[Ref], *, num_returns: int, timeout: float) -> tuple[list, list]:
        answered = [ref for ref in refs if self.fate(ref.actor, ref.method) is not None]
        return answered[:num_returns], []

    def get(self, ref: Ref) -> Any:
        if self.fate(ref.actor, ref.method) == "dies":
            raise ActorDiedError
        if ref.method == "start":
            return {"d_model": 1}, f"node{ref.actor}"
        self.ran += ref.arguments[0]
        return Written([], 0, 1.0, {}, [])

    def kill(self, actor: Any) -> None:
        pass


class Keys(list):
    """A group of keys."""

    def part(self, names: list[str]) -> Keys:
        return Keys(names)


class Kind:
    """Sessions whose batches are three keys, and whose commits are counted."""

    commits: list[int]

    @staticmethod
    def whole_batches(group: Keys, *_: Any) -> list[WholeBatch]:
        return [WholeBatch(group[at : at + 3], 3) for at in range(0, len(group), 3)]

    @classmethod
    def commit(cls, _run: Run, _sink: None, _files: list, groups: list[Keys]) -> None:
        cls.commits += map(len, groups)


def run_pool(monkeypatch: pytest.MonkeyPatch, root: Path, fate: Any, count: int) -> FakeRay:
    """Run twelve batches of three keys on a pool of so many workers."""
    ray, units = FakeRay(fate), []
    monkeypatch.setattr(pools, "Opening", lambda **_: None)
    pool, Kind.commits = Pool(ray, count, gpus=0, cpus=1), []
    identity = SimpleNamespace(dtype="float32", model_id="")
    running: Any = SimpleNamespace(
        job=SimpleNamespace(root=root, spec=None, device="cpu", identity=identity),
        run=Run(root, "test", {}),
        check_interrupt=lambda: None,
    )
    pool.start(running, Kind, {"request": for_texts()})
    pool.run_group(Keys(KEYS), None, units.append)
    pool.finish()
    assert sum(units) == sum(Kind.commits) == len(KEYS)
    return ray


def test_every_prompt_is_run_once_in_whole_batches(root, monkeypatch):
    ray = run_pool(monkeypatch, root, lambda number, name: "answers", 2)
    assert sorted(ray.ran) == sorted(KEYS)
    assert [key.split()[1] for key in ray.ran] == ["0", "1", "2"] * 12


def test_the_others_take_what_a_lost_node_had(root, monkeypatch):
    """The two workers of the node are lost, and no other place is free for new ones."""
    fates = {0: {"start": "answers", "run": "dies"}, 1: {"start": "answers", "run": "dies"}}
    fate = lambda number, name: fates.get(number, {}).get(name, "answers" if number == 2 else None)  # noqa: E731
    ray = run_pool(monkeypatch, root, fate, 3)
    assert len(ray.ran) == len({*ray.ran}) == 36
    assert ray.actors == 5


@pytest.mark.parametrize("name", ["start", "run"])
def test_work_that_kills_every_worker_ends_the_job(root, monkeypatch, name):
    with pytest.raises(ModelError, match="4 workers in a row were lost with the same work"):
        run_pool(monkeypatch, root, lambda _, each: "dies" if each == name else "answers", 1)


def test_batches_that_are_left_are_those_that_were_planned():
    """So a chunk is planned by its worker, and the rest by a second driver, as by the first."""
    lengths = {f"p{number}": 3 + number * 7 % 11 for number in range(60)}
    batches = plan_batches(lengths, 40)
    for left in (batches[1:], batches[::2], batches[3:7], batches[-1:]):
        names = {name for batch in left for name in batch}
        remaining = {name: length for name, length in lengths.items() if name in names}
        assert plan_batches(remaining, 40) == left


def test_rows_that_another_job_stored_meanwhile_are_not_stored_twice(root, llama):
    put_texts(root, TEXTS)
    request, poolings = for_texts(), {"last5_mean": POOLINGS["last5_mean"]}
    job, run = open_job(root, llama, request), Run(root, "test", {})
    stored = _stored(job, request, {}, run)
    (part,) = _plan(job, request, poolings, {}, run, stored)
    session, outbox = (
        Session(run, loaded_on_cpu(llama), request, poolings, {}),
        Outbox(root, llama.name),
    )
    for group in part.groups:
        session.run_group(group, outbox, lambda _: None)
    ingest_texts(root, llama, layers=[1, 2])
    with pytest.raises(RootError, match="another job has stored rows .*: run it again"):
        Session.commit(run, stored, outbox.files, part.groups)
    assert len(activation_rows(root)) == 2 * len(TEXTS)
