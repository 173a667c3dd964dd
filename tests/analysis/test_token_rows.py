"""Token probes: what they find that pooled vectors do not, and that plain loops give the same."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from sklearn.metrics import roc_auc_score

import axes
from axes.analysis.activations import find_space, load_matrix, project
from axes.analysis.methods.nulls import fitted_scores
from axes.analysis.projections import score
from axes.analysis.stats.splits import grouped_folds, unsplit_groups
from axes.analysis.study.robustness.held_out import EvaluationDefinition, run_evaluation
from axes.analysis.token_attention import BATCH, EPOCHS, PENALTY, RATE, fit_query
from axes.analysis.token_rows import TokenRows
from axes.warehouse.errors import AxesError, QueryError
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import TokenPooling
from tests.rows import ask
from tests.token_worlds import LAYER, MODEL, WIDTH, TokenWorld, make_token_world
from tests.worlds import define_study

KINDS = ("tokens_mean", "tokens_max", "tokens_rolling_max@10", "tokens_attention")


@pytest.fixture(scope="module")
def one_token(tmp_path_factory: pytest.TempPathFactory) -> TokenWorld:
    root = tmp_path_factory.mktemp("tokens") / "lake"
    return make_token_world(root, {"short": (120, 36), "new": (120, 36)}, reach=5.0)


@pytest.fixture(scope="module")
def passage(tmp_path_factory: pytest.TempPathFactory) -> TokenWorld:
    root = tmp_path_factory.mktemp("tokens") / "lake"
    sets = {"short": (100, 36), "new": (100, 36), "long": (100, 144)}
    return make_token_world(root, sets, reach=2.0, shown=10, seed=1)


def fitted(world: TokenWorld, pooling: str, *evaluate: str, **options: str) -> dict[str, float]:
    """AUROC by prompt set of the direction fitted on `short`."""
    table = axes.fit(MODEL, "short", evaluate=evaluate, pooling=pooling, root=world.root, **options)
    return {row["prompt_set"]: row["auroc"] for row in table.table.to_pylist()}


def stored(world: TokenWorld, pooling: str, prompt_set: str) -> tuple[np.ndarray, np.ndarray]:
    """The axis of a token pooling, and its projections of a set, from the warehouse."""
    (axis,) = ask(
        world.root,
        "select axis_id, vector from axes "
        "where (pooling = $1 or starts_with(pooling, $1 || '@')) and method = 'mean_diff'",
        [pooling],
    )
    rows = ask(
        world.root,
        "select projection from v_projections where axis_id = ? and prompt_set = ? "
        "order by position",
        [axis["axis_id"], prompt_set],
    )
    return np.array(axis["vector"]), np.array([row["projection"] for row in rows])


def tokens_of(world: TokenWorld, prompt_set: str, pooling: str = "tokens_max") -> TokenRows:
    warehouse = Warehouse.open(world.root)
    space = find_space(warehouse, MODEL, pooling=pooling).at(LAYER)
    x = load_matrix(warehouse, space, prompt_set).x
    assert isinstance(x, TokenRows)
    return x


def test_a_concept_at_one_token_is_found_by_the_max_and_not_in_pooled_vectors(one_token):
    areas = {kind: fitted(one_token, kind, "new")["new"] for kind in ("last5_mean", *KINDS)}
    assert 0.4 < areas["last5_mean"] < 0.6
    assert 0.6 < areas["tokens_mean"] < 0.8
    assert areas["tokens_max"] > 0.95
    assert areas["tokens_attention"] > 0.95


def test_four_times_longer_prompts_break_the_mean_and_not_the_rolling_max(passage):
    mean, rolling = (fitted(passage, kind, "new", "long") for kind in KINDS[::2])
    assert mean["new"] > 0.98 and rolling["new"] > 0.99
    assert mean["long"] < 0.93
    assert rolling["long"] > 0.99
    # The threshold of a false-positive rate of 5 % moves with the length, too.
    hits = {}
    for kind in KINDS[::2]:
        _, short = stored(passage, kind, "new")
        _, long = stored(passage, kind, "long")
        labels = passage.labels["new"]
        hits[kind] = float((long[labels] > np.quantile(short[~labels], 0.95)).mean())
    assert hits["tokens_mean"] < 0.5 < 0.95 < hits["tokens_rolling_max@10"]


@pytest.mark.parametrize("kind", KINDS)
def test_plain_loops_give_the_same_direction_and_scores(one_token, kind):
    fitted(one_token, kind, "new")
    axis, scores = stored(one_token, kind, "new")
    weights = {
        name: [np.full(len(each), 1 / len(each)) for each in tokens]
        for name, tokens in one_token.tokens.items()
    }
    if kind == "tokens_attention":
        (row,) = ask(
            one_token.root, "select vector, raw_norm from axes where method = 'attention_query'"
        )
        query = np.array(row["vector"]) * row["raw_norm"]
        weights = {
            name: [scipy.special.softmax(each @ query) for each in tokens]
            for name, tokens in one_token.tokens.items()
        }
    means = np.stack(
        [w @ x for w, x in zip(weights["short"], one_token.tokens["short"], strict=True)]
    )
    labels = one_token.labels["short"]
    difference = means[labels].mean(axis=0) - means[~labels].mean(axis=0)
    np.testing.assert_allclose(axis, difference / np.linalg.norm(difference), atol=1e-6)
    expected = []
    for x, w in zip(one_token.tokens["new"], weights["new"], strict=True):
        along = x.astype(np.float64) @ axis
        if kind == "tokens_max":
            expected.append(along.max())
        elif kind.startswith("tokens_rolling_max"):
            expected.append(np.convolve(along, np.full(10, 0.1), "valid").max())
        else:
            expected.append(w @ along)
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=2e-5 * (kind in KINDS[::3]))


def test_fitted_scores_lie_about_the_middle_of_the_classes_that_the_fit_saw(one_token):
    x, labels = tokens_of(one_token, "short"), one_token.labels["short"]
    seen = np.arange(len(labels)) % 3 > 0
    (found,) = fitted_scores(x, labels, seen)
    assert found[seen & labels].mean() == pytest.approx(-found[seen & ~labels].mean(), rel=1e-6)
    assert found[seen & labels].mean() > 0.1


def test_the_query_is_that_of_autograd_and_adam_of_torch(one_token):
    x, labels = tokens_of(one_token, "short"), one_token.labels["short"]
    every = np.concatenate(one_token.tokens["short"]).astype(np.float64)
    centre, scale = torch.tensor(every.mean(axis=0)), torch.tensor(every.std(axis=0))
    z = [(torch.tensor(each).double() - centre) / scale for each in one_token.tokens["short"]]
    means = torch.stack([each.mean(dim=0) for each in z])
    start = means[labels].mean(dim=0) - means[~labels].mean(dim=0)
    query = torch.zeros(WIDTH, dtype=torch.float64, requires_grad=True)
    value = (start / start.norm()).requires_grad_()
    offset = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([query, value, offset], lr=RATE)
    random = np.random.default_rng(0)
    # The files hold every third prompt; the last prompt of one is read with the next.
    order = np.concatenate([np.arange(part, len(z), 3) for part in range(3)])
    blocks = [rows for rows, _, _ in x.blocks()]
    np.testing.assert_array_equal(np.concatenate(blocks), order)
    for _ in range(EPOCHS):
        for block in blocks:
            shuffled = block[random.permutation(len(block))]
            for batch in np.array_split(shuffled, -(-len(shuffled) // BATCH)):
                logits = torch.stack(
                    [torch.softmax(z[i] @ query, dim=0) @ (z[i] @ value) + offset for i in batch]
                )
                target = torch.tensor(labels[batch]).double()
                loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
                loss = loss + PENALTY / 2 * (query.square().sum() + value.square().sum())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    np.testing.assert_allclose(fit_query(x, labels), (query / scale).detach(), atol=1e-6, rtol=1e-6)


def test_no_more_than_a_file_of_tokens_is_in_memory_and_scoring_reads_once(one_token, monkeypatch):
    x = tokens_of(one_token, "short")
    total = sum(1 + len(each) for each in one_token.tokens["short"])
    sizes = [len(tokens) for _, _, tokens in x.blocks()]
    assert sum(sizes) == total and max(sizes) < total / 2
    real, reads = TokenRows.blocks, []
    monkeypatch.setattr(TokenRows, "blocks", lambda *of: reads.append(1) or real(*of))
    x.project(np.eye(WIDTH))
    assert len(reads) == 1


def test_a_memory_limit_changes_no_score(one_token):
    limited = Warehouse.open(one_token.root, memory_limit=1 << 30)
    space = find_space(limited, MODEL, pooling="tokens_rolling_max@4").at(LAYER)
    values = [
        project(load_matrix(warehouse, space, "new").x, one_token.axis)
        for warehouse in (limited, Warehouse.open(one_token.root))
    ]
    np.testing.assert_allclose(*values, atol=1e-9)


def test_evaluate_is_out_of_fold_at_the_layers_with_tokens(one_token):
    definition = EvaluationDefinition(
        MODEL, ("short",), layer_fraction=0.5, pooling="tokens_max", least_overlap=1.0
    )
    study_id = run_evaluation(Warehouse.open(one_token.root), definition)
    rows = ask(
        one_token.root,
        "select layer, estimate from evaluations "
        "where study_id = ? and scorer = 'native_cross_validated'",
        [study_id],
    )
    labels = one_token.labels["short"]
    warehouse = Warehouse.open(one_token.root)
    matrix = load_matrix(warehouse, find_space(warehouse, MODEL).at(LAYER), "short")
    texts = matrix.texts.to_pylist()
    folds = grouped_folds(labels, unsplit_groups(matrix.groups, texts, least_overlap=1.0))
    scores = np.empty(len(labels))
    means = np.stack([each.mean(axis=0) for each in one_token.tokens["short"]])
    for fold in np.unique(folds):
        seen = folds != fold
        axis = means[seen & labels].mean(axis=0) - means[seen & ~labels].mean(axis=0)
        axis /= np.linalg.norm(axis)
        each = np.array([(x @ axis).max() for x in one_token.tokens["short"]])
        each -= (each[seen & labels].mean() + each[seen & ~labels].mean()) / 2
        scores[~seen] = (each / each[seen].std())[~seen]
    assert [row["layer"] for row in rows] == [LAYER]
    assert rows[0]["estimate"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)


def test_score_projects_the_tokens_of_every_set(one_token):
    table = axes.fit(MODEL, "short", pooling="tokens_rolling_max@2", root=one_token.root).table
    (row,) = score(one_token.root, table["axis_id"][0].as_py())
    assert (row.stored_count, row.new_count) == (480, 240)
    axis, scores = stored(one_token, "tokens_rolling_max@2", "new")
    x = one_token.tokens["new"][7].astype(np.float64) @ axis
    assert scores[7] == pytest.approx(((x[1:] + x[:-1]) / 2).max(), abs=1e-6)


def test_where_tokens_cannot_stand_for_vectors_the_message_says_so(one_token):
    warehouse = Warehouse.open(one_token.root)
    fitted(one_token, "tokens_attention")
    (learned,) = ask(one_token.root, "select axis_id from axes where method = 'attention_query'")
    unseen = f"tokens_attention@{learned['axis_id']}"
    for pooling, message in (
        (unseen, "was learned on short"),
        ("tokens_attention", "no axis"),
        ("tokens_max", "--keep-tokens 2"),
        ("tokens_rolling_max@0", "number of tokens"),
        ("tokens_max@3", "takes nothing"),
    ):
        fraction = 1.0 if pooling == "tokens_max" else 0.5
        definition = EvaluationDefinition(
            MODEL, ("short",), layer_fraction=fraction, pooling=pooling
        )
        with pytest.raises(AxesError, match=message):
            run_evaluation(warehouse, definition)
    with pytest.raises(AxesError, match="no vector to align"):
        define_study(["alpha"], pooling="tokens_max")


def test_tokens_that_do_not_lie_together_are_an_error(tmp_path):
    world = make_token_world(tmp_path / "lake", {"short": (4, 20)}, files=1)
    rows = world.root / "prompt_tokens"
    (path,) = rows.rglob("short-0.parquet")
    x = tokens_of(world, "short")
    assert len(list(x.blocks())) == 2
    (path.parent / "twice.parquet").write_bytes(path.read_bytes())
    with pytest.raises(QueryError, match="stored twice or apart"):
        list(x.blocks())


def test_a_prompt_shorter_than_the_window_is_one_window():
    pooling = TokenPooling.find("tokens_rolling_max@3")
    assert pooling is not None
    assert pooling.score(np.array([4.0, 2.0])) == 3.0
    assert pooling.score(np.array([1.0, 1.0, 1.0, 7.0])) == 3.0
    np.testing.assert_allclose(pooling.score(np.array([[4.0, 1.0], [2.0, 1.0]])), [3.0, 1.0])
