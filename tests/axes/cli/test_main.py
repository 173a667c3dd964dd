"""What the machine refuses is one line, and what is a fault of ours keeps its traceback."""

from __future__ import annotations

import pytest

import axes.warehouse.storage.layout
from tests.commands import axes as run
from tests.commands import ok, refused


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "the memory that this process may take is used up"),
        (ImportError("libx.so: failed to map segment from shared object"), "is used up"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), "is used up"),
        (OSError(28, "No space left on device", "/disk/x"), "/disk/x: No space left on device"),
        (RuntimeError("of our own"), None),
        (ImportError("no module x"), None),
    ],
)
def test_what_the_machine_refuses_is_one_line(monkeypatch, tmp_path, error, message):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(axes.warehouse.storage.layout, "init_root", fail)
    result = run("warehouse", "init", "--root", tmp_path)
    assert result.exit_code == 1
    if message is None:
        assert result.exception is error
    else:
        assert result.output.startswith("Error: ") and message in result.output
        assert result.output.count("\n") == 1


def test_without_a_home_folder_only_the_cache_is_asked_for(monkeypatch, tmp_path):
    def unknown(_user: int) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "AXES_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    ok("warehouse", "init", "--root", tmp_path)
    expected = "Error: there is no home folder: set $AXES_CACHE to a folder for models"
    assert refused("models", "fetch", "smollm2-135m") == expected
