"""Are the demo's numbers sane: all there, finite, in range, above their null, from real work?

`check_demo.py first`, then `second` after a second `make demo`. `check_demo.py same ROOT ROOT`, for
`make demo-cluster`: does the second root have the rows and the numbers of the first?
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

AXES = Path(sys.executable).with_name("axes")
STUDY = (
    "study --group demo --prompts demo_safety --align demo_alignment --align-rows 1500 "
    "--format json --no-ingest"
)
MODELS = {"smollm2-135m": 30, "gemma3-270m": 18, "qwen2.5-coder-0.5b": 24}
# What the first run saw, for the second to be held against.
SEEN = Path(tempfile.gettempdir()) / "axes-demo-seen.json"


def axes(command: str) -> str:
    done = subprocess.run([AXES, *command.split()], check=True, capture_output=True, text=True)
    return done.stdout


def query(statement: str) -> list[dict]:
    done = subprocess.run(
        [AXES, "sql", statement, "--format", "json"], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def check_numbers(result: dict) -> None:
    assert set(result["models"]) == set(MODELS)
    for name, layer_count in MODELS.items():
        figures = result["models"][name]
        assert figures["layer"] == round(0.8 * (layer_count - 1))
        for key in ("cosine_universal", "cosine_reference", "alignment_r2"):
            assert math.isfinite(figures[key]) and -1 <= figures[key] <= 1, (name, key)
        areas = figures["auroc"]["demo_safety"]
        for key in ("native", "universal", "leave_one_out", "native_cross_validated"):
            assert 0 <= areas[key] <= 1, (name, key)
        assert areas["native"] > areas["shuffled_labels"], name
        null = areas["shuffled_labels_cross_validated_upper"]
        assert areas["native_cross_validated"] > null, name
    squares = sum(value**2 for value in result["singular_values"])
    assert math.isclose(squares, len(MODELS), rel_tol=1e-4)
    assert result["baselines"]["demo_safety"]["bag_of_words"] < 0.8


def check_rows() -> None:
    counts = query("select model, count(*) as count from activations group by 1")
    prompts = query("select count(distinct prompt_id) as count from prompts where position < 1500")[
        0
    ]["count"]
    for row in counts:
        assert row["count"] == prompts * MODELS[row["model"]], row
    assert len(counts) == len(MODELS)
    tokens = query(
        "select count(*) as count from v_generation_projections where kind = 'universal'"
    )
    assert tokens[0]["count"] > 1000
    completions = query(
        "select model, count(*) as count, count(*) filter (where text = '') as empty "
        "from generations group by model"
    )
    assert {row["model"] for row in completions} == set(MODELS)
    for row in completions:
        assert row["empty"] < row["count"] / 4, row
    written = ("universal.safetensors", "universal.json", "universal.gguf")
    for name in (*written, "report.md", "report.html"):
        assert (Path("lake/out") / name).stat().st_size > 1000, name


def check_same(first: str, second: str) -> None:
    """The same rows, and figures but for rounding: workers of Ray have fewer threads each."""
    rows, results = [], []
    for root in (first, second):
        os.environ["AXES_ROOT"] = root
        rows.append(
            query(
                "select model, layer::text as part, count(*) as rows, "
                "bit_xor(hash(prompt_id, site, pooling, template))::text as keys, "
                "sum(dot(vector, vector)) as squares from activations group by all union all "
                "select model, 'tokens', count(*), "
                "bit_xor(hash(generation_id, layer, step, token_id))::text, "
                "sum(dot(vector, vector)) from generation_tokens group by all order by all"
            )
        )
        results.append([*numbers(json.loads(axes(STUDY)))])
    assert len(rows[0]) == sum(MODELS.values()) + len(MODELS)
    assert len(results[0]) == len(results[1]) > 100
    pairs = [*zip(*map(numbers, rows), strict=True), *zip(*results, strict=True)]
    assert [place for (place, _), _ in pairs] == [place for _, (place, _) in pairs]
    other = [
        (place, here, there) for (place, here), (_, there) in pairs if not is_near(here, there)
    ]
    assert not other, other
    count = sum(row["rows"] for row in rows[0])
    print(f"{second} has the {count:,} rows of {first}, and {len(results[0])} equal figures")


def is_near(here: object, there: object) -> bool:
    """Whether rounding can make the one of the other."""
    if not isinstance(here, float) or not isinstance(there, float):
        return here == there
    return math.isclose(here, there, rel_tol=1e-3, abs_tol=1e-3)


def numbers(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """What a JSON document holds, each with its place; without what names a run."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            if key not in ("run_id", "seconds"):
                yield from numbers(inner, f"{place}/{key}")
    else:
        yield place, value


def main(turn: str) -> None:
    result = json.loads(axes(STUDY))
    check_numbers(result)
    check_rows()
    axes("warehouse check")
    tokens = query("select sum(tokens)::bigint as tokens from runs")[0]["tokens"]
    seen = {"result": result, "tokens": tokens}
    if turn == "first":
        SEEN.write_text(json.dumps(seen))
    else:
        before = json.loads(SEEN.read_text())
        assert before["result"] == result, "the second demo gave other numbers"
        assert before["tokens"] == tokens, "the second demo ran a model"
    print(f"demo ({turn}): numbers are sane, {tokens} tokens in all")


if __name__ == "__main__":
    check_same(*sys.argv[2:]) if sys.argv[1] == "same" else main(sys.argv[1])
