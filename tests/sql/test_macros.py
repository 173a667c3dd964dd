"""The macros against numpy and scikit-learn, on random data with ties, gaps and missing classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from tests.rows import put, put_prompts
from warehouse.connection import Connection, connect, query, rows
from warehouse.errors import QueryError


@pytest.fixture
def connection(empty: Connection) -> Connection:
    return empty.cursor()


def single(connection: Connection, statement: str, parameters: object = None) -> object:
    (row,) = rows(connection, statement, parameters)
    (value,) = row.values()
    return value


def scored(seed: int, count: int = 300, levels: int = 20) -> pa.Table:
    """Scores on few levels (many ties) in three groups, labels that lean on the score."""
    random = np.random.default_rng(seed)
    score = random.integers(0, levels, count) / levels
    return pa.table(
        {
            "place": random.integers(0, 3, count),
            "score": score,
            "is_positive": score + random.standard_normal(count) > 0.5,
        }
    )


@pytest.mark.parametrize("width", [1, 3, 512])
def test_dot_and_cosine_are_numpys_in_double_precision(connection: Connection, width: int) -> None:
    random = np.random.default_rng(width)
    a = (1e3 * random.standard_normal((40, width))).astype(np.float32)
    b = (1e3 * random.standard_normal((40, width))).astype(np.float32)
    pairs = pa.table({"a": a.tolist(), "b": b.tolist()}).cast(
        pa.schema({"a": pa.list_(pa.float32()), "b": pa.list_(pa.float32())})
    )
    connection.register("pairs", pairs)
    found = query(connection, "select dot(a, b) as d, cosine(a, b) as c from pairs")
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    dot = (wide_a * wide_b).sum(axis=1)
    cosine = dot / np.linalg.norm(wide_a, axis=1) / np.linalg.norm(wide_b, axis=1)
    np.testing.assert_allclose(found["d"].to_numpy(), dot, rtol=1e-10, atol=1e-6)
    np.testing.assert_allclose(found["c"].to_numpy(), cosine, rtol=1e-10, atol=1e-12)


def test_dot_keeps_what_float32_would_lose(connection: Connection) -> None:
    assert single(connection, "select dot([1e8, 1, -1e8]::float[], [1, 1, 1]::float[])") == 1.0


def test_cosine_knows_direction_and_not_length(connection: Connection) -> None:
    for other, cosine in (("[6, 8]", 1.0), ("[-3, -4]", -1.0), ("[-4, 3]", 0.0)):
        assert single(connection, f"select cosine([3, 4], {other})") == pytest.approx(cosine)


def test_the_zero_vector_has_no_cosine(connection: Connection) -> None:
    assert single(connection, "select cosine([0, 0], [1, 2])") is None
    assert single(connection, "select cosine([1, 2], [0, 0])") is None


@pytest.mark.parametrize("macro", ["dot", "cosine"])
def test_a_null_vector_gives_null_and_two_widths_are_refused(
    connection: Connection, macro: str
) -> None:
    assert single(connection, f"select {macro}(null::float[], [1, 2])") is None
    with pytest.raises(QueryError, match="dimensions must be equal"):
        query(connection, f"select {macro}([1, 2], [1, 2, 3])")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [1, 2, 20, 10**6])
def test_auroc_is_sklearns_with_ties(connection: Connection, seed: int, levels: int) -> None:
    table = scored(seed, levels=levels)
    connection.register("scored", table)
    found = single(connection, "select auroc(score, is_positive) from scored")
    wanted = roc_auc_score(table["is_positive"].to_numpy(), table["score"].to_numpy())
    assert found == pytest.approx(wanted, abs=1e-12)
    if levels == 1:
        assert found == 0.5


def test_auroc_by_group_is_sklearns_in_each(connection: Connection) -> None:
    table = scored(7)
    connection.register("scored", table)
    found = rows(
        connection,
        "select place, auroc(score, is_positive) as auroc, auroc(-score, is_positive) as other "
        "from scored group by place order by place",
    )
    assert [row["place"] for row in found] == [0, 1, 2]
    for row in found:
        mine = table.filter(pa.compute.equal(table["place"], row["place"]))
        wanted = roc_auc_score(mine["is_positive"].to_numpy(), mine["score"].to_numpy())
        assert row["auroc"] == pytest.approx(wanted, abs=1e-12)
        assert row["other"] == pytest.approx(1 - wanted, abs=1e-12)


def test_auroc_does_not_depend_on_the_order_of_rows(connection: Connection) -> None:
    connection.register("scored", scored(3))
    statement = "select auroc(score, is_positive) from (from scored order by {})"
    found = {
        single(connection, statement.format(order))
        for order in ("score", "score desc", "is_positive", "hash(score, place, is_positive)")
    }
    assert len(found) == 1


def test_auroc_depends_on_ranks_alone(connection: Connection) -> None:
    connection.register("scored", scored(4))
    plain = single(connection, "select auroc(score, is_positive) from scored")
    assert single(connection, "select auroc(exp(3 * score) - 9, is_positive) from scored") == plain


@pytest.mark.parametrize(
    ("values", "auroc"),
    [
        ("(1.0, false), (2.0, true)", 1.0),
        ("(2.0, false), (1.0, true)", 0.0),
        ("(1.0, false), (1.0, true)", 0.5),
        ("(1.0, false), (2.0, true), (2.0, false), (3.0, true)", 0.875),
        ("(1.0, true), (2.0, true)", None),
        ("(1.0, false)", None),
        ("(null::double, true), (1.0, false)", None),
        ("(1.0, null::boolean), (2.0, true)", None),
        ("(1.0, false), (2.0, true), (null, true), (null, false), (0.0, null)", 1.0),
        ("(-1, false), (3, true)", 1.0),
    ],
)
def test_auroc_of_few_rows_by_hand(
    connection: Connection, values: str, auroc: float | None
) -> None:
    statement = f"select auroc(score, is_positive) from (values {values}) as t(score, is_positive)"
    assert single(connection, statement) == auroc


def test_auroc_of_no_rows_is_null(connection: Connection) -> None:
    assert single(connection, "select auroc(projection, is_positive) from v_projections") is None


def test_auroc_takes_expressions_and_columns_named_like_its_own(connection: Connection) -> None:
    connection.register("scored", scored(5))
    wanted = single(connection, "select auroc(score, is_positive) from scored")
    statement = """
        select auroc(value * 2 + 1, not (not positive)) from (
            select score as value, is_positive as positive, place, 1 as item, 2 as midrank
            from scored
        )
    """
    assert single(connection, statement) == wanted


def test_the_macro_and_the_view_give_the_same_auroc(root: Path) -> None:
    random = np.random.default_rng(11)
    prompts = {f"p{index}": bool(random.random() < 0.4) for index in range(80)}
    put_prompts(root, "all", prompts)
    put_prompts(root, "some", dict(list(prompts.items())[:30]))
    put_prompts(root, "one class", {name: True for name, label in prompts.items() if label})
    put(root, "axes", {"axis_id": "a"}, {"axis_id": "b"})
    put(
        root,
        "projections",
        *(
            {
                "axis_id": axis,
                "model": model,
                "model_id": f"{model} id",
                "prompt_id": name,
                "projection": float(random.integers(0, 12)) + 2 * label,
            }
            for axis in ("a", "b")
            for model in ("m", "n")
            for name, label in prompts.items()
        ),
    )
    connection = connect(root)
    both = rows(
        connection,
        """
        with by_macro as (
            select axis_id, model_id, prompt_set, auroc(projection, is_positive) as auroc
            from v_projections group by all
        )
        select prompt_set, v_auroc.auroc as of_view, by_macro.auroc as of_macro
        from v_auroc full join by_macro using (axis_id, model_id, prompt_set)
        """,
    )
    assert len(both) == 2 * 2 * 3
    for row in both:
        assert row["of_view"] == row["of_macro"]
        assert (row["of_view"] is None) == (row["prompt_set"] == "one class")
        assert row["of_view"] is None or 0.5 < row["of_view"] < 1
