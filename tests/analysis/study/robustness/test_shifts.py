"""Axes under a shift: what was planted is found, and scikit-learn gives the same numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import roc_auc_score

from axes.analysis.stats.splits import grouped_folds
from axes.analysis.study.robustness.shifts import agreement_with
from axes.analysis.study.run import run_study, study_result
from axes.warehouse.errors import PromptError
from axes.warehouse.storage.layout import init_root
from tests.rows import ask
from tests.worlds import define_study, write_activations, write_model, write_prompt_set

COUNT, WIDTH = 160, 12
LABELS, PAIRS = np.arange(COUNT) % 2 == 0, np.arange(COUNT) // 2
# The first 80 rows of one category; every other pair is long.
IS_ONE, IS_LONG = PAIRS < 40, PAIRS % 2 == 1


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, np.ndarray]]:
    """A concept that lies elsewhere in each category, and paraphrases that move every prompt."""
    root = tmp_path_factory.mktemp("shifts") / "lake"
    random = np.random.default_rng(0)
    x = {"benign": random.standard_normal((40, WIDTH)), "labelled": np.zeros((COUNT, WIDTH))}
    x["labelled"] = random.standard_normal((COUNT, WIDTH))
    x["labelled"][LABELS & IS_ONE, 0] += 3
    x["labelled"][LABELS & ~IS_ONE, 1] += 3
    x["reworded"] = x["labelled"] + 0.5 * random.standard_normal((COUNT, WIDTH))
    init_root(root)
    write_prompt_set(root, "benign", 40, None)
    for name, source in (("labelled", None), ("reworded", "paraphrase of labelled")):
        write_prompt_set(
            root,
            name,
            COUNT,
            LABELS,
            texts=[f"{name} {row:03d}" + " and more" * bool(IS_LONG[row]) for row in range(COUNT)],
            sources=[source] * COUNT,
            pair_id=[f"pair {pair:02d}" for pair in PAIRS],
            category=["one" if is_one else "two" for is_one in IS_ONE],
        )
    write_model(root, "alpha", WIDTH, 1)
    for name, vectors in x.items():
        write_activations(root, "alpha", 0, name, vectors)
    study_id = run_study(root, define_study(("alpha",), evaluate=("reworded",)))
    return root, study_id, {name: vectors.astype(np.float32) for name, vectors in x.items()}


def shifts(root: Path) -> dict[tuple[str, str], dict]:
    found = ask(root, "from v_source_transfer")
    return {(row["fitted_on"], row["judged_on"]): row for row in found}


def difference(x: np.ndarray, seen: np.ndarray) -> np.ndarray:
    return x[seen & LABELS].mean(0, float) - x[seen & ~LABELS].mean(0, float)


def test_a_category_that_shows_the_concept_elsewhere_is_told_by_leaving_it_out(study):
    root, _, x = study
    found = shifts(root)
    assert found.keys() == {
        ("no category one", "category one"),
        ("no category two", "category two"),
        ("no length long", "length long"),
        ("no length short", "length short"),
        ("labelled", "reworded"),
    }
    for name, is_part in (("category one", IS_ONE), ("length long", IS_LONG)):
        row = found[f"no {name}", name]
        along = x["labelled"] @ difference(x["labelled"], ~is_part)
        expected = roc_auc_score(LABELS[is_part], along[is_part])
        assert row["auroc"] == pytest.approx(expected, abs=1e-6)
        assert row["auroc_lower"] < expected < row["auroc_upper"]
        assert row["universal"] == row["auroc"] and row["leave_one_out"] is None
        assert row["word_pairs"] is not None
    (row,) = ask(root, "from v_study")
    assert row["universal_by_category"] < 0.65 < 0.85 < row["universal_cross_validated"]
    assert row["universal_by_length"] > 0.85 and row["universal_by_source"] is None
    assert not row["best_baseline"].endswith("shifted")
    assert row["universal_fold_min"] <= row["universal_cross_validated"]
    assert row["universal_cross_validated"] <= row["universal_fold_max"]


def test_paraphrases_are_judged_by_axes_that_saw_neither_wording(study):
    root, _, x = study
    folds = grouped_folds(LABELS, PAIRS)
    scores = {name: np.zeros(COUNT) for name in ("labelled", "reworded")}
    for fold in np.unique(folds):
        seen = folds != fold
        direction = difference(x["labelled"], seen)
        means = [x["labelled"][seen & kind].mean(0, float) for kind in (LABELS, ~LABELS)]
        for name, along in scores.items():
            along[~seen] = ((x[name] - np.mean(means, axis=0)) @ direction)[~seen]
        for along in scores.values():
            along[~seen] /= np.linalg.norm(direction)
    row = shifts(root)["labelled", "reworded"]
    area = roc_auc_score(LABELS, scores["reworded"])
    assert row["auroc"] == pytest.approx(area, abs=1e-6)
    assert row["gain"] == pytest.approx(area - roc_auc_score(LABELS, scores["labelled"]), abs=1e-6)
    within = {
        name: np.concatenate([along[kind] - along[kind].mean() for kind in (LABELS, ~LABELS)])
        for name, along in scores.items()
    }
    r = pearsonr(within["labelled"], within["reworded"]).statistic
    assert row["correlation"] == pytest.approx(r, abs=1e-6)
    # Planted: unit variance within a class, and paraphrases that add a quarter to it.
    assert row["correlation_lower"] < 1 / np.sqrt(1.25) < row["correlation_upper"]
    same = np.mean((scores["labelled"] > 0) == (scores["reworded"] > 0))
    assert row["same_side"] == pytest.approx(same, abs=1e-6)
    assert row["same_side_lower"] < same < row["same_side_upper"]


def test_paraphrases_are_no_set_of_their_own(study):
    """Directions were fitted on the same requests: AUROCs on them do not test a claim."""
    root, study_id, _ = study
    assert ask(root, "select distinct prompt_set from v_claims") == [{"prompt_set": "labelled"}]
    assert study_result(root, study_id)["models"]["alpha"]["auroc"].keys() == {"labelled"}
    assert not ask(root, "from v_claim_premises where premise = 'wording'"), "a single model"


def test_a_set_with_few_paraphrases_is_refused_and_copies_correlate_perfectly(study, tmp_path):
    root = shutil.copytree(study[0], tmp_path / "lake")
    texts, pairs = [f"few {row}" for row in range(4)], [f"pair {pair:02d}" for pair in PAIRS[:4]]
    sources = ["paraphrase of labelled"] * 4
    write_prompt_set(root, "few", 4, LABELS[:4], texts=texts, sources=sources, pair_id=pairs)
    write_activations(root, "alpha", 0, "few", study[2]["labelled"][:4])
    expected = r"^few has paraphrases of 2 prompts of a class of labelled, and 20 are needed: leave"
    with pytest.raises(PromptError, match=expected):
        run_study(root, define_study(("alpha",), evaluate=("few",)))
    scores = study[2]["labelled"][:, 0]
    found = agreement_with(scores, scores, LABELS, PAIRS)["correlation"]
    assert (found.estimate, found.lower, found.upper) == pytest.approx((1, 1, 1))
