"""Lock the dependencies: every package at one version, with the SHA-256 of each of its files.

constraints.txt has what the package needs, constraints-dev.txt what the tests, the docs and the
optional extras need beyond it; vllm, which pins other versions, is left out. Versions that are
locked stay; `--upgrade-package NAME` and `--upgrade` move them. Run by `make lock`, with uv on the
path.

torch is left to the machine, with what only a CUDA build of it needs: its builds for CPU and CUDA
have other files under one version, and other dependencies.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

RUNTIME, DEVELOPMENT = Path("constraints.txt"), Path("constraints-dev.txt")
OF_THE_MACHINE = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")
# The oldest Python that every locked package runs on.
PYTHON = "3.11.5"


def lock(path: Path, title: str, *options: str | Path, without: Iterable[str] = ()) -> list[str]:
    """Write the file; returns its entries. `without` are those that another file has."""
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", PYTHON]
    command += ["--generate-hashes", "--strip-extras", "--no-header", "--no-annotate"]
    command += ["--output-file", path, *options, *sys.argv[1:], "pyproject.toml", "-"]
    # `make setup` builds the package with the setuptools that it installed.
    subprocess.run(command, input="setuptools>=77\n", text=True, check=True)
    entries = re.findall(r"^\S+==(?:.+\\\n)+.+\n", path.read_text(), flags=re.MULTILINE)
    kept = [entry for entry in entries if entry not in without and not OF_THE_MACHINE.match(entry)]
    path.write_text(f"# {title}\n# Written by `make lock`.\n" + "".join(kept))
    return kept


if __name__ == "__main__":
    runtime = lock(RUNTIME, "What the package needs, as last tested; torch is the machine's.")
    title = f"What tests, docs and the optional extras need beyond {RUNTIME}."
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = (f"--extra={name}" for name in project["optional-dependencies"] if name != "vllm")
    lock(DEVELOPMENT, title, *extras, "--constraint", RUNTIME, without=runtime)
