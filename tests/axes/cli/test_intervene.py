"""`axes intervene` from end to end on a tiny model, and what it says to bad input."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from axes.warehouse.connection import connect, rows
from tests.test_cli import ok, refused
from tests.tiny_models import save_tiny

STRENGTHS = "--strengths=-0.5,0.5"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a fitted direction, in `lake` beside its folder."""
    base = tmp_path_factory.mktemp("intervene")
    save_tiny(base / "small", "llama", seed=1)
    marked = [
        {"text": f"{verb} the {noun}", "label": label}
        for noun in ("door", "car", "wall", "cup")
        for verb, label in (("break", "unsafe"), ("paint", "safe"))
    ]
    pl.DataFrame(marked).write_parquet(base / "marked.parquet")
    pl.DataFrame({"text": [f"{count} things" for count in range(12)]}).write_csv(
        base / "benign.csv"
    )
    root = base / "lake"
    ok("prompts", "import", "marked", base / "marked.parquet", "--root", root)
    ok("prompts", "import", "benign", base / "benign.csv", "--root", root)
    sets = ["--prompts", "marked", "--prompts", "benign"]
    ok("ingest", "activations", base / "small", *sets, "--root", root)
    ok("fit", "small", "--prompts", "marked", "--root", root)
    return root


def arguments(lake: Path, *more: str) -> list[str | Path]:
    shared: list[str | Path] = ["intervene", lake.parent / "small", "--root", lake]
    shared += ["--axis", "native/small/2/marked", "--prompts", "marked", "--benign", "benign"]
    return [*shared, STRENGTHS, *more]


def test_an_experiment_is_run_judged_and_printed_and_the_second_time_only_printed(lake):
    more = ["--benign-limit", "6", "--max-new-tokens", "3", "--format", "json"]
    printed = json.loads(ok(*arguments(lake, *more)).stdout)
    assert {row["metric"] for row in printed} >= {
        "refusal_openers",
        "projection_shift",
        "kl",
        "log_perplexity",
        "repetition",
        "refusal_substring",
    }
    assert {row["prompts_class"] for row in printed} == {"positive", "negative", "benign"}
    assert {row["strength"] for row in printed} == {None, 0.5}
    shift = [row for row in printed if row["metric"] == "projection_shift"]
    assert all(row["estimate"] > 0 for row in shift)
    counts = rows(
        connect(lake),
        "select count(*) as outcomes, (select count(*) from interventions) as judged "
        "from intervention_outcomes",
    )
    assert json.loads(ok(*arguments(lake, *more)).stdout) == printed
    again = rows(
        connect(lake),
        "select count(*) as outcomes, (select count(*) from interventions) as judged "
        "from intervention_outcomes",
    )
    assert again == counts
    checked = json.loads(ok("warehouse", "check", "--root", lake, "--format", "json").stdout)
    assert [row for row in checked if row.get("row_count")] == []


def test_an_ablation_has_one_share_and_no_slope(lake):
    more = ["--mode", "ablate", "--strengths", "1", "--random", "1", "--format", "json"]
    printed = json.loads(ok(*arguments(lake, *more)).stdout)
    assert {row["layers"] for row in printed} == {"0,1,2,3"}
    assert {row["strength"] for row in printed} == {1.0}
    assert {row["verdict"] for row in printed} == {"not judged: 1 random directions, 20 are needed"}


def test_bad_input_is_one_line(lake):
    assert "is not a comma list of numbers" in refused(*arguments(lake, "--strengths", "a,b"))
    assert "no axis typo" in refused(*arguments(lake, "--axis", "typo"))
    assert "layer 9 of small does not exist" in refused(*arguments(lake, "--layers", "9"))
    assert "no openers praise" in refused(*arguments(lake, "--openers", "praise"))
