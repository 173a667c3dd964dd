from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler, normalize

from axes.analysis.stats.auroc import auroc
from axes.analysis.stats.baselines import (
    TEXT_BASELINES,
    baseline_fitter,
    model_kernels,
    number_kernel,
    text_kernels,
    text_scores,
)

PAIRS = np.repeat(np.arange(60), 2)
LABELS = np.tile([True, False], 60)
# Of the positive rows: what gives the label away, and which baselines must see it.
GIVEN_AWAY = {
    "words": (("steal {0} it", "buy {0} it"), {"bag_of_words", "word_pairs", "tf_idf"}),
    "order": (("red {0} blue end", "blue {0} red end"), {"word_pairs"}),
    "capitals": (("IT IS {0}", "it is {0}"), {"surface_form"}),
    "length": (("it is {0} " + "so " * 9, "it is {0}"), {"prompt_length", "surface_form"}),
}


@pytest.mark.parametrize("kind", GIVEN_AWAY)
def test_what_gives_the_label_away_is_found_on_rows_not_seen(kind: str) -> None:
    templates, sees = GIVEN_AWAY[kind]
    # The word of a pair is next to nothing that other pairs share: only `order` has word pairs.
    join = "" if kind == "order" else "topic{0}"
    texts = [
        template.format(join.format(pair)).replace("  ", " ")
        for pair in range(60)
        for template in templates
    ]
    areas = {
        name: auroc(text_scores(texts, LABELS, PAIRS, baseline=name), LABELS)
        for name in TEXT_BASELINES
    }
    assert {name for name, area in areas.items() if area > 0.95} >= sees


def test_the_form_of_a_text_is_its_length_words_characters_and_ends() -> None:
    texts = ["Is IT 3, or (4)?", "so it is.", "NO", "3 1 4 1 5!", ""]
    features = [
        [
            np.log(len(text) + 1),
            np.log(len(re.findall(r"\S+", text)) + 1),
            len(text) / max(len(re.findall(r"\S+", text)), 1),
            *(
                len(re.findall(kind, text)) / max(len(text), 1)
                for kind in ("[A-Z]", r"[^\w\s]", r"\d")
            ),
            *(bool(re.search(place, text)) for place in ("^[A-Z]", r"\?$", r"\.$")),
        ]
        for text in texts
    ]
    scaled = StandardScaler().fit_transform(features)
    found = TEXT_BASELINES["surface_form"](texts)
    np.testing.assert_allclose(found, scaled @ scaled.T / 9, rtol=1e-6)


def test_tf_idf_is_of_words_and_pairs_with_the_logarithm_of_their_counts() -> None:
    texts = ["to be or not to be", "to do is to be", "do be do be do"]
    counts = []
    for text in texts:
        words = text.split()
        counts.append(Counter(words + [" ".join(pair) for pair in pairwise(words)]))
    terms = sorted(set().union(*counts))
    times = np.array([[count[term] for term in terms] for count in counts], dtype=float)
    rarity = np.log((1 + len(texts)) / (1 + (times > 0).sum(axis=0))) + 1
    weights = np.where(times > 0, 1 + np.log(np.maximum(times, 1)), 0) * rarity
    expected = normalize(weights) @ normalize(weights).T
    np.testing.assert_allclose(TEXT_BASELINES["tf_idf"](texts), expected, rtol=1e-6)


def test_what_only_names_the_pair_gives_nothing_away() -> None:
    """Were pairs split between folds, the twin's label would be learnt the wrong way round."""
    texts = [f"topic{row // 2} filler" for row in range(120)]
    for name in TEXT_BASELINES:
        scores = text_scores(texts, LABELS, PAIRS, baseline=name)
        assert auroc(scores, LABELS) == pytest.approx(0.5)


@pytest.mark.parametrize("seen_count", [40, 100])
def test_a_refit_is_the_ridge_regression_of_the_rows_seen(seen_count: int) -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((120, 5))
    seen = random.permutation(120) < seen_count
    several = np.stack([LABELS, random.random(120) < 0.5])
    (found,) = baseline_fitter([features @ features.T], several)(seen)
    with_constant = np.hstack([features, np.ones((120, 1))])
    ridge = Ridge(alpha=1.0, fit_intercept=False)
    for scores, labels in zip(found, several, strict=True):
        ridge.fit(with_constant[seen], np.where(labels[seen], 1.0, -1.0))
        np.testing.assert_allclose(scores[~seen], ridge.predict(with_constant[~seen]), atol=1e-8)
        assert not scores[seen].any()


def test_how_long_activations_are_is_a_baseline_of_its_own_and_of_all_together() -> None:
    texts = text_kernels([f"topic{row // 2} filler" for row in range(120)])
    random = np.random.default_rng(1)
    kernels = model_kernels(texts, random.standard_normal(120) + 3 * LABELS)
    assert list(kernels) == ["activation_norm", "combined"]
    seen = PAIRS < 40
    for scores in baseline_fitter(list(kernels.values()), LABELS)(seen):
        assert auroc(scores[~seen], LABELS[~seen]) > 0.9
    assert not number_kernel(np.ones((4, 1))).any(), "a number that never differs tells nothing"
