"""Which model a name means on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from axes.cli.options import model_spec
from axes.warehouse.errors import ModelError
from axes.warehouse.storage.layout import init_root
from tests.rows import put


@pytest.fixture
def root(tmp_path: Path) -> Path:
    init_root(tmp_path / "lake")
    return tmp_path / "lake"


def test_b4_a_model_of_a_folder_is_found_again_from_any_other(root, tmp_path, capsys):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    put(root, "models", {"model": "checkpoint", "model_id": "a", "source": str(folder)})
    assert model_spec("checkpoint", {}, root).source == str(folder)
    assert model_spec("checkpoint", {}, root).name == "checkpoint"
    assert f"checkpoint is loaded from {folder}" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["gone", "relative/path", "imported:npz", "/dev/zero"])
def test_b4_a_source_that_is_no_folder_here_is_none(root, tmp_path, source):
    stored = str(tmp_path / source) if source == "gone" else source
    put(root, "models", {"model": "checkpoint", "model_id": "a", "source": stored})
    with pytest.raises(ModelError):
        model_spec("checkpoint", {}, root)


def test_b4_what_is_typed_comes_first(root, tmp_path):
    for name in ("typed", "stored"):
        (tmp_path / name).mkdir()
    put(root, "models", {"model": "mine", "model_id": "a", "source": str(tmp_path / "stored")})
    spec = model_spec("mine", {"source": str(tmp_path / "typed")}, root)
    assert spec.source == str(tmp_path / "typed")
    with pytest.raises(ModelError, match="unknown model"):
        model_spec("other", {}, root)
    with pytest.raises(ModelError, match="unknown model"):
        model_spec("mine", {}, tmp_path / "no root")
