from __future__ import annotations

import numpy as np

from axes.analysis.methods.layer_selection import select_layers
from axes.analysis.methods.nulls import cross_validated_scores
from axes.analysis.stats.auroc import auroc

GROUPS = np.repeat(np.arange(50), 2)
LABELS = np.tile([True, False], 50)


def layers(planted: int | None, seed: int, count: int = 10) -> list[np.ndarray]:
    """Layers of very different scale; the signal is in one of them or in none."""
    random = np.random.default_rng(seed)
    made = [random.standard_normal((100, 20)) for _ in range(count)]
    if planted is not None:
        made[planted][:, 0] += 3 * LABELS
    return [x * 10.0**index for index, x in enumerate(made)]


def test_the_layer_with_the_signal_is_chosen_in_every_fold():
    found = select_layers(layers(4, seed=0), LABELS, GROUPS)
    assert set(found.chosen_layers) == {4}
    assert auroc(found.nested, LABELS) > 0.9
    np.testing.assert_array_equal(found.nested, found.cross_validated[4])


def test_where_nothing_is_planted_nested_is_at_chance_and_the_best_layer_is_not():
    nested, best = [], []
    for seed in range(12):
        found = select_layers(layers(None, seed), LABELS, GROUPS)
        nested.append(auroc(found.nested, LABELS))
        best.append(max(auroc(scores, LABELS) for scores in found.cross_validated))
        assert (found.in_sample > 0.6).all()
    assert 0.44 < np.mean(nested) < 0.56
    assert np.mean(best) > 0.57


def test_scores_out_of_fold_rank_as_those_of_one_layer_alone():
    x = layers(4, seed=1)[4]
    found = select_layers([x], LABELS, GROUPS)
    alone = cross_validated_scores(x, LABELS, GROUPS)
    assert np.corrcoef(found.cross_validated[0], alone)[0, 1] > 0.99
    np.testing.assert_array_equal(found.nested, found.cross_validated[0])
