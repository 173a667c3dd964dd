"""Each control finds what it is for, and leaves a true drift alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from axes.analysis.drift.drift_controls import (
    lasting,
    matched_length,
    matched_prompt,
    other_text,
    random_axes,
    shuffled_tokens,
)
from axes.analysis.drift.drift_statistics import centred_steps
from tests.drifting import STEPS, difference, draw, plant


def saturating(steps):
    """Both classes rise at first and then stay: who ends early has the steeper line."""
    return 6 * (1 - np.exp(-steps / 3))


def test_every_control_lets_a_true_drift_stand():
    found = plant(slope=0.2, lengths=((10, STEPS), (10, STEPS)))
    for control in (
        matched_prompt(found, draw(found)),
        matched_length(found, draw(found)),
        lasting(found, 12, draw(found)),
        other_text(found, draw(found)),
    ):
        assert control.estimate.lower < 0.2 < control.estimate.upper, control.name
        assert control.estimate.lower > 0, control.name
    assert shuffled_tokens(found).estimate.p_value < 0.02


def test_drift_that_is_length_is_flagged_by_the_controls_of_length():
    """The classes' slopes differ by length alone, in most worlds beyond chance."""
    worlds = [
        plant(common=saturating, lengths=((5, 12), (8, STEPS)), pairs=60, seed=seed)
        for seed in range(40)
    ]
    assert sum(difference(found).lower > 0 for found in worlds) >= 36
    for control in (matched_length, lambda found, counts: lasting(found, 8, counts)):
        controls = [control(found, draw(found)) for found in worlds]
        assert sum(each.estimate.p_value < 0.05 for each in controls) <= 6
        assert sum(each.change.upper < 0 for each in controls) >= 36


def test_drift_that_comes_from_where_prompts_start_is_flagged_by_matching():
    """Completions fall back from a high start: a class that starts lower seems to rise."""
    found = plant(offset=-1.0, pairs=80, noise=0.3)
    towards_zero = found.start[:, None] * (0.9 ** np.arange(STEPS) - 1)
    found.values[:] += towards_zero
    assert difference(found).lower > 0
    matched = matched_prompt(found, draw(found))
    assert matched.imbalance[0] < -0.5 and abs(matched.imbalance[1]) < 0.1
    assert matched.estimate.p_value > 0.05


def test_without_prompt_projections_the_matched_token_is_not_in_the_slope():
    found = plant(offset=2.0, pairs=80, noise=1.5)
    unknown = type(found)(**{**vars(found), "start": np.full(len(found.values), np.nan)})
    assert matched_prompt(unknown, draw(unknown)).estimate.p_value > 0.05
    assert not np.isnan(found.values[:, 0]).any(), "the trajectories are left as they are"


def test_shuffled_steps_have_no_slope_and_keep_each_completions_values():
    null = shuffled_tokens(plant(slope=0.3, lengths=((4, STEPS), (9, STEPS))))
    assert null.estimate.lower < 0 < null.estimate.upper
    assert abs(null.estimate.estimate) < 0.02


def test_too_few_to_match_gives_no_control():
    apart = plant(offset=50.0)
    assert matched_prompt(apart, draw(apart)) is None
    assert lasting(apart, STEPS + 1, draw(apart)) is None
    single = plant(lengths=((1, 1), (1, 9)))
    assert matched_length(single, draw(single)) is None
    few = plant(pairs=9)
    assert matched_length(few, draw(few)) is None


def test_a_control_on_few_rows_changes_nothing_that_is_shown():
    """Of a true drift a third of the completions last: that the interval holds 0 is power."""
    worlds = [
        plant(slope=0.02, pairs=60, lengths=((4, STEPS),) * 2, seed=seed) for seed in range(40)
    ]
    controls = [lasting(found, 16, draw(found)) for found in worlds]
    found = [control for control in controls if control is not None]
    assert len(found) > 10 and sum(each.estimate.lower < 0 for each in found) > len(found) / 4
    assert sum(each.change.upper < 0 for each in found) <= 0.1 * len(found)


def test_several_samples_of_a_prompt_are_one_prompt():
    """Six completions of each prompt, whose slope is the prompt's: nothing is shown."""
    rejected, random = [], np.random.default_rng(0)
    for seed in range(60):
        found = plant(pairs=120, seed=seed)
        own = np.repeat(0.3 * random.standard_normal(40), 6)
        # A prompt has one label, and six samples.
        shown = replace(
            found,
            is_positive=np.arange(240) % 12 < 6,
            groups=np.arange(240) // 6,
            values=found.values + np.outer(own, np.arange(STEPS)),
        )
        rejected.append(matched_prompt(shown, draw(shown)).estimate.p_value < 0.05)
    assert np.mean(rejected) <= 0.12


def on_random_axes(found, vectors, axis, seed=0):
    centred = centred_steps(found.values)
    rises = np.einsum("rs,rsd->rd", centred, np.nan_to_num(vectors))
    spread = np.square(centred).sum(axis=1)
    counts = draw(found, seed=seed)
    return random_axes(rises, spread, axis, found.is_positive, counts, seed=seed).estimate


def test_random_axes_give_what_projecting_on_them_gives():
    """In one dimension every direction of a norm is the axis or its opposite."""
    found = plant(slope=0.2, lengths=((4, STEPS), (9, STEPS)))
    null = on_random_axes(found, found.values[:, :, None], np.ones(1))
    own = difference(found).estimate
    assert null.upper == pytest.approx(own) and null.lower == pytest.approx(-own)
    assert null.p_value == 1.0


@pytest.mark.filterwarnings("error")
def test_tokens_that_never_move_stand_out_from_nothing():
    found = plant(lengths=((4, STEPS), (9, STEPS)))
    still = np.zeros((*found.values.shape, 4))
    assert on_random_axes(found, still, np.eye(4)[0]).p_value == 1.0


def test_resamples_that_are_all_alike_are_no_evidence():
    """As of one prompt in each class: what differs between them is rounding."""
    random = np.random.default_rng(0)
    rises, spread, alike = (
        random.random((9, 4)),
        random.random(9),
        np.ones((333, 9), dtype=np.int64),
    )
    for axis in np.eye(4):
        null = random_axes(rises, spread, axis, np.arange(9) < 4, alike)
        assert null.estimate.p_value == 1.0


def test_a_planted_axis_stands_out_from_random_ones_and_an_unplanted_one_does_not():
    """Not even where tokens vary much more along the axis than along others."""
    found = plant()
    steps, axis = np.arange(STEPS), 3.0 * np.eye(64)[0]
    p_values = []
    for seed in range(60):
        vectors = np.random.default_rng(100 + seed).standard_normal((*found.values.shape, 64))
        wide = vectors * np.where(np.arange(64) == 0, 10.0, 1.0)
        p_values.append(on_random_axes(found, wide, axis, seed).p_value)
    assert sum(p < 0.05 for p in p_values) <= 9
    vectors[found.is_positive] += (0.5 * steps)[:, None] * np.eye(64)[0]
    planted = on_random_axes(found, vectors, axis)
    assert planted.p_value < 0.02
    assert planted.upper < 0.5 * 3.0
