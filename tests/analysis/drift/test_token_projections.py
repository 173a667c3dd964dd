from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.drift.token_projections import project_tokens
from axes.analysis.registry import read_alignment
from axes.analysis.study.run import run_study
from axes.warehouse.connection import connect, query, rows, vectors
from axes.warehouse.handle import Warehouse
from axes.warehouse.writer import rows_table, vector_array, write_rows
from tests.worlds import define_study, make_world

STEPS = 4
DEFINITION = define_study(("alpha", "beta"))


def write_traces(root, model: str, width: int, prompts: range) -> np.ndarray:
    """Random token vectors `[prompt, step, d]` at layers 1 and 2 (only 2 is the study's)."""
    random = np.random.default_rng(prompts.start)
    matrix = random.standard_normal((len(prompts), STEPS, width)).astype(np.float32)
    ids = [f"g-{model}-{row}" for row in prompts]
    tokens = [
        {
            "generation_id": name,
            "step": step,
            "layer": layer,
            "site": "resid_post",
            "token_id": step,
            "token": "t",
            "logprob": -1.0,
            "entropy": 1.0,
            "run_id": "world",
        }
        for layer in (1, 2)
        for name in ids
        for step in range(STEPS)
    ]
    flat = matrix.reshape(-1, width)
    table = rows_table(
        "generation_tokens", tokens, vector=vector_array(np.concatenate([flat + 100, flat]))
    )
    write_rows(root, "generation_tokens", table, name=f"t{prompts.start}", partition=model)
    generations = [
        {
            "generation_id": name,
            "model_id": f"id-{model}",
            "prompt_id": f"labelled-{row:05d}",
            "template": "raw",
            "text": "",
            "token_count": STEPS,
            "finish_reason": "length",
            "max_new_tokens": STEPS,
            "temperature": 0.0,
            "top_p": 1.0,
            "seed": 0,
            "run_id": "world",
        }
        for name, row in zip(ids, prompts, strict=True)
    ]
    table = rows_table("generations", generations)
    write_rows(root, "generations", table, name=f"g{prompts.start}", partition=model)
    return matrix


@pytest.fixture
def world(tmp_path):
    made = make_world(
        tmp_path / "lake",
        widths={"alpha": 16, "beta": 20},
        benign_count=60,
        labelled={"labelled": 20},
    )
    return made.root


def test_tokens_are_projected_as_prompts_are(world):
    """On the native axis as they are, on the shared axes after the model's alignment."""
    matrix = write_traces(world, "alpha", 16, range(3))
    run_study(world, DEFINITION)
    connection = connect(world)
    for kind in ("native", "universal", "leave_one_out"):
        found = rows(
            connection,
            "select axis_id, generation_id, step, projection, alignment_id "
            "from v_generation_projections inner join token_projections "
            "using (axis_id, model, generation_id, step, layer, projection) "
            "where kind = ? order by generation_id, step",
            [kind],
        )
        assert len(found) == 3 * STEPS
        axis = query(connection, "from axes where axis_id = ?", [found[0]["axis_id"]])
        moved = matrix
        if kind != "native":
            stored = read_alignment(Warehouse(world, connection), found[0]["alignment_id"])
            moved = stored.fit.alignment.apply(matrix.reshape(-1, 16)).reshape(3, STEPS, 20)
        expected = moved @ vectors(axis.column("vector"))[0]
        np.testing.assert_allclose(
            [row["projection"] for row in found], expected.reshape(-1), rtol=1e-4, atol=1e-4
        )


def test_traces_that_come_after_the_study_are_projected_once(world):
    study_id = run_study(world, DEFINITION)
    assert project_tokens(Warehouse.open(world), study_id) == 0
    write_traces(world, "alpha", 16, range(3))
    assert project_tokens(Warehouse.open(world), study_id) == 3 * STEPS * 3
    assert project_tokens(Warehouse.open(world), study_id) == 0
    write_traces(world, "alpha", 16, range(3, 5))
    assert project_tokens(Warehouse.open(world), study_id) == 2 * STEPS * 3
    counts = rows(
        connect(world),
        "select count(*) as total, count(distinct (axis_id, generation_id, step)) as keys "
        "from token_projections",
    )[0]
    assert counts["total"] == counts["keys"] == 5 * STEPS * 3


def test_a_study_without_traces_writes_no_token_projections(world):
    run_study(world, DEFINITION)
    assert rows(connect(world), "from token_projections") == []
