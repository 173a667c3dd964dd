"""What prompts alone give away, with no model: the figures to hold every AUROC against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from analysis.directions import difference_in_means
from analysis.splits import grouped_folds


def bag_of_words_scores(
    texts: Sequence[str],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    seed: int = 0,
) -> Float[np.ndarray, " row"]:
    """Out-of-fold scores of a logistic regression on word counts, five folds of whole groups."""
    folds = grouped_folds(labels, groups, seed=seed)
    words = np.array(texts, dtype=object)
    scores = np.empty(len(words))
    for fold in np.unique(folds):
        model = _bag_of_words().fit(words[folds != fold], labels[folds != fold])
        scores[folds == fold] = model.decision_function(words[folds == fold])
    return scores


def bag_of_words_transfer(
    texts: Sequence[str], labels: Bool[np.ndarray, " row"], other_texts: Sequence[str]
) -> Float[np.ndarray, " other_row"]:
    """Scores of other prompts by the same regression fitted on all rows of the first set."""
    return _bag_of_words().fit(list(texts), labels).decision_function(list(other_texts))


def cross_validated_scores(
    x: Float[np.ndarray, "row d_model"],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    seed: int = 0,
) -> Float[np.ndarray, " row"]:
    """Out-of-fold projections on difference-in-means directions, five folds of whole groups.

    Each fold is projected about the midpoint of its training classes, so that folds compare.
    """
    folds = grouped_folds(labels, groups, seed=seed)
    scores = np.empty(len(x))
    for fold in np.unique(folds):
        seen, seen_labels = x[folds != fold], labels[folds != fold]
        direction = difference_in_means(seen, seen_labels).vector
        projected = seen @ direction
        middle = (projected[seen_labels].mean() + projected[~seen_labels].mean()) / 2
        scores[folds == fold] = x[folds == fold] @ direction - middle
    return scores


def prompt_lengths(texts: Sequence[str]) -> Float[np.ndarray, " row"]:
    """Length of each prompt in characters."""
    return np.array([len(text) for text in texts], dtype=np.float64)


def _bag_of_words() -> Pipeline:
    return make_pipeline(CountVectorizer(), LogisticRegression(C=1.0, max_iter=2000))
