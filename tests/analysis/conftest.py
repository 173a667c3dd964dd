"""A small planted world with one study, to be copied by tests that change it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from axes.analysis.report.report import write_report
from axes.analysis.study.definition import StudyDefinition
from axes.analysis.study.run import run_study
from tests.once import made_once
from tests.worlds import define_study, make_world

DEFINITION = define_study(("alpha", "beta", "gamma"), evaluate=("other",), label="gamma")


def make_small_world(root: Path) -> None:
    make_world(
        root,
        widths={"alpha": 16, "beta": 20, "gamma": 24},
        labelled={"labelled": 40, "other": 30, "third": 30},
        benign_count=120,
    )


@pytest.fixture(scope="session")
def definition() -> StudyDefinition:
    """The study of `studied`."""
    return DEFINITION


@pytest.fixture
def small_world(tmp_path: Path) -> Path:
    """The world before any study."""
    make_small_world(tmp_path / "small")
    return tmp_path / "small"


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(root: Path) -> None:
        make_small_world(root)
        run_study(root, DEFINITION)

    return made_once(tmp_path_factory, "studied", make)


@pytest.fixture(scope="session")
def written(reported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of `reported` as a page."""
    folder = made_once(
        tmp_path_factory, "written", lambda folder: write_report(reported, folder / "report.html")
    )
    return folder / "report.html"


@pytest.fixture
def lake(studied: Path, tmp_path: Path) -> Path:
    return shutil.copytree(studied, tmp_path / "lake")
