"""Baselines without a model, from the prompts alone: compare every AUROC with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from axes.analysis.stats.auroc import Estimate, Groups, Labels, Scores
from axes.analysis.stats.splits import grouped_folds

# Of an AUROC's excess over one half: a baseline with this share explains the AUROC.
EXPLAINED_SHARE = 0.8


def bag_of_words_scores(
    texts: Sequence[str], labels: Labels, groups: Groups, *, seed: int = 0
) -> Scores:
    """Out-of-fold scores of a logistic regression on word counts, five folds of whole groups."""
    folds = grouped_folds(labels, groups, seed=seed)
    words = np.array(texts, dtype=object)
    scores = np.empty(len(words))
    for fold in np.unique(folds):
        model = _bag_of_words().fit(words[folds != fold], labels[folds != fold])
        scores[folds == fold] = model.decision_function(words[folds == fold])
    return scores


def bag_of_words_transfer(
    texts: Sequence[str], labels: Labels, other_texts: Sequence[str]
) -> Float[np.ndarray, " other_row"]:
    """Scores of other prompts by the same regression fitted on all rows of the first set."""
    return _bag_of_words().fit(list(texts), labels).decision_function(list(other_texts))


def bag_of_words_fits(
    texts: Sequence[str], labels: Labels, seen: Bool[np.ndarray, "fit row"]
) -> Float[np.ndarray, "fit row"]:
    """Scores of all prompts by one such regression for each row of `seen`, fitted on those rows."""
    words = np.array(texts, dtype=object)
    return np.stack(
        [_bag_of_words().fit(words[rows], labels[rows]).decision_function(words) for rows in seen]
    )


def prompt_lengths(texts: Sequence[str]) -> Scores:
    """Length of each prompt in characters."""
    return np.array([len(text) for text in texts], dtype=np.float64)


def explains(baseline: Estimate, area: Estimate) -> bool:
    """Whether a baseline that needs no model explains an AUROC.

    It does where it is itself above one half beyond its interval, and either within the
    AUROC's interval or above it, or makes up at least `EXPLAINED_SHARE` of its excess over one
    half. `v_study_warnings` is the same rule in SQL.

    >>> explains(Estimate(0.9, 0.87, 0.93), Estimate(0.92, 0.89, 0.95))
    True
    >>> explains(Estimate(0.55, 0.49, 0.61), Estimate(0.92, 0.89, 0.95))
    False
    """
    if baseline.lower is None or baseline.lower <= 0.5:
        return False
    lower = area.estimate if area.lower is None else area.lower
    enough = 0.5 + EXPLAINED_SHARE * (area.estimate - 0.5)
    return baseline.estimate >= min(lower, enough)


def _bag_of_words() -> Pipeline:
    return make_pipeline(CountVectorizer(), LogisticRegression(C=1.0, max_iter=2000))
