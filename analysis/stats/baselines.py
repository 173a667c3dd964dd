"""Baselines without a model, from the prompts alone: compare every AUROC with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from axes.analysis.stats.auroc import Estimate, Groups, Labels, Scores
from axes.analysis.stats.splits import grouped_folds, out_of_fold

# Of an AUROC's excess over one half: a baseline with this share explains the AUROC.
EXPLAINED_SHARE = 0.8


def bag_of_words_scores(
    texts: Sequence[str], labels: Labels, groups: Groups, *, seed: int = 0
) -> Scores:
    """Out-of-fold scores of a bag of words, five folds of whole groups."""
    words = np.array(texts, dtype=object)
    return out_of_fold(
        lambda seen: bag_of_words_transfer(words[seen], labels[seen], words),
        grouped_folds(labels, groups, seed=seed),
    )


def bag_of_words_transfer(
    texts: Iterable[str], labels: Labels, other_texts: Iterable[str]
) -> Float[np.ndarray, " other_row"]:
    """Scores of other prompts by a logistic regression on the word counts of the first ones."""
    model = make_pipeline(CountVectorizer(), LogisticRegression(C=1.0, max_iter=2000))
    return model.fit(list(texts), labels).decision_function(list(other_texts))


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
