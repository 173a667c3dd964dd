"""A small planted world with one study, as the analyses are tested on."""

from __future__ import annotations

from pathlib import Path

import pytest

from axes.analysis.study.run import run_study
from tests.analysis.conftest import DEFINITION, make_small_world


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studied") / "lake"
    make_small_world(root)
    run_study(root, DEFINITION)
    return root
