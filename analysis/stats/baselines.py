"""What the surface of prompts tells, without a model: compare every AUROC with the best of it.

Each baseline is a ridge regression of the labels on features that never saw them: counts of words,
of words and word pairs, tf-idf, the form of a text (length, capitals, punctuation and so on), and,
of a model, how long its activations are. `combined` has them all. Rows are scored by fits on other
rows; a refit without some rows follows from one decomposition of all, so that a baseline can be
refitted as often as an axis: `y - (1 - H)^-1 (y - H y)` on the rows left out, `H` the hat matrix
(Hastie, Tibshirani and Friedman 2009, 7.10).
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from axes.analysis.stats.auroc import Groups, Labels, Scores
from axes.analysis.stats.splits import grouped_folds, out_of_fold

if TYPE_CHECKING:
    from scipy import sparse

Kernel = Float[np.ndarray, "row row"]

COMBINED = "combined"
# Of the baselines of prompts alone, on the sets tried.
STRONGEST = "word_pairs"
# One row's features have a length of about one in every kernel.
_PENALTY = 1.0


def _words(texts: Sequence[str], longest: int) -> Kernel:
    # Imported here: scikit-learn takes 0.5 s, and a study whose rows are stored has no use for it.
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    counts = CountVectorizer(ngram_range=(1, longest), token_pattern=r"(?u)\S+").fit_transform(
        texts
    )
    return _products(normalize(counts))


def _tf_idf(texts: Sequence[str]) -> Kernel:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return _products(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts))


def _lengths(texts: Sequence[str]) -> Kernel:
    return number_kernel(np.log1p([[len(text)] for text in texts]))


def _form(texts: Sequence[str]) -> Kernel:
    return number_kernel(np.array([_form_of(text) for text in texts]))


def _form_of(text: str) -> list[float]:
    """Length, words, their mean length, and the shares of capitals, punctuation and digits."""
    count, words = max(len(text), 1), text.split()
    return [
        np.log1p(len(text)),
        np.log1p(len(words)),
        len(text) / max(len(words), 1),
        sum(map(str.isupper, text)) / count,
        sum(character in string.punctuation for character in text) / count,
        sum(map(str.isdigit, text)) / count,
        float(text[:1].isupper()),
        float(text.rstrip().endswith("?")),
        float(text.rstrip().endswith(".")),
    ]


# Of prompts alone: the features of each baseline, as products of all rows with all.
TEXT_BASELINES: Mapping[str, Callable[[Sequence[str]], Kernel]] = {
    "prompt_length": _lengths,
    "surface_form": _form,
    "bag_of_words": lambda texts: _words(texts, 1),
    "word_pairs": lambda texts: _words(texts, 2),
    "tf_idf": _tf_idf,
}


def text_kernels(texts: Sequence[str]) -> dict[str, Kernel]:
    """Baseline -> products of the features of all prompts with those of all."""
    return {name: kernel(texts) for name, kernel in TEXT_BASELINES.items()}


def model_kernels(
    texts: Mapping[str, Kernel], norms: Float[np.ndarray, " row"]
) -> dict[str, Kernel]:
    """The baselines that differ from model to model: `norms` are the lengths of its activations."""
    kernel = number_kernel(norms[:, None])
    return {
        "activation_norm": kernel,
        COMBINED: texts["tf_idf"] + texts["surface_form"] + kernel,
    }


def text_scores(
    texts: Sequence[str],
    labels: Labels,
    groups: Groups,
    *,
    baseline: str = STRONGEST,
    seed: int = 0,
) -> Scores:
    """Scores of prompts by one baseline, out of fold, five folds of whole groups."""
    fit = baseline_fitter([TEXT_BASELINES[baseline](texts)], labels)
    return out_of_fold(fit, grouped_folds(labels, groups, seed=seed))[0]


def number_kernel(values: Float[np.ndarray, "row feature"]) -> Kernel:
    """Products of standardised features."""
    spread = values.std(axis=0)
    scaled = np.divide(values - values.mean(axis=0), spread, where=spread > 0, out=0 * values)
    return scaled @ scaled.T / values.shape[1]


def baseline_fitter(
    kernels: Sequence[Kernel], labels: Bool[np.ndarray, "*target row"]
) -> Callable[[Labels], Float[np.ndarray, "baseline *target row"]]:
    """A function that fits every baseline on a mask of rows, and scores those that it left out.

    The other rows score 0. Labels of rows left out make no difference.
    """
    targets = np.where(np.atleast_2d(labels), 1.0, -1.0).T
    # The constant feature is the intercept; its penalty moves all scores of a fit alike.
    products = np.array([kernel + 1.0 for kernel in kernels])
    hats = np.array(
        [np.linalg.solve(each + _PENALTY * np.eye(len(each)), each) for each in products]
    )
    residuals = targets - hats @ targets

    def fit(seen: Labels) -> Float[np.ndarray, "baseline *target row"]:
        rows, out = np.flatnonzero(seen), np.flatnonzero(~seen)
        scores = np.zeros((len(products), *targets.shape))
        # Whichever system is the smaller: of the rows fitted on, or of those left out.
        if len(rows) < len(out):
            inner = products[:, rows[:, None], rows] + _PENALTY * np.eye(len(rows))
            scores[:, out] = products[:, out[:, None], rows] @ np.linalg.solve(inner, targets[rows])
        else:
            inner = np.eye(len(out)) - hats[:, out[:, None], out]
            scores[:, out] = targets[out] - np.linalg.solve(inner, residuals[:, out])
        # Rows of equal features tie; what is left of `targets` in the last digits must not tell.
        return scores.round(9).swapaxes(1, 2).reshape(-1, *labels.shape)

    return fit


def _products(features: sparse.csr_matrix) -> Kernel:
    return np.asarray((features @ features.T).todense())
