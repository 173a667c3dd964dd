"""`axes explain`: the planted feature, token and prompts; what is positive stays hidden."""

from __future__ import annotations

import numpy as np
import pytest

import axes
from axes.warehouse.axes import find_axis
from axes.warehouse.connection import connect, rows
from tests.axes.test_commands import universal
from tests.commands import printed, refused
from tests.drifting import write_traces
from tests.rows import opened
from tests.saes import random_rows, save_sae
from tests.worlds import prompt_ids

NATIVE = "native/alpha/1/labelled"
SMALL = "native/small/2/marked"


def parts(explained: list[dict], part: str) -> list[dict]:
    return [row for row in explained if row["part"] == part]


def test_the_features_that_an_axis_is_made_of_and_what_they_leave(studied, tmp_path):
    decoder = random_rows(64, 16)
    made = 2 * decoder[7] / np.linalg.norm(decoder[7]) - decoder[11] / np.linalg.norm(decoder[11])
    decoder[20] = find_axis(opened(studied), NATIVE).vector - made / np.linalg.norm(made) / 4
    folder = save_sae(tmp_path / "made", decoder)
    explained = printed("explain", NATIVE, "--sae", folder, "--count", 3, "--root", studied)
    features = parts(explained, "feature")
    assert [row["rank"] for row in features] == [1, 2, 3] and features[0]["text"] == "20"
    lefts = [row["left"] for row in features]
    assert sorted(lefts, reverse=True) == lefts and lefts[0] < features[0]["left_random"]
    result = axes.explain(NATIVE, sae=f"sae:{folder}", count=3, root=studied)
    assert result.rows[:3] == [{**row} for row in features]
    other = save_sae(tmp_path / "other", decoder, "blocks.2.hook_resid_post")
    message = refused("explain", NATIVE, "--sae", other, "--root", studied)
    assert "16 numbers at blocks.2.hook_resid_post" in message and "at layer 1 of alpha" in message
    # Block 2 takes in what block 1 puts out.
    before = save_sae(tmp_path / "before", decoder, "blocks.2.hook_resid_pre")
    assert printed("explain", NATIVE, "--sae", before, "--root", studied)[0]["text"] == "20"
    assert "cfg.json" in refused("explain", NATIVE, "--sae", tmp_path, "--root", studied)


def test_prompts_and_tokens_at_the_ends_with_what_is_positive_hidden(lake):
    axis = universal(lake)
    random = np.random.default_rng(0)
    write_traces(lake, "gamma", random.standard_normal((40, 8, 24)), prompt_ids("labelled", 40))
    axes.drift(axis, model="gamma", root=lake)
    explained = axes.explain(axis, count=4, root=lake)
    prompts = parts(explained.rows, "prompt")
    assert [row["rank"] for row in prompts] == [1, 2, 3, 4, -4, -3, -2, -1]
    values = [row["value"] for row in prompts]
    assert sorted(values, reverse=True) == values
    stored = rows(
        connect(lake),
        "select prompt_id, any_value(text) as text, bool_or(is_positive) as is_positive, "
        "any_value(projection) as value from v_projections "
        "where axis_id = ? and model = 'gamma' group by prompt_id order by value desc",
        [axis],
    )
    assert values == [row["value"] for row in (*stored[:4], *stored[-4:])]
    by_id = {row["prompt_id"]: row for row in stored}
    for row in prompts:
        expected = by_id[row["prompt_id"]]
        assert row["text"] == ("[hidden]" if expected["is_positive"] else expected["text"])
    assert {row["text"] == "[hidden]" for row in prompts} == {True, False}
    assert "texts of the positive class are [hidden]" in explained.notes[-1]
    tokens = parts(explained.rows, "generated")
    (expected,) = rows(
        connect(lake),
        "select avg(projection) as mean from v_generation_projections "
        "where axis_id = ? and model = 'gamma' and token = ? and not is_positive",
        [axis, tokens[0]["text"]],
    )
    assert tokens[0]["rank"] == 1 and tokens[0]["value"] == pytest.approx(expected["mean"])
    assert len(tokens) == 8


def test_tokens_of_the_unembedding_of_a_model_that_reaches_the_axis(tiny):
    small = str(tiny / "small")
    lens = axes.explain(SMALL, model=small, count=2, root=tiny / "lake")
    near = parts(lens.rows, "vocabulary")
    assert [row["rank"] for row in near] == [1, 2, -2, -1]
    assert near[0]["value"] > near[1]["value"] > 0 > near[2]["value"] > near[3]["value"]
    prompts = parts(lens.rows, "prompt")
    assert prompts and not any("break" in row["text"] for row in lens.rows)
    with pytest.raises(axes.AxesError, match="no alignment of large leads to layer 2 of small"):
        axes.explain(SMALL, model=str(tiny / "large"), root=tiny / "lake")


def test_an_axis_that_was_never_projected_says_what_to_run(lake, tmp_path):
    folder = save_sae(tmp_path / "made", random_rows(8, 16))
    (made,) = axes.import_axes(folder, features=[1], root=lake).rows
    explained = axes.explain(made["axis_id"], root=lake)
    assert len(explained) == 0
    assert f"`axes score {made['axis_id']} --model alpha`" in explained.notes[0]
