"""The planted world with one study, and tiny models with a warehouse of their activations."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tests.analysis.conftest import lake, studied
from tests.commands import ok
from tests.ingest.conftest import import_texts, llama_folder, saved_llama
from tests.once import made_once
from tests.tiny_models import save_tiny

__all__ = ["import_texts", "lake", "llama_folder", "saved_llama", "studied"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models of one width, two sets of prompts, and a `lake`; not to be written to.

    The lake has both sets and, of `small`, activations and directions: `large` has not been run.
    """
    return made_once(tmp_path_factory, "tiny", _put_tiny)


def _put_tiny(base: Path) -> None:
    save_tiny(base / "small", "llama", seed=1)
    save_tiny(base / "large", "qwen2", seed=2)
    marked = pl.DataFrame(
        [
            {"text": f"{verb} the {noun} {n}", "label": label, "pair_id": f"{noun}{n}"}
            for n in range(10)
            for noun in ("door", "car")
            for verb, label in (("break", "unsafe"), ("paint", "safe"))
        ]
    )
    marked.with_columns(category=pl.lit("doing")).write_csv(base / "marked.csv")
    pl.DataFrame({"text": [f"say {n} things" for n in range(40)]}).write_csv(base / "benign.csv")
    at = ("--root", base / "lake")
    for name in ("marked", "benign"):
        ok("prompts", "import", name, base / f"{name}.csv", *at)
    ok("ingest", "activations", base / "small", "--prompts", "marked", "--prompts", "benign", *at)
    ok("fit", "small", "--prompts", "marked", *at)
