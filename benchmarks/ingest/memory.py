"""Peak memory over the loaded model for many prompts against few: it does not grow with them.

Each count is a process of its own (`python -m benchmarks.ingest.memory COUNT`) that has loaded the
model and run it on two tokens before the kernel's peak (VmHWM) is set back. Linux only.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from axes.ingest.forward.batching import pad
from axes.ingest.forward.recording import run_backbone
from axes.ingest.prompt_sources import PromptSource
from benchmarks.ingest.workload import workload
from benchmarks.run import Figure, median_figure, process_megabytes, python, ratios

MODEL = "smollm2-135m"
FEW, MANY = 1_000, 10_000
ROUNDS = 1
GOAL = 1.05


def measure() -> Iterator[Figure]:
    """Peak over the loaded model at many prompts over that at few, and in MB."""
    few, many = ([_peak_megabytes(count) for _ in range(ROUNDS)] for count in (FEW, MANY))
    growth = ratios(many, few)
    name = "peak memory over the loaded model"
    yield median_figure(f"{name}, growth", growth, GOAL, "lower", f"{MODEL}, {MANY} / {FEW}")
    yield median_figure(f"{name}, MB", many, None, "lower", f"{MODEL}, {MANY} prompts")


def _peak_megabytes(count: int) -> float:
    return float(python("-m", "benchmarks.ingest.memory", count)[-1])


def _run(count: int) -> float:
    """In the process of its own: the rise of resident memory while `count` prompts are run, MB."""
    with tempfile.TemporaryDirectory() as name:
        source = _short_prompts(Path(name) / "prompts.jsonl", count)
        with workload(MODEL, count, source=source) as work:
            # Weights are mapped, and come into memory with the first pass.
            run_backbone(work.loaded.model, *pad([[0, 0]], 0))
            Path("/proc/self/clear_refs").write_text("5")
            before = process_megabytes("VmRSS")
            with work.fresh_root() as root:
                work.run_job(root)
            return process_megabytes("VmHWM") - before


def _short_prompts(path: Path, count: int) -> PromptSource:
    """Prompts of a few tokens, so that ten thousand take no hour."""
    lines = [json.dumps({"text": f"Write down number {number}."}) for number in range(count)]
    path.write_text("\n".join(lines))
    return PromptSource(str(path))


if __name__ == "__main__":
    print(_run(int(sys.argv[1])))
