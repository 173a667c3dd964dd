"""The macros against numpy and scikit-learn, on random data with ties, gaps and missing classes."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    cohen_kappa_score,
    roc_auc_score,
    roc_curve,
)

from axes.warehouse.connection import Connection, connect, query, rows
from axes.warehouse.errors import QueryError
from axes.warehouse.tables.catalog import sql_files
from tests.rows import put, put_prompts
from tests.sql.marts.given import put_projections


@pytest.fixture
def connection(empty: Connection) -> Connection:
    return empty.cursor()


# Hypothesis runs a test many times over, which fixtures of one test each do not allow.
_MACROS = duckdb.connect()
for _name in ("labelled", "midranks", "tpr_at_fpr"):
    _MACROS.execute(sql_files("macros")[_name])


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
def test_products_of_vectors_are_numpys_in_double_precision(connection, width):
    random = np.random.default_rng(width)
    a, b = (1e3 * random.standard_normal((2, 40, width))).astype(np.float32)
    kinds = pa.schema({"a": pa.list_(pa.float32()), "b": pa.list_(pa.float32())})
    connection.register("pairs", pa.table({"a": a.tolist(), "b": b.tolist()}).cast(kinds))
    found = query(
        connection,
        "select dot(a, b) as d, cosine(a, b) as c, unit(a) as u, euclidean(a, b) as e from pairs",
    )
    a, b = a.astype(np.float64), b.astype(np.float64)
    dot, norm = (a * b).sum(axis=1), np.linalg.norm(a, axis=1)
    cosine = dot / norm / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(found["d"].to_numpy(), dot, rtol=1e-10, atol=1e-6)
    np.testing.assert_allclose(found["c"].to_numpy(), cosine, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(np.array(found["u"].to_pylist()), a / norm[:, None], atol=1e-12)
    np.testing.assert_allclose(found["e"].to_numpy(), np.linalg.norm(a - b, axis=1), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "value"),
    [
        # What float32 would lose.
        ("dot([1e8, 1, -1e8]::float[], [1, 1, 1]::float[])", 1.0),
        ("cosine([3, 4], [6, 8])", 1.0),
        ("cosine([3, 4], [-3, -4])", -1.0),
        ("cosine([3, 4], [-4, 3])", 0.0),
        ("cosine([0, 0], [1, 2])", None),
        ("cosine([1, 2], [0, 0])", None),
        ("dot(null::float[], [1, 2])", None),
        ("cosine(null::float[], [1, 2])", None),
        ("unit([0, 0])", None),
        ("unit(null::float[])", None),
        ("interpolate(null, [1.0], [2.0])", None),
        ("""calibrated(0.5, '{"slope": 2.0, "intercept": -1.0}')""", 0.5),
        ("""calibrated(-1e6, '{"slope": 2.0, "intercept": -1.0}')""", 0.0),
        ("""calibrated(0.25, '{"x": [0.0, 1.0], "y": [0.2, 0.6]}')""", 0.3),
        ("bootstrap_ci(null::double, 1)", None),
    ],
)
def test_a_call_by_hand(connection: Connection, call: str, value: float | None) -> None:
    expected = value if value is None else pytest.approx(value)
    assert single(connection, f"select {call}") == expected


@pytest.mark.parametrize("macro", ["dot", "cosine"])
def test_vectors_of_two_widths_are_refused(connection: Connection, macro: str) -> None:
    with pytest.raises(QueryError, match="dimensions must be equal"):
        query(connection, f"select {macro}([1, 2], [1, 2, 3])")


def test_auroc_depends_on_ranks_alone_and_not_on_the_order_of_rows(connection: Connection) -> None:
    connection.register("scored", scored(3))
    statement = "select auroc({}, is_positive) from (from scored order by {})"
    found = {
        single(connection, statement.format(score, order))
        for score in ("score", "exp(3 * score) - 9")
        for order in ("score", "score desc", "is_positive", "hash(score, place, is_positive)")
    }
    assert len(found) == 1


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
        ("(null::double, null::boolean), (2.0, true)", None),
        ("(1.0, false), (2.0, true), (null, true), (null, false), (null, null)", 1.0),
        ("(-1, false), (3, true)", 1.0),
        ("(0.5, false), (0.5, true), (0.5, false)", 0.5),
    ],
)
def test_auroc_of_few_rows_by_hand(connection, values, auroc):
    statement = f"select auroc(score, is_positive) from (values {values}) as t(score, is_positive)"
    assert single(connection, statement) == auroc


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
    for axis in ("a", "b"):
        for model in ("m", "n"):
            values = {
                name: float(random.integers(0, 12)) + 2 * label for name, label in prompts.items()
            }
            put_projections(root, axis, values, model)
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


def test_project_is_the_product_with_the_registered_axis(root: Path) -> None:
    put(root, "axes", {"axis_id": "x", "vector": [0.6, 0.8]}, {"axis_id": "y", "vector": [1, 0]})
    connection = connect(root)
    assert single(connection, "select project([5, 10], 'x')") == pytest.approx(11, abs=1e-6)
    assert single(connection, "select project([5, 10], 'nowhere')") is None
    found = rows(connection, "select axis_id, project([5, 10], axis_id) as p from axes order by 1")
    assert [(row["axis_id"], round(row["p"], 5)) for row in found] == [("x", 11.0), ("y", 5.0)]


def cohens_d(score: np.ndarray, is_positive: np.ndarray) -> float:
    """By the textbook: sums of squares about the class means over n - 2."""
    positive, negative = score[is_positive], score[~is_positive]
    squares = sum(((part - part.mean()) ** 2).sum() for part in (positive, negative))
    return (positive.mean() - negative.mean()) / np.sqrt(squares / (len(score) - 2))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [2, 20, 10**6])
def test_the_class_macros_are_sklearns_with_ties(connection, seed, levels):
    table = scored(seed, levels=levels)
    connection.register("scored", table)
    score, positive = table["score"].to_numpy(), table["is_positive"].to_numpy()
    wanted = {
        "auroc(score, is_positive)": roc_auc_score(positive, score),
        "auprc(score, is_positive)": average_precision_score(positive, score),
        "cohens_d(score, is_positive)": cohens_d(score, positive),
        "brier(score, is_positive)": brier_score_loss(positive, score),
    }
    false_rate, true_rate, _ = roc_curve(positive, score, drop_intermediate=False)
    for limit in (0, 0.01, 0.05, 0.29, 0.5, 1, *false_rate[:8]):
        call = f"tpr_at_fpr(score, is_positive, {float(limit)!r}::double)"
        wanted[call] = true_rate[false_rate <= limit].max()
    for call, value in wanted.items():
        assert single(connection, f"select {call} from scored") == pytest.approx(value, abs=1e-9)


@given(st.integers(1, 400), st.data())
def test_a_false_positive_rate_that_is_a_fraction_allows_just_that_many(negatives, data):
    """k / n as a limit lets k negatives through, whichever way k / n * n is rounded."""
    allowed = data.draw(st.integers(0, negatives))
    connection = _MACROS
    found = single(
        connection,
        "select tpr_at_fpr(score, is_positive, $2::double) from ("
        "select range::double as score, false as is_positive from range($1) "
        "union all select range + 0.5, true from range(-1, $1))",
        [negatives, allowed / negatives],
    )
    assert found == pytest.approx((allowed + 1) / (negatives + 1), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [2, 20, 10**6])
def test_spearman_is_scipys_with_ties(connection: Connection, seed: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(0, levels, 300) / levels
    y = np.round(x + random.standard_normal(300), 1)
    connection.register("pairs", pa.table({"x": x, "y": y}))
    wanted = spearmanr(x, y).statistic
    assert single(connection, "select spearman(x, y) from pairs") == pytest.approx(wanted, abs=1e-9)
    assert single(connection, "select spearman(y, -x) from pairs") == pytest.approx(
        -wanted, abs=1e-9
    )


@given(st.lists(st.sampled_from([-1.5, 0.0, 0.25, 7.0, float("inf")]), max_size=30))
def test_midranks_are_scipys(values: list[float]) -> None:
    found = single(_MACROS, "select midranks(list_sort($1::double[]))", [values])
    assert found == (rankdata(sorted(values)).tolist() if values else [])


CALLS = {
    "auroc(score, is_positive)": None,
    "auprc(score, is_positive)": 1.0,
    "tpr_at_fpr(score, is_positive, 0.5)": None,
    "cohens_d(score, is_positive)": None,
    "brier(score, is_positive)": 2.5,
}


@pytest.mark.parametrize(("call", "value"), CALLS.items())
def test_a_class_that_is_missing_gives_null_and_not_an_error(connection, call, value):
    """`value` is what is still defined where every row is positive."""
    asked = f"select {call} from (values {{}}) as t(score, is_positive)"
    positives = "(0.0, true), (3.0, true)"
    found = single(connection, asked.format(positives))
    assert found is None if value is None else found == pytest.approx(value)
    if not call.startswith("brier"):
        assert single(connection, asked.format("(0.0, false), (3.0, false)")) is None
    assert single(connection, asked.format("(null::double, true), (null, false)")) is None
    assert single(connection, f"{asked.format(positives)} where false") is None


@pytest.mark.parametrize("call", CALLS)
def test_rows_without_a_score_are_left_out_and_without_a_label_refused(connection, call):
    asked = f"select {call} from (values {{}}) as t(score, is_positive)"
    plain = "(0.25, false), (0.5, true), (0.5, false), (0.75, true)"
    gaps = f"{plain}, (null, true), (null, false), (null, null)"
    assert single(connection, asked.format(gaps)) == single(connection, asked.format(plain))
    with pytest.raises(QueryError, match="add `where is_positive is not null`"):
        single(connection, asked.format(f"{gaps}, (0.9, null)"))


@pytest.mark.parametrize("pair", ["1, y", "x, 1", "null, y", "null, null", "x, nullif(x, x)"])
def test_a_side_that_does_not_vary_has_no_rank_correlation(connection, pair):
    values = "(values (1, 5), (2, 3), (3, 4)) as t(x, y)"
    assert single(connection, f"select spearman({pair}) from {values}") is None


def test_aggregates_work_by_group(connection: Connection) -> None:
    table = scored(9)
    connection.register("scored", table)
    found = rows(
        connection,
        "select place, auroc(score, is_positive) as auroc, auroc(-score, is_positive) as reversed, "
        "auprc(score, is_positive) as auprc, spearman(score, is_positive::int) as spearman, "
        "tpr_at_fpr(score, is_positive, 0.1) as tpr, bootstrap_ci(score, 0).estimate as mean "
        "from scored group by place order by place",
    )
    assert [row["place"] for row in found] == [0, 1, 2]
    for row in found:
        mine = table.filter(pa.compute.equal(table["place"], row["place"]))
        score, positive = mine["score"].to_numpy(), mine["is_positive"].to_numpy()
        area = roc_auc_score(positive, score)
        false_rate, true_rate, _ = roc_curve(positive, score, drop_intermediate=False)
        assert row == {
            "place": row["place"],
            "auroc": pytest.approx(area, abs=1e-12),
            "reversed": pytest.approx(1 - area, abs=1e-12),
            "auprc": pytest.approx(average_precision_score(positive, score), abs=1e-9),
            "spearman": pytest.approx(spearmanr(score, positive).statistic, abs=1e-9),
            "tpr": pytest.approx(true_rate[false_rate <= 0.1].max(), abs=1e-9),
            "mean": pytest.approx(score.mean(), abs=1e-9),
        }


def test_a_bootstrap_interval_is_numpys_on_the_same_draws(connection: Connection) -> None:
    values = np.sort(np.random.default_rng(3).standard_normal(50))
    connection.register("numbers", pa.table({"x": values}))
    draws = query(
        connection,
        "select (hash(7::int, r, d) % 50)::int as place from range(200) as a(r), range(50) as b(d) "
        "order by r, d",
    )["place"].to_numpy()
    means = values[draws].reshape(200, 50).mean(axis=1)
    found = single(connection, "select bootstrap_ci(x, 7, replicates := 200) from numbers")
    assert found["estimate"] == pytest.approx(values.mean(), abs=1e-9)
    assert found["lower"] == pytest.approx(np.quantile(means, 0.025), abs=1e-9)
    assert found["upper"] == pytest.approx(np.quantile(means, 0.975), abs=1e-9)


def test_a_bootstrap_interval_is_as_wide_as_theory_and_its_level_say(connection):
    values = np.random.default_rng(4).standard_normal(400)
    connection.register("numbers", pa.table({"x": values}))
    for level, deviations in ((0.95, 1.96), (0.5, 0.674)):
        found = single(connection, f"select bootstrap_ci(x, 1, level := {level}) from numbers")
        half = (found["upper"] - found["lower"]) / 2
        assert half == pytest.approx(deviations * values.std() / 20, rel=0.15)


def test_a_seed_gives_one_interval_whatever_the_order_of_rows(connection: Connection) -> None:
    connection.register("scored", scored(6))
    asked = "select bootstrap_ci(score, {}, replicates := 100) from (from scored order by {})"
    found = [
        single(connection, asked.format(1, by)) for by in ("score", "score desc", "hash(score)")
    ]
    assert found[0] == found[1] == found[2]
    assert single(connection, asked.format(2, "score")) != found[0]


@pytest.mark.parametrize("kinds", [2, 5])
def test_cohen_kappa_is_sklearns(connection: Connection, kinds: int) -> None:
    random = np.random.default_rng(kinds)
    first = random.integers(0, kinds, 300)
    other = np.where(random.random(300) < 0.6, first, random.integers(0, kinds, 300))
    said = pa.table(
        {"first": [f"label {k}" for k in first], "other": [f"label {k}" for k in other]}
    )
    gaps = pa.table({"first": ["label 0", None], "other": [None, "label 1"]})
    connection.register("said", pa.concat_tables([said, gaps]))
    found = single(connection, "select cohen_kappa(first, other) from said")
    assert found == pytest.approx(cohen_kappa_score(first, other), abs=1e-12)


def test_kappa_is_1_for_the_same_and_below_0_for_opposites(connection: Connection) -> None:
    both = "(values (true, true), (true, true), (false, false)) as t (a, b)"
    assert single(connection, f"select cohen_kappa(a, b) from {both}") == 1.0
    assert single(connection, f"select cohen_kappa(a, not b) from {both}") < 0
    assert single(connection, f"select cohen_kappa(true, true) from {both}") is None
    assert single(connection, f"select cohen_kappa(a, b) from {both} where a is null") is None


@pytest.mark.parametrize("knots", [[0.0], [-1.0, 0.5, 4.0]])
def test_interpolate_is_numpys(empty: Connection, knots: list[float]) -> None:
    values = np.linspace(0.1, 0.9, len(knots)).tolist()
    for x in (-9.0, -1.0, 0.0, 0.2, 0.5, 3.0, 4.0, 9.0):
        found = single(empty, "select interpolate(?, ?::double[], ?::double[])", [x, knots, values])
        assert found == pytest.approx(np.interp(x, knots, values))


def test_pick_turns_rows_into_columns(empty: Connection) -> None:
    statement = """
        select pick(estimate, metric, 'b') as b, pick(estimate, metric, 'c') as c
        from (values ('a', 1.0), ('b', 2.0), ('a', 3.0)) as t (metric, estimate)
    """
    assert rows(empty, statement) == [{"b": 2.0, "c": None}]
