"""Check the installation, the device, folders, settings and the hub.

Each finding that is not a pass says what to do. `axes models doctor` checks a model.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from axes.ingest.labels.judge import KEY_VARIABLES
from axes.warehouse.errors import RootError
from axes.warehouse.maintenance.statistics import statistics
from axes.warehouse.names import did_you_mean
from axes.warehouse.progress import byte_text
from axes.warehouse.settings import SETTINGS, cache_folder, config_files
from axes.warehouse.storage.layout import read_version, require_root
from axes.warehouse.storage.ledger import held_locks
from axes.warehouse.storage.roots import RemoteRoot
from axes.warehouse.storage.store import store_at
from axes.warehouse.tables.schemas import SCHEMA_VERSION

PASS, FAIL, NOTE = "pass", "FAIL", "note"

PACKAGE = "safety-axes"
# One model of a few billion parameters takes more.
_MIN_DISK = 5e9

_OTHER_VARIABLES = ("AXES_HISTORY", *(name for name in KEY_VARIABLES if name.startswith("AXES_")))


@dataclass(frozen=True)
class Finding:
    """The result of one check: pass, note or FAIL; `to_do` is None for a pass."""

    check: str
    result: str
    detail: str
    to_do: str | None = None


def examine(root: Path) -> Iterator[Finding]:
    """Findings about this machine, in the order in which a command would fail."""
    yield Finding("python", PASS, f"{platform.python_version()} on {platform.platform()}")
    yield from _packages()
    yield from _device()
    yield from _settings()
    yield from _cache()
    yield from _root(root)
    yield from _hub()


def _packages() -> Iterator[Finding]:
    """The requirements of the installed package, and whether they are met."""
    yield Finding(PACKAGE, PASS, version(PACKAGE))
    for line in requires(PACKAGE) or ():
        requirement = Requirement(line)
        name, specifier, marker = requirement.name, requirement.specifier, requirement.marker
        is_required = marker is None or marker.evaluate({"extra": ""})
        matched = re.search(r'extra == "([^"]+)"', str(marker))
        extra = "" if is_required or matched is None else matched[1]
        if extra == "dev" or not (is_required or extra):
            continue
        install = f"pip install '{name}{specifier}'"
        try:
            installed = version(name)
        except PackageNotFoundError:
            if extra:
                to_do = f"only if you need it: pip install '{PACKAGE}[{extra}]'"
                yield Finding(name, NOTE, "not installed", to_do)
            else:
                yield Finding(name, FAIL, "not installed", install)
            continue
        if specifier.contains(installed, prereleases=True):
            yield Finding(name, PASS, installed)
        else:
            yield Finding(name, FAIL, f"{installed}, needed is {specifier}", install)


def _device() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("device", FAIL, f"torch cannot be imported: {error}", "pip install torch")
        return
    yield _threads(torch.get_num_threads())
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            detail = f"{device.name}, {byte_text(device.total_memory)}, CUDA {torch.version.cuda}"
            yield Finding(f"device cuda:{index}", PASS, detail)
        yield Finding("default device", PASS, "cuda, in the dtype of the checkpoint")
        return
    if shutil.which("nvidia-smi"):
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        yield Finding(
            "device cuda",
            NOTE,
            f"nvidia-smi is installed, but torch ({built}) sees no device",
            "install a torch build that matches the driver, see pytorch.org and nvidia-smi",
        )
    if torch.backends.mps.is_available():
        yield Finding("device mps", NOTE, "available, not the default", "use --device mps")
    yield Finding("default device", PASS, "cpu, in float32")


def _threads(threads: int) -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    detail = f"{threads} in torch, {usable} cores"
    if usable is not None and threads > usable:
        return Finding("threads", NOTE, detail, f"set OMP_NUM_THREADS={usable}: more are slower")
    return Finding("threads", PASS, detail)


def _settings() -> Iterator[Finding]:
    files = config_files()
    for file in files:
        detail = f"{file.path} sets {', '.join(file.names) or 'nothing'}"
        if refused := [name for name in file.names if not file.may_set(name)]:
            to_do = f"read it, then axes config allow: {', '.join(refused)} refused until then"
            yield Finding("settings", NOTE, detail, to_do)
        else:
            yield Finding("settings", PASS, detail)
    if not files:
        yield Finding("settings", PASS, "no axes.toml")
    variables = {*(setting.variable for setting in SETTINGS.values()), *_OTHER_VARIABLES}
    for name in sorted(os.environ):
        if name.startswith("AXES_") and name not in variables and not name.startswith("AXES_BENCH"):
            hint = did_you_mean(name, variables)
            yield Finding("environment", NOTE, f"nothing reads {name}{hint}", f"unset {name}")
    if os.environ.get("NO_COLOR"):
        yield Finding("environment", PASS, "NO_COLOR is set: output is not coloured")


def _cache() -> Iterator[Finding]:
    folder = cache_folder()
    if not folder.exists():
        yield from _disk("cache", folder, "does not exist: the first download creates it")
        return
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    if os.access(folder, os.W_OK):
        yield from _disk("cache", folder, byte_text(size))
    else:
        yield Finding(
            "cache",
            NOTE,
            f"{folder}: {byte_text(size)}, read only: no model can be downloaded",
            "set AXES_CACHE to a writable folder",
        )


def _root(root: Path) -> Iterator[Finding]:
    if isinstance(root, RemoteRoot):
        yield _remote_root(root)
        return
    if not root.exists():
        to_do = "axes warehouse init, or the first import of prompts, creates it"
        yield Finding("root", NOTE, f"{root} does not exist", to_do)
        return
    try:
        schema, _ = read_version(root)
        require_root(root)
        rows = sum(extent.rows for extent in statistics(root))
        locks = held_locks(root)
    except RootError as error:
        yield Finding("root", FAIL, str(error), "give --root, or fix it as the message says")
        return
    is_writable = os.access(root, os.W_OK)
    detail = f"schema version {schema}, {rows:,} rows" + ("" if is_writable else ", read only")
    yield from _disk("root", root, detail)
    if locks:
        to_do = "another job is running: wait for it, or stop it"
        yield Finding("root locks", NOTE, f"held: {', '.join(locks)}", to_do)
    else:
        yield Finding("root locks", PASS, "none is held")


def _remote_root(root: RemoteRoot) -> Finding:
    try:
        store_at(root).require()
    except RootError as error:
        return Finding("root", FAIL, str(error), "see docs/howto/object-store.md")
    return Finding("root", PASS, f"{root}: schema version {SCHEMA_VERSION}")


def _disk(check: str, folder: Path, detail: str) -> Iterator[Finding]:
    """A folder with the free space of its disk."""
    path = folder.absolute()
    free = shutil.disk_usage(next(part for part in (path, *path.parents) if part.exists())).free
    detail = f"{folder}: {detail}; {byte_text(free)} free"
    if free < _MIN_DISK:
        yield Finding(check, NOTE, detail, f"little space: free some, or move {check} elsewhere")
    else:
        yield Finding(check, PASS, detail)


def _hub() -> Iterator[Finding]:
    """Whether gated models can be downloaded; a token is never printed."""
    from huggingface_hub import constants, get_token

    has_token = get_token() is not None
    yield Finding(
        "hub token",
        PASS if has_token else NOTE,
        "set (not shown)" if has_token else "none",
        None if has_token else "only for gated models: hf auth login, or set HF_TOKEN",
    )
    if constants.HF_HUB_OFFLINE:
        to_do = "unset HF_HUB_OFFLINE (and TRANSFORMERS_OFFLINE) to reach the hub"
        yield Finding("hub", NOTE, f"offline; HF_HOME is {constants.HF_HOME}", to_do)
    else:
        yield Finding("hub", PASS, f"online; HF_HOME is {constants.HF_HOME}")
    judge = [name for name in KEY_VARIABLES if os.environ.get(name)]
    yield Finding("judge key", PASS, f"in {judge[0]} (not shown)" if judge else "none")
