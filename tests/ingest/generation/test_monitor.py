"""What a monitor reads while a model speaks is what traces store, and reading changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from axes.ingest.forward.batching import pad
from axes.ingest.forward.templates import pad_id
from axes.ingest.generation.generate import generate
from axes.ingest.generation.monitor import WINDOW, Monitor, Reading
from axes.ingest.generation.token_statistics import Kept
from axes.ingest.models.load import LoadedModel
from axes.ingest.models.registry import resolve
from axes.ingest.requests import Sampling
from axes.warehouse.axes import AxisReadout
from axes.warehouse.errors import AxisError
from tests.ingest.conftest import loaded_on_cpu

TEXTS = ["hello there, you", "hi", "what is a duck"]
STEPS, LAYER = 9, 2


@pytest.fixture(scope="module")
def loaded(saved_llama: Path) -> LoadedModel:
    return loaded_on_cpu(resolve(str(saved_llama)))


@pytest.fixture(scope="module")
def probe(loaded: LoadedModel) -> AxisReadout:
    vector = np.random.default_rng(0).standard_normal(loaded.d_model)
    return AxisReadout("axis", "axis", loaded.spec.name, "id", LAYER, None, vector, 0.7)


def encoded(loaded: LoadedModel) -> dict[str, list[int]]:
    return {text: loaded.tokenizer(text).input_ids for text in TEXTS}


def spoken(loaded: LoadedModel, monitor: Monitor | None = None, **options: Any) -> torch.Tensor:
    """What plain `generate` returns for the texts, padded on the left."""
    tokens, mask = pad(list(encoded(loaded).values()), pad_id(loaded.tokenizer), side="left")
    model: Any = loaded.model
    arguments = {"max_new_tokens": STEPS, "do_sample": False, **options}
    arguments["attention_mask"] = mask.long()
    if monitor is None:
        return model.generate(tokens, **arguments)
    with monitor.watching():
        return model.generate(tokens, stopping_criteria=[monitor], **arguments)


def of_row(monitor: Monitor, row: int) -> list[Reading]:
    return [reading for reading in monitor.readings if reading.row == row]


def test_projections_are_those_of_traces_in_a_padded_batch(loaded, probe):
    monitor = Monitor.of(loaded, probe)
    spoken(loaded, monitor)
    traces = generate(
        loaded, encoded(loaded), Kept([LAYER], [probe]), Sampling(max_new_tokens=STEPS)
    )
    for row, trace in enumerate(traces):
        read = of_row(monitor, row)
        assert [reading.step for reading in read] == list(range(len(read)))
        assert len(read) in (len(trace.token_ids) - 1, len(trace.token_ids))
        assert [reading.token_id for reading in read] == trace.token_ids[: len(read)]
        expected = trace.projections[probe.key][: len(read)]
        np.testing.assert_allclose([r.projection for r in read], expected, atol=1e-4)
        np.testing.assert_allclose(
            expected, trace.vectors[LAYER][: len(read)] @ probe.vector + probe.offset, atol=1e-4
        )


def test_on_an_axis_of_tokens_the_score_is_that_of_all_tokens_so_far(loaded, probe):
    monitor = Monitor.of(loaded, replace(probe, pooling="tokens_rolling_max@3"))
    spoken(loaded, monitor)
    readings = [reading for reading in of_row(monitor, 0) if reading.projection is not None]
    along = [reading.projection for reading in readings]
    means = [np.mean(along[max(at - 2, 0) : at + 1]) for at in range(len(along))]
    expected = [*means[:3], *np.maximum.accumulate(means[2:])[1:]]
    np.testing.assert_allclose([reading.smoothed for reading in readings], expected)
    with pytest.raises(AxisError, match="weights tokens by a second axis"):
        Monitor.of(loaded, replace(probe, pooling="tokens_attention@abc"))


def test_watching_changes_no_token_and_leaves_no_hook(loaded, probe):
    plain = spoken(loaded)
    assert torch.equal(spoken(loaded, Monitor.of(loaded, probe)), plain)
    torch.manual_seed(0)
    drawn = spoken(loaded, do_sample=True)
    torch.manual_seed(0)
    assert torch.equal(spoken(loaded, Monitor.of(loaded, probe), do_sample=True), drawn)
    assert not loaded.blocks[LAYER]._forward_hooks


def test_smoothed_is_the_mean_of_the_last_few_and_the_probability_is_of_it(loaded, probe):
    monitor = Monitor.of(loaded, probe, probability=lambda scores: 1 / (1 + np.exp(-scores)))
    spoken(loaded, monitor)
    read = of_row(monitor, 1)
    values = [reading.projection for reading in read]
    for index, reading in enumerate(read):
        expected = np.mean(values[max(index + 1 - WINDOW, 0) : index + 1])
        assert reading.smoothed == pytest.approx(expected)
        assert reading.probability == pytest.approx(1 / (1 + np.exp(-expected)))


def test_a_row_stops_one_token_after_the_bound_is_passed_and_the_others_go_on(loaded, probe):
    plain = spoken(loaded)
    watched = Monitor.of(loaded, probe)
    spoken(loaded, watched)
    highest = max(watched.readings, key=lambda reading: reading.smoothed)
    monitor = Monitor.of(
        loaded,
        probe,
        probability=lambda scores: (scores >= highest.smoothed - 1e-9).astype(float),
        stop_above=0.5,
    )
    sequences = spoken(loaded, monitor)
    width = plain.shape[1] - STEPS
    last = of_row(monitor, highest.row)[-1]
    assert last.step == highest.step and last.probability == 1.0
    kept = sequences[highest.row, width : width + highest.step + 2]
    assert torch.equal(kept, plain[highest.row, width : width + highest.step + 2])
    after = sequences[highest.row, width + highest.step + 2 :]
    assert (after == pad_id(loaded.tokenizer)).all()
    other = (highest.row + 1) % len(TEXTS)
    assert torch.equal(sequences[other], plain[other, : sequences.shape[1]])


def test_nothing_is_read_after_an_end_token(loaded, probe):
    plain = spoken(loaded)
    width = plain.shape[1] - STEPS
    end = int(plain[0, width + 2])
    monitor = Monitor(loaded.blocks[LAYER], probe.vector, end_ids=[end])
    sequences = spoken(loaded, monitor, eos_token_id=end)
    monitor.finish(sequences)
    for row in range(len(TEXTS)):
        ids = sequences[row, width:].tolist()
        count = ids.index(end) + 1 if end in ids else len(ids)
        read = of_row(monitor, row)
        assert [reading.token_id for reading in read] == ids[:count]


def test_readings_come_as_they_are_made_and_the_last_token_has_none(loaded, probe):
    told: list[Reading] = []
    monitor = Monitor.of(loaded, probe, on_reading=told.append)
    sequences = spoken(loaded, monitor)
    assert told == monitor.readings and all(reading.projection is not None for reading in told)
    monitor.finish(sequences)
    last = [reading for reading in told if reading.projection is None]
    assert {reading.step for reading in last} <= {STEPS - 1}
    assert len(monitor.prompt_projections) == len(TEXTS)
    again = list(told)
    spoken(loaded, monitor)
    assert monitor.readings == [reading for reading in again if reading.projection is not None]


def test_wrong_use_is_refused(loaded, probe):
    with pytest.raises(ValueError, match="needs a calibration"):
        Monitor.of(loaded, probe, stop_above=0.9)
    tokens = torch.ones(1, 3, dtype=torch.long)
    with pytest.raises(RuntimeError, match="outside of Monitor"):
        loaded.model.generate(
            tokens, max_new_tokens=2, stopping_criteria=[Monitor.of(loaded, probe)]
        )


def test_a_logits_processor_reads_the_same_and_ends_a_row_at_once(loaded, probe):
    plain = spoken(loaded)
    watched = Monitor.of(loaded, probe)
    spoken(loaded, watched)
    highest = max(watched.readings[:-1], key=lambda reading: reading.smoothed)
    end = int(loaded.tokenizer.eos_token_id)
    monitor = Monitor(
        loaded.blocks[LAYER],
        probe.vector,
        probe.offset,
        probability=lambda scores: (scores >= highest.smoothed - 1e-9).astype(float),
        stop_above=0.5,
        end_ids=[end],
    )
    tokens, mask = pad(list(encoded(loaded).values()), pad_id(loaded.tokenizer), side="left")
    options = {"max_new_tokens": STEPS, "do_sample": False, "attention_mask": mask.long()}
    model: Any = loaded.model
    both = {"stopping_criteria": [monitor], "logits_processor": [monitor.logits_processor()]}
    with monitor.watching():
        sequences = model.generate(tokens, eos_token_id=end, **both, **options)
    last = of_row(monitor, highest.row)[-1]
    assert last.step == highest.step and last.probability == 1.0
    width = tokens.shape[1]
    kept = sequences[highest.row, width : width + highest.step + 1]
    assert torch.equal(kept, plain[highest.row, width : width + highest.step + 1])
    assert int(sequences[highest.row, width + highest.step + 1]) == end
    with pytest.raises(ValueError, match="give end_ids"):
        Monitor(loaded.blocks[LAYER], probe.vector).logits_processor()
