"""SHA-256 of files, remembered by file identity (path, size, time, inode) in the cache folder.

What else is slow to find out and safe to keep is remembered in the same way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from axes.warehouse.settings import setting

_BLOCK_BYTES = 1 << 24


def cache_folder() -> Path:
    """Where models and hashes are kept: `$AXES_CACHE` or axes.toml, else the XDG cache folder."""
    if given := setting("cache"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "safety-axes"


def file_hash(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex; read once per file identity."""

    def read() -> str:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()

    status = path.stat()
    identity = [status.st_size, status.st_mtime_ns, status.st_ino]
    return remember("hashes", str(path.resolve()), identity, read)


def files_hash(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and hashes of several files; the order given does not matter."""
    lines = sorted(f"{file_hash(path)}  {path.name}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def remember(ledger: str, key: str, stamp: Any, compute: Callable[[], str]) -> str:
    """What `compute` gives for `key`, kept in the cache folder for as long as `stamp` is the same.

    `stamp` is any JSON value. Where the cache cannot be written the value is computed anew.
    """
    path = cache_folder() / f"{ledger}.json"
    entries = _read_ledger(path)
    if (known := entries.get(key)) and known[0] == stamp:
        return known[1]
    value = compute()
    with contextlib.suppress(OSError):
        _write_ledger(path, {**_read_ledger(path), key: [stamp, value]})
    return value


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
