"""A whole layer sweep of three models, against the obvious script with scikit-learn.

At every layer: a direction in each model, an alignment into the reference with lambda chosen among
13, the universal axis, the AUROC of both with 1,000 bootstrap resamples, and 200 shufflings of the
labels with the direction refitted. The script takes `RidgeCV`, `roc_auc_score` and numpy, in loops;
both choose lambda without held-out rows, and are given the same resamples and shufflings. The
script is timed on `TIMED_LAYERS` layers, all of the same shape, and its time scaled to all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score

from axes.analysis.methods.directions import difference_in_means
from axes.analysis.methods.maps.ridge import RidgePath
from axes.analysis.methods.nulls import fitted_scores
from axes.analysis.methods.universal import universal_axis
from axes.analysis.stats.auroc import auroc, aurocs
from axes.analysis.stats.bootstrap import draw_counts, resampled_auroc
from benchmarks.run import Figure, alternate, median_figure, ratios, seconds

WIDTHS, LAYERS, TIMED_LAYERS = (576, 640, 896), 24, 2
ALIGNMENT_ROWS, LABELLED_ROWS = 3_000, 600
LAMBDAS = tuple(float(value) for value in np.logspace(-2, 10, 13))
RESAMPLES, SHUFFLES, ROUNDS = 1_000, 200, 3
FASTER, APART = 40.0, 1e-6


@dataclass(frozen=True)
class _Rows:
    """One layer of all models, the reference last; what is drawn is the same for both sides."""

    benign: list[np.ndarray]
    labelled: list[np.ndarray]
    labels: np.ndarray
    counts: np.ndarray
    shuffled: np.ndarray


def measure(
    widths: tuple[int, ...] = WIDTHS,
    layers: int = LAYERS,
    timed_layers: int = TIMED_LAYERS,
    alignment_rows: int = ALIGNMENT_ROWS,
    labelled_rows: int = LABELLED_ROWS,
    rounds: int = ROUNDS,
) -> Iterator[Figure]:
    """Times as fast as the script, and the largest difference of any of its figures."""
    planted = [
        _planted(widths, alignment_rows, labelled_rows, seed=layer) for layer in range(layers)
    ]
    found: dict[str, list[np.ndarray]] = {}

    def ours() -> None:
        found["ours"] = [_ours(rows) for rows in planted]

    def script() -> None:
        found["script"] = [_script(rows) for rows in planted[:timed_layers]]

    ours_seconds, script_seconds = alternate(
        rounds, lambda: seconds(ours), lambda: seconds(script) * layers / timed_layers
    )
    conditions = (
        f"{layers} layers (the script's time from {timed_layers}), widths "
        f"{', '.join(map(str, widths))}, {alignment_rows:,} alignment rows, "
        f"{labelled_rows} labelled"
    )
    faster = ratios(script_seconds, ours_seconds)
    yield median_figure("layer sweep: script / ours", faster, FASTER, "higher", conditions)
    apart = max(
        float(np.abs(one - other).max())
        for one, other in zip(found["ours"], found["script"], strict=False)
    )
    yield Figure("layer sweep: figures apart", apart, APART, "lower")


def _ours(rows: _Rows) -> np.ndarray:
    """AUROCs of one layer with their resamples and nulls, model by model."""
    labels = rows.labels
    natives = [difference_in_means(x, labels).vector for x in rows.labelled]
    maps = []
    for x in rows.benign[:-1]:
        path = RidgePath.of_rows(x, rows.benign[-1])
        best = int(np.argmin(path.cross_validated_errors(LAMBDAS)))
        maps.append(path.solve(LAMBDAS[best]))
    aligned = [each.map(native) for each, native in zip(maps, natives, strict=False)]
    aligned.append(natives[-1])
    axis = universal_axis(np.stack([each / np.linalg.norm(each) for each in aligned])).vector
    pulled = [each.pull_back(axis)[0] for each in maps] + [axis]
    figures = []
    for x, native, shared in zip(rows.labelled, natives, pulled, strict=True):
        for vector in (native, shared):
            scores = x @ vector
            figures += [[auroc(scores, labels)], resampled_auroc(scores, labels, rows.counts)]
        null = fitted_scores(x, rows.shuffled, np.ones_like(rows.shuffled))
        figures.append(aurocs(null, rows.shuffled))
    return np.concatenate(figures)


def _script(rows: _Rows) -> np.ndarray:
    """The same by the shortest way to write it down."""
    labels = rows.labels
    drawn = [np.repeat(np.arange(len(labels)), count) for count in rows.counts]
    natives = [x[labels].mean(axis=0) - x[~labels].mean(axis=0) for x in rows.labelled]
    maps = [RidgeCV(LAMBDAS).fit(x, rows.benign[-1]).coef_.T for x in rows.benign[:-1]]
    aligned = [native @ each for native, each in zip(natives, maps, strict=False)]
    aligned.append(natives[-1])
    stacked = np.stack([each / np.linalg.norm(each) for each in aligned])
    axis = np.linalg.svd(stacked, full_matrices=False)[2][0]
    axis *= np.sign((stacked @ axis).mean())
    pulled = [each @ axis for each in maps] + [axis]
    figures = []
    for x, native, shared in zip(rows.labelled, natives, pulled, strict=True):
        for vector in (native, shared):
            scores = x @ vector
            figures.append(roc_auc_score(labels, scores))
            figures += [roc_auc_score(labels[row], scores[row]) for row in drawn]
        for shuffled in rows.shuffled:
            direction = x[shuffled].mean(axis=0) - x[~shuffled].mean(axis=0)
            figures.append(roc_auc_score(shuffled, x @ direction))
    return np.array(figures)


def _planted(
    widths: tuple[int, ...], alignment_rows: int, labelled_rows: int, *, seed: int
) -> _Rows:
    """Latent prompts that every model shows in its own way, with noise; labels move one latent."""
    random = np.random.default_rng(seed)
    latent, labels = min(widths) // 4, np.arange(labelled_rows) % 2 == 0
    benign = random.standard_normal((alignment_rows, latent))
    labelled = random.standard_normal((labelled_rows, latent))
    labelled[:, 0] += labels
    shown = [random.standard_normal((latent, width)) for width in widths]

    def show(rows: np.ndarray) -> list[np.ndarray]:
        return [rows @ each + random.standard_normal((len(rows), each.shape[1])) for each in shown]

    return _Rows(
        benign=show(benign),
        labelled=show(labelled),
        labels=labels,
        counts=draw_counts(labelled_rows, strata=labels, count=RESAMPLES, seed=seed),
        shuffled=np.stack([random.permutation(labels) for _ in range(SHUFFLES)]),
    )
