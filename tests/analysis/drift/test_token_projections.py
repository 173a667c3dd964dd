from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from axes.analysis.drift.token_projections import project_tokens
from axes.analysis.registry import read_alignment
from axes.analysis.study.run import run_study
from axes.warehouse.axes import read_axes
from tests.drifting import write_traces
from tests.rows import ask, opened
from tests.worlds import define_study, make_world, prompt_ids

STEPS = 4
DEFINITION = define_study(("alpha", "beta"))


def write_tokens(root: Path, first: int, count: int) -> np.ndarray:
    """Random vectors `[prompt, step, d]` at layers 1 and 2, of which the study is at 2."""
    matrix = np.random.default_rng(first).standard_normal((count, STEPS, 16)).astype(np.float32)
    prompts = prompt_ids("labelled", first + count)[first:]
    for layer, vectors in ((1, matrix + 100), (2, matrix)):
        write_traces(root, "alpha", vectors, prompts, name=f"g{first}", layer=layer)
    return matrix


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A world without traces, and the id of its study."""
    root = tmp_path_factory.mktemp("tokens") / "lake"
    widths = {"alpha": 16, "beta": 20}
    make_world(root, widths=widths, benign_count=60, labelled={"labelled": 20})
    return root, run_study(root, DEFINITION)


@pytest.fixture
def world(studied, tmp_path) -> Path:
    return shutil.copytree(studied[0], tmp_path / "lake")


def test_tokens_are_projected_as_prompts_are(world):
    """On the native axis as they are, on the shared axes after the model's alignment."""
    matrix = write_tokens(world, 0, 3)
    run_study(world, DEFINITION)
    for kind in ("native", "universal", "leave_one_out"):
        found = ask(
            world,
            "select axis_id, generation_id, step, projection, alignment_id "
            "from v_generation_projections inner join token_projections "
            "using (axis_id, model, generation_id, step, layer, projection) "
            "where kind = ? order by generation_id, step",
            [kind],
        )
        assert len(found) == 3 * STEPS
        moved = matrix
        if kind != "native":
            stored = read_alignment(opened(world), found[0]["alignment_id"])
            moved = stored.fit.alignment.apply(matrix.reshape(-1, 16)).reshape(3, STEPS, 20)
        expected = moved @ read_axes(opened(world), [found[0]["axis_id"]])[0].vector
        np.testing.assert_allclose(
            [row["projection"] for row in found], expected.reshape(-1), rtol=1e-4, atol=1e-4
        )


def test_traces_that_come_after_the_study_are_projected_once(world, studied):
    def project() -> int:
        return project_tokens(opened(world), studied[1])

    assert project() == 0
    write_tokens(world, 0, 3)
    assert project() == 3 * STEPS * 3
    assert project() == 0
    write_tokens(world, 3, 2)
    assert project() == 2 * STEPS * 3
    (counts,) = ask(
        world,
        "select count(*) as total, count(distinct (axis_id, generation_id, step)) as keys "
        "from token_projections",
    )
    assert counts["total"] == counts["keys"] == 5 * STEPS * 3


def test_a_study_without_traces_writes_no_token_projections(studied):
    assert ask(studied[0], "from token_projections") == []
