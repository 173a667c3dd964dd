"""The job against what people use instead: each peer reads the same pooled vectors of all layers.

A peer is a process that loads the model once and extracts on command, so that its rounds alternate
with ours on the same number of threads. It keeps its vectors in memory, ours are on the disk when
the time is taken. First its vectors are compared with ours: other work would be no comparison.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch

from axes.warehouse.connection import connect, query, vectors
from axes.warehouse.settings import cache_folder
from benchmarks.ingest.workload import Workload, workload
from benchmarks.run import Figure, alternate, median_figure, ratios

MODEL = "smollm2-135m"
PROMPT_COUNT = 320
ROUNDS = 5
GOAL = 2.2
LEAST_COSINE = 0.999

_SCRIPTS = Path(__file__).with_name("peers")


@dataclass(frozen=True)
class Peer:
    """A peer's script, what it needs beside our own packages, and what it reads.

    Without `resolves` pip is told not to look at what it depends on. `reads_norm`: it takes HF's
    `hidden_states`, whose last entry is not the last block's output but the final norm's.
    """

    name: str
    script: str
    requirement: str | None = None
    resolves: bool = True
    pooling: str = "last5_mean"
    reads_norm: bool = False


PEERS = (
    Peer("output_hidden_states loop", "hidden_states_loop.py", reads_norm=True),
    # It asks for transformers below 5, where the converted configuration means something else. It
    # runs unchanged on ours, and so both run the same model code.
    Peer("steering-vectors", "steering_vectors_peer.py", "steering-vectors==0.12.2", False),
    # It needs NumPy 1, which is put before ours. Of a prompt it reads the last token only.
    Peer("repeng", "repeng_peer.py", "repeng==0.4.0", pooling="last", reads_norm=True),
    Peer("nnsight", "nnsight_peer.py", "nnsight==0.8.1"),
)


def measure() -> Iterator[Figure]:
    """Each peer's time over ours, how far its vectors agree with ours, and the fastest of all."""
    conditions = f"{MODEL}, {PROMPT_COUNT} prompts"
    with workload(MODEL, PROMPT_COUNT) as work, ExitStack() as stack:
        ours = our_vectors(work)
        processes = {
            peer: stack.enter_context(running(peer, python, work))
            for peer in PEERS
            if (python := _interpreter(peer)) is not None
        }
        for peer, process in processes.items():
            yield agreement(peer, process.vectors(), ours[peer.pooling])
        our_seconds, *theirs = alternate(
            ROUNDS, work.job_seconds, *(process.seconds for process in processes.values())
        )
        over_ours = [ratios(seconds, our_seconds) for seconds in theirs]
        for peer, rounds in zip(processes, over_ours, strict=True):
            yield median_figure(f"{peer.name} / ingest job", rounds, None, "higher", conditions)
        fastest = [min(rounds) for rounds in zip(*over_ours, strict=True)]
        yield median_figure("fastest peer / ingest job", fastest, GOAL, "higher", conditions)


def our_vectors(work: Workload) -> dict[str, np.ndarray]:
    """Pooling -> `[prompt, layer, d_model]` as the job stores it, prompts in the set's order."""
    names = sorted({peer.pooling for peer in PEERS})
    found = {}
    with work.fresh_root() as root:
        work.run_job(root, poolings=names)
        for name in names:
            table = query(
                connect(root),
                """
                select activations.vector
                from activations
                inner join prompts using (prompt_id)
                where activations.pooling = ?
                order by prompts.position, activations.layer
                """,
                [name],
            )
            matrix = vectors(table["vector"])
            found[name] = matrix.reshape(-1, work.loaded.layer_count, matrix.shape[1])
    return found


def agreement(peer: Peer, theirs: np.ndarray, ours: np.ndarray) -> Figure:
    """The smallest cosine of a vector of theirs with ours."""
    if peer.reads_norm:
        theirs, ours = theirs[:, :-1], ours[:, :-1]
    lengths = np.linalg.norm(theirs, axis=-1) * np.linalg.norm(ours, axis=-1)
    cosines = (theirs * ours).sum(-1) / lengths
    conditions = peer.pooling + (
        "; the last block, which it reads normed, left out" * peer.reads_norm
    )
    name = f"{peer.name}: least cosine with ours"
    return Figure(name, float(cosines.min()), LEAST_COSINE, "higher", conditions=conditions)


def _interpreter(peer: Peer) -> Path | None:
    """A Python that has the peer; None, said on stderr, where it cannot be installed.

    Its environment lies in the cache and borrows our packages, torch above all.
    """
    if peer.requirement is None:
        return Path(sys.executable)
    folder = cache_folder() / "benchmarks" / peer.requirement
    python = folder / "bin" / "python"
    installed = folder / "installed"
    if not installed.exists():
        venv.create(folder, clear=True, with_pip=True)
        packages = next(folder.glob("lib/python*/site-packages"))
        ours = [path for path in sys.path if Path(path).name == "site-packages"]
        (packages / "ours.pth").write_text("\n".join(ours))
        command = [python, "-m", "pip", "install", "--quiet", peer.requirement]
        result = subprocess.run(
            command if peer.resolves else [*command, "--no-deps"], capture_output=True, text=True
        )
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["pip failed"])[-1]
            print(f"{peer.name} is left out: {reason}", file=sys.stderr)
            return None
        installed.touch()
    return python


@dataclass(frozen=True)
class PeerProcess:
    """A peer at work; see `peers/serving.py` for what it understands."""

    peer: Peer
    commands: IO[str]
    answers: IO[str]
    log: Path

    def seconds(self) -> float:
        return float(self._ask("run"))

    def vectors(self) -> np.ndarray:
        path = self.log.with_suffix(".npy")
        self._ask(f"save {path}")
        return np.load(path)

    def answer(self) -> str:
        line = self.answers.readline().strip()
        if not line:
            reason = self.log.read_text().strip().splitlines()[-1:]
            raise RuntimeError(f"{self.peer.name} ended: {' '.join(reason)}")
        return line

    def _ask(self, command: str) -> str:
        print(command, file=self.commands, flush=True)
        return self.answer()


@contextmanager
def running(peer: Peer, python: Path, work: Workload) -> Iterator[PeerProcess]:
    """Start a peer and wait until its model is loaded; end it by closing its stdin."""
    with tempfile.TemporaryDirectory() as name:
        prompts, log = Path(name) / "prompts.json", Path(name) / "log"
        prompts.write_text(json.dumps(work.texts()))
        threads = str(torch.get_num_threads())
        with (
            log.open("w") as errors,
            subprocess.Popen(
                [python, _SCRIPTS / peer.script, work.folder, prompts, threads],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            ) as child,
        ):
            assert child.stdin is not None and child.stdout is not None
            process = PeerProcess(peer, child.stdin, child.stdout, log)
            process.answer()
            yield process
            child.stdin.close()
