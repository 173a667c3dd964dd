"""Every command reaches an axis through the same alignment, or stops with the same message."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from axes.warehouse.connection import connect
from axes.warehouse.handle import Warehouse
from tests.commands import ok, printed, refused

AXIS = "native/large/2/marked"
LIMIT = ["--limit", "8"]


@pytest.fixture(scope="module")
def two_studies(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models of one width, with two studies and so two alignments of small into large."""
    base = shutil.copytree(tiny, tmp_path_factory.mktemp("maps") / "tiny")
    at = ["--root", base / "lake"]
    ok("ingest", "traces", base / "small", "--prompts", "marked", "--layers", "2", *LIMIT, *at)
    for ridge_lambda in ("1", "100"):
        models = ["--model", "small", "--model", base / "large", "--reference", base / "large"]
        sets = ["--prompts", "marked", "--align", "benign", "--ridge-lambda", ridge_lambda]
        ok("study", *models, *sets, *at)
    return base


@pytest.fixture
def lake(two_studies: Path, tmp_path: Path) -> Path:
    return shutil.copytree(two_studies, tmp_path / "copy") / "lake"


def commands(lake: Path) -> dict[str, list[str | Path]]:
    """Each command that reaches the native axis of `large` from `small`."""
    small, at = lake.parent / "small", ["--root", lake]
    experiment = ["--prompts", "marked", "--benign", "benign", "--strengths=-0.5,0.5", *LIMIT]
    activations = ["ingest", "activations", small]
    controls = ["--random", "0", "--shuffled", "0", "--orthogonal", "0", "--template", "raw"]
    return {
        "score": ["score", AXIS, "--model", "small", *at],
        "drift": ["drift", "--axis", AXIS, "--model", "small", *at],
        "activations": [*activations, "--prompts", "marked", "--axis", AXIS, *LIMIT, *at],
        "traces": ["ingest", "traces", small, "--prompts", "marked", "--axis", AXIS, *LIMIT, *at],
        "monitor": ["monitor", small, "--axis", AXIS, "hello", "--max-new-tokens", "3", *at],
        "intervene": ["intervene", small, "--axis", AXIS, *experiment, *controls, *at],
    }


def alignments(lake: Path) -> list[str]:
    return Warehouse.open(lake).column(
        "select alignment_id from alignments where model = 'small' order by ridge_lambda"
    )


def test_without_a_choice_every_command_stops_with_the_same_message(lake):
    messages = {name: refused(*words) for name, words in commands(lake).items()}
    lines = {message.splitlines()[-1] for message in messages.values()}
    assert len(lines) == 1, messages
    (line,) = lines
    assert f"2 alignments of small lead to {AXIS}" in line and "axes score" in line
    assert all(alignment_id in line for alignment_id in alignments(lake))


@pytest.mark.parametrize("chosen", [0, 1])
def test_the_alignment_that_score_chooses_is_the_one_of_every_command(lake, chosen):
    alignment_id = alignments(lake)[chosen]
    words = commands(lake)
    ok(*words["score"], "--alignment", alignment_id[:8])
    for name in ("score", "drift", "activations", "traces", "intervene"):
        ok(*words[name])
    used = Warehouse(lake, connect(lake)).column(
        """
        with here as (from axes where name = $axis)

        select alignment_id from projections semi join here using (axis_id)
        where model = 'small'
        union all
        select alignment_id from token_projections semi join here using (axis_id)
        where model = 'small'
        union all
        select alignment_id from axes where kind = 'pulled_back'
        """,
        {"axis": AXIS},
    )
    assert set(used) == {alignment_id}
    assert printed(*words["monitor"])[0]["projection"] is not None
