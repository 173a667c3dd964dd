"""A file's hash is that of its bytes now; reading again is saved only where nothing changed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from axes.ingest.models.download import cache_folder, file_hash, files_hash


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one" * 1000)
    return path


def test_the_hash_is_sha256_of_the_bytes(file: Path) -> None:
    assert file_hash(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_an_unchanged_file_is_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = file_hash(file)
    monkeypatch.setattr(hashlib, "sha256", lambda *_: pytest.fail("read again"))
    assert file_hash(file) == first


@pytest.mark.parametrize("keeps_time", [False, True])
def test_changed_bytes_change_the_hash(file: Path, keeps_time: bool) -> None:
    """Also where a tool put the old time back: a longer file, or a replaced one, shows."""
    first, status = file_hash(file), file.stat()
    if keeps_time:
        other = file.with_name("other")
        other.write_bytes(b"two" * 1000)
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.replace(file)
        assert file.stat().st_mtime_ns == status.st_mtime_ns
    else:
        file.write_bytes(b"two" * 1000)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert file_hash(file) == hashlib.sha256(b"two" * 1000).hexdigest() != first


def test_a_touched_file_keeps_its_hash(file: Path) -> None:
    first = file_hash(file)
    os.utime(file, ns=(1, 1))
    assert file_hash(file) == first


def test_a_torn_ledger_is_made_anew(file: Path) -> None:
    first = file_hash(file)
    ledger = cache_folder() / "hashes.json"
    ledger.write_text(ledger.read_text()[:10])
    assert file_hash(file) == first
    assert str(file.resolve()) in json.loads(ledger.read_text())
    assert [path.name for path in cache_folder().iterdir()] == ["hashes.json"]


def test_several_files_hash_the_same_in_any_order(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths:
        path.write_text(path.name * 3)
    together = files_hash(paths)
    assert files_hash(paths[::-1]) == together
    assert files_hash(paths[:2]) != together
    paths[0].rename(tmp_path / "z")
    assert files_hash([tmp_path / "z", *paths[1:]]) != together


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AXES_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("AXES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "safety-axes"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "safety-axes"
