"""A planted subspace is recovered, its rank shows out of fold, and without one there is chance."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

import axes
from axes.analysis.registry import read_alignment
from axes.analysis.stats.auroc import auroc_difference
from axes.analysis.stats.splits import grouped_folds
from axes.analysis.subspaces import Subspace, fit_subspace, rank_curve
from axes.warehouse.handle import Warehouse
from axes.warehouse.storage.store import store_at
from tests.commands import ok, printed, refused
from tests.rows import ask
from tests.worlds import write_activations, write_model, write_prompt_set

WIDTH = 20


def planted(
    rank: int, *, count: int = 400, reach: float = 4.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels and the basis: positive rows lie to either side of one of `rank` directions.

    Both classes vary alike and unevenly, about a mean far from zero.
    """
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0][:, :rank]
    labels = np.arange(2 * count) % 2 == 0
    x = random.standard_normal((2 * count, WIDTH)) * np.linspace(0.5, 1.5, WIDTH) + 30
    sides = reach * random.choice([-1.0, 1.0], 2 * count)
    if rank:
        which = random.integers(0, rank, 2 * count)
        x += (labels * sides)[:, None] * basis.T[which]
    return x, labels, basis


@pytest.mark.parametrize("rank", [1, 3])
def test_the_planted_subspace_is_found_within_five_degrees(rank):
    x, labels, basis = planted(rank, count=4000)
    found = fit_subspace(x, labels, rank)
    angles = found.angles(Subspace(basis, np.zeros(WIDTH)))
    assert angles.shape == (rank,) and angles[0] < 5
    # The class means differ by little, so that a difference in means finds next to nothing.
    difference = x[labels].mean(axis=0) - x[~labels].mean(axis=0)
    assert roc_auc_score(labels, x @ difference) < 0.6
    distances = np.linalg.norm(found.project(x), axis=1)
    assert roc_auc_score(labels, distances) > 0.9


def test_the_curve_rises_to_the_planted_rank_and_no_further():
    x, labels, _ = planted(3)
    groups = np.arange(len(labels)) // 2
    curve = rank_curve(x, labels, groups, max_rank=5)
    areas = [roc_auc_score(labels, scores) for scores in curve.scores]
    assert areas[0] < areas[1] < areas[2] > 0.95
    gains = [
        auroc_difference(second, first, labels, groups, is_out_of_fold=True)
        for first, second in zip(curve.scores, curve.scores[1:], strict=False)
    ]
    assert [gain.lower > 0 for gain in gains] == [True, True, False, False]
    assert (curve.shuffled.max(axis=0) < areas).all()
    assert abs(curve.shuffled.mean() - 0.5) < 0.05
    # Two halves agree on the planted directions and on no further one.
    assert curve.angles[2] < 20 and curve.angles[4] > 40


def test_nothing_planted_stays_within_the_null():
    x, labels, _ = planted(0)
    curve = rank_curve(x, labels, np.arange(len(labels)) // 2, max_rank=3)
    areas = [roc_auc_score(labels, scores) for scores in curve.scores]
    assert (np.abs(np.array(areas) - 0.5) < 0.08).all()


def test_plain_numpy_gives_the_same_subspace_and_angles():
    x, labels, basis = planted(2, count=100)
    found = fit_subspace(x, labels, 2)
    centre = x[~labels].mean(axis=0)
    excess = sum(np.outer(row - centre, row - centre) for row in x[labels]) / labels.sum()
    excess = excess - np.cov(x[~labels], rowvar=False)
    values, vectors = np.linalg.eigh(excess)
    expected = vectors[:, np.argsort(-values)[:2]]
    np.testing.assert_allclose(np.abs(np.diag(found.basis.T @ expected)), 1.0, atol=1e-6)
    cosines = np.linalg.svd(expected.T @ basis)[1].clip(max=1.0)
    angles = found.angles(Subspace(basis, centre))
    np.testing.assert_allclose(angles, np.degrees(np.arccos(cosines))[::-1], atol=1e-6)


def test_more_dimensions_than_rows_give_the_same_curve():
    x, labels, _ = planted(2, count=60)
    wide = np.hstack([x, np.zeros((len(x), 200))])
    wide = wide @ np.linalg.qr(np.random.default_rng(1).standard_normal((220, 220)))[0]
    groups = np.arange(len(labels))
    assert len(np.unique(grouped_folds(labels, groups))) == 5
    narrow, compressed = (rank_curve(each, labels, groups, max_rank=2) for each in (x, wide))
    np.testing.assert_allclose(narrow.scores, compressed.scores, atol=1e-6)
    np.testing.assert_allclose(narrow.angles, compressed.angles, atol=1e-4)


def test_few_rows_of_many_dimensions_give_the_same_subspace():
    x, labels, _ = planted(2, count=30)
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((220, 220)))[0]
    wide = np.hstack([x, np.zeros((len(x), 200))]) @ turn
    narrow, found = (fit_subspace(each, labels, 2) for each in (x, wide))
    np.testing.assert_allclose(found.project(wide), narrow.project(x), atol=1e-6)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(2), atol=1e-9)
    assert (found.project(wide)[labels].mean(axis=0) > 0).all()


NAME = "subspace/mine/0/planted/rank-3"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a planted subspace of rank 3 on 4,000 pairs, fitted, and 200 held-out pairs."""
    root = tmp_path_factory.mktemp("subspaces") / "lake"
    store_at(root).init()
    write_model(root, "mine", WIDTH, 1)
    x, labels, _ = planted(3, count=4200)
    for name, part in (("planted", slice(0, 8000)), ("unseen", slice(8000, None))):
        write_prompt_set(root, name, len(labels[part]), labels[part])
        write_activations(root, "mine", 0, name, x[part])
    axes.fit("mine", "planted", evaluate="unseen", rank=3, root=root)
    return root


def scores_of(root: Path, prompt_set: str, name: str = NAME) -> dict[str, np.ndarray]:
    """Columns of `v_subspace_scores` in the order of the prompts."""
    found = ask(
        root,
        "from v_subspace_scores where subspace_name = ? and prompt_set = ? order by prompt_id",
        [name, prompt_set],
    )
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def test_a_stored_subspace_has_the_coordinates_and_scores_of_plain_numpy(root):
    x, labels, planted_basis = planted(3, count=4200)
    x = x.astype(np.float32).astype(np.float64)
    seen = np.arange(len(x)) < 8000
    centre = x[seen & ~labels].mean(axis=0)
    moved = x[seen & labels] - centre
    excess = moved.T @ moved / len(moved) - np.cov(x[seen & ~labels], rowvar=False)
    basis = np.linalg.eigh(excess)[1][:, :-4:-1]
    basis *= np.sign(moved.mean(axis=0) @ basis)
    basis = basis.astype(np.float32).astype(np.float64)
    assert np.degrees(scipy.linalg.subspace_angles(basis, planted_basis)).max() < 5
    along = (x - centre) @ basis
    features = np.hstack([along, along**2])
    scaler = StandardScaler().fit(features[seen])
    probe = LogisticRegression(C=1 / (0.1 * 8000), tol=1e-10, max_iter=1000)
    probe.fit(scaler.transform(features[seen]), labels[seen])
    combined = scaler.transform(features) @ probe.coef_[0]
    combined -= (combined[seen & labels].mean() + combined[seen & ~labels].mean()) / 2
    for prompt_set, part in (("planted", seen), ("unseen", ~seen)):
        found = scores_of(root, prompt_set)
        np.testing.assert_array_equal(found["is_positive"], labels[part])
        assert (found["is_in_sample"] == (prompt_set == "planted")).all()
        np.testing.assert_allclose(found["coordinates"], along[part], atol=1e-6)
        norms = np.linalg.norm(along[part], axis=1)
        np.testing.assert_allclose(found["norm"], norms, atol=1e-6)
        np.testing.assert_allclose(found["combination"], combined[part], atol=1e-6)
        assert roc_auc_score(labels[part], found["norm"]) > 0.95


def test_fitting_prints_both_scores_next_to_the_direction_and_fits_once(root):
    before = sorted(root.rglob("axes/*.parquet"))
    again = axes.fit("mine", "planted", evaluate="unseen", rank=3, root=root)
    assert sorted(root.rglob("axes/*.parquet")) == before
    rows = {row["prompt_set"]: row for row in again.rows}
    assert rows.keys() == {"planted", "unseen"}
    for prompt_set, row in rows.items():
        found = scores_of(root, prompt_set)
        for score in ("norm", "combination"):
            area = roc_auc_score(found["is_positive"], found[score])
            assert row[f"auroc_{score}"] == pytest.approx(area, abs=1e-9)
        assert row["auroc_direction"] < 0.65 < 0.95 < row["auroc_combination"]
    assert again.ids == tuple(row["axis_id"] for row in printed_axes(root, "native"))


def printed_axes(root: Path, kind: str) -> list[dict]:
    return [row for row in printed("list", "axes", "--root", root) if row["kind"] == kind]


def test_it_is_one_object_by_name_and_by_id(root, tmp_path):
    (listed,) = printed_axes(root, "subspace")
    assert listed["name"] == NAME and listed["model"] == "mine"
    for name in (NAME, listed["axis_id"], listed["axis_id"][:8]):
        (scored,) = printed("score", name, "--root", root)
        assert (scored["stored_count"], scored["new_count"]) == (8400, 0)
    ok("export", NAME, "--to", "safetensors", "-o", tmp_path / "basis.safetensors", "--root", root)
    exported = load_file(tmp_path / "basis.safetensors")
    assert exported.keys() == {"subspace"} and exported["subspace"].shape == (3, WIDTH)
    for place, row in enumerate(exported["subspace"], 1):
        np.testing.assert_array_equal(row, axes.load_axis(f"{NAME}/{place}", root=root).vector)
    ok("export", NAME, "--to", "npz", "--raw-norm", "-o", tmp_path / "basis.npz", "--root", root)
    scaled = np.load(tmp_path / "basis.npz")["subspace"]
    along = scores_of(root, "planted")
    lengths = np.sqrt((along["coordinates"][along["is_positive"]] ** 2).mean(axis=0))
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), lengths, rtol=1e-6)


def test_principal_angles_are_those_of_an_svd_and_random_ones_are_far(root):
    axes.fit("mine", "unseen", rank=2, root=root)
    other = "subspace/mine/0/unseen/rank-2"
    found = axes.angles(NAME, other, root=root).rows
    first, second = (
        np.stack([axes.load_axis(f"{name}/{place}", root=root).vector for place in places], axis=1)
        for name, places in ((NAME, (1, 2, 3)), (other, (1, 2)))
    )
    # Stored in float32, they are unit vectors at right angles only to 7 digits.
    orthonormal = [np.linalg.qr(np.float64(basis))[0] for basis in (first, second)]
    cosines = np.linalg.svd(orthonormal[0].T @ orthonormal[1])[1]
    angles = [row["angle"] for row in found]
    np.testing.assert_allclose(angles, np.degrees(np.arccos(cosines)), atol=1e-6)
    assert angles == sorted(angles) and angles[1] < 15
    assert all(row["random_lower"] > 25 for row in found)
    # A single axis of the subspace lies in it.
    (within,) = axes.angles(NAME, f"{NAME}/2", root=root).rows
    assert within["angle"] < 0.01


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("fit", "mine", "--prompts", "planted", "--rank", "21"),
            "20 is the highest rank .* not 21",
        ),
        (
            ("calibrate", NAME, "--prompts", "planted"),
            f"{NAME} is a subspace: .* {NAME}/1 to {NAME}/3",
        ),
        (("export", NAME, "--to", "gguf"), "exported alone.* --to safetensors or npz"),
        (("export", NAME, f"{NAME}/1", "--to", "npz"), "a subspace is exported alone"),
        (("export", NAME, "--all-layers", "--to", "npz"), "a subspace is exported alone"),
        (("angles", NAME, "subspace/mine/0/planted/rank-4"), r"no axis .*did you mean"),
    ],
)
def test_what_does_not_fit_a_subspace_is_refused(root, words, message):
    assert re.search(message, refused(*words, "--root", root))


@pytest.mark.parametrize("to", ["safetensors", "npz"])
def test_a_file_of_it_is_imported_as_the_same_subspace(root, tmp_path, to):
    file = tmp_path / f"basis.{to}"
    ok("export", NAME, "--to", to, "-o", file, "--root", root)
    lake = shutil.copytree(root, tmp_path / "lake")
    first, *others = printed("import", file, "--root", lake)
    assert first["name"] == "imported/mine/0/basis/1" and len(others) == 2
    ok("score", "imported/mine/0/basis", "--root", lake)
    fitted, imported = (
        scores_of(lake, "planted", name) for name in (NAME, "imported/mine/0/basis")
    )
    np.testing.assert_allclose(imported["combination"], fitted["combination"], rtol=1e-12)
    np.testing.assert_array_equal(imported["is_in_sample"], fitted["is_in_sample"])
    again = tmp_path / f"again.{to}"
    ok("export", "imported/mine/0/basis", "--to", to, "-o", again, "--root", lake)
    vectors = [(np.load if to == "npz" else load_file)(each)["subspace"] for each in (file, again)]
    np.testing.assert_array_equal(*vectors)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": [1.0]}, "card 0 is not of vector 1 of 3"),
        ({"weights": "none"}, "card 0 is not of a subspace"),
        ({"component": 2}, "card 0 is not of vector 1 of 3"),
        ({"offset": math.nan}, "card 0 is not of vector 1 of 3"),
    ],
)
def test_a_file_whose_cards_are_not_of_its_basis_is_refused(root, tmp_path, changed, message):
    ok("export", NAME, "--to", "npz", "-o", tmp_path / "basis.npz", "--root", root)
    arrays = dict(np.load(tmp_path / "basis.npz"))
    card = json.loads(str(arrays["card"]))
    card["axes"][0]["parameters"] |= changed
    np.savez(tmp_path / "changed.npz", **{**arrays, "card": np.array(json.dumps(card))})
    assert message in refused("import", tmp_path / "changed.npz", "--root", root)


def test_another_model_reaches_it_through_its_alignment(lake):
    axes.fit("gamma", "labelled", rank=2, root=lake)
    aligned = "select axis_id, layer from axes where kind = 'aligned' and fitted_model = 'alpha'"
    (layer,) = {row["layer"] for row in ask(lake, aligned)}
    name = f"subspace/gamma/{layer}/labelled/rank-2"
    result = axes.score(name, model="alpha", root=lake)
    (scored,) = result.rows
    assert {row["axis_id"] for row in ask(lake, result.sql)} == set(result.ids)
    assert len(result.ids) == 2 and scored["new_count"] == scored["stored_count"] > 0
    warehouse = Warehouse.open(lake)
    alignment = read_alignment(warehouse, scored["alignment_id"]).fit.alignment
    found = ask(
        lake,
        "select coordinates, vector from v_subspace_scores as scores "
        "inner join activations using (model, model_id, layer, prompt_id) "
        "where subspace_name = ? and model = 'alpha' and prompt_set = 'other'",
        [name],
    )
    x = np.array([row["vector"] for row in found], dtype=np.float64)
    basis = np.stack([axes.load_axis(f"{name}/{i}", root=lake).vector for i in (1, 2)], axis=1)
    reference = ask(
        lake,
        "select vector from activations inner join labels using (prompt_id) "
        "where model = 'gamma' and layer = ? and prompt_set = 'labelled' and not is_positive",
        [layer],
    )
    centre = np.mean([row["vector"] for row in reference], axis=0, dtype=np.float64)
    expected = (x @ alignment.weights + alignment.intercept - centre) @ np.float64(basis)
    np.testing.assert_allclose([row["coordinates"] for row in found], expected, atol=1e-6)
    assert "no angle: native/alpha" in refused(
        "angles", f"native/alpha/{layer}/labelled", name, "--root", lake
    )


def test_tokens_have_no_coordinates(lake):
    message = refused(
        *("fit", "alpha", "--prompts", "labelled", "--rank", 2),
        *("--pooling", "tokens_max", "--root", lake),
    )
    assert "token" in message
