"""A study of two models, whose axes are exported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from axes.analysis.study.run import run_study
from axes.warehouse.handle import Warehouse
from tests.once import made_once
from tests.worlds import define_study, make_world

WIDTHS = {"alpha": 16, "beta": 20}


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(root: Path) -> None:
        make_world(root, widths=WIDTHS, benign_count=60, labelled={"labelled": 40})
        run_study(root, define_study(WIDTHS, label="pair"))

    return made_once(tmp_path_factory, "pair", make)


@pytest.fixture(scope="module")
def warehouse(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A copy for the tests of one module."""
    return Warehouse.open(shutil.copytree(pair, tmp_path_factory.mktemp("copy") / "lake"))
