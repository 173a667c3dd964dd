"""SHA-256 of files, remembered by file identity (path, size, time, inode) in the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

_BLOCK_BYTES = 1 << 24


def cache_folder() -> Path:
    """Where models and hashes are kept: `$AXES_CACHE`, else the XDG cache folder."""
    if given := os.environ.get("AXES_CACHE"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "safety-axes"


def file_hash(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex; read once per file identity."""
    status = path.stat()
    identity = [status.st_size, status.st_mtime_ns, status.st_ino]
    ledger_path = cache_folder() / "hashes.json"
    ledger = _read_ledger(ledger_path)
    known = ledger.get(str(path.resolve()))
    if known and known[:3] == identity:
        return known[3]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    ledger[str(path.resolve())] = [*identity, digest.hexdigest()]
    # Where the cache cannot be written the hash is right all the same, and read anew next time.
    with contextlib.suppress(OSError):
        _write_ledger(ledger_path, ledger)
    return digest.hexdigest()


def files_hash(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and hashes of several files; the order given does not matter."""
    lines = sorted(f"{file_hash(path)}  {path.name}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read_ledger(path: Path) -> dict[str, list]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _write_ledger(path: Path, ledger: dict[str, list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.write_text(json.dumps(ledger))
    temporary.replace(path)
