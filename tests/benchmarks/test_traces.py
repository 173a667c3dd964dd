"""The floor and the job generate the same tokens, and every round is a whole job."""

from __future__ import annotations

import pytest

from axes.ingest.generation.generate import end_ids
from benchmarks import traces
from benchmarks.ingest.workload import Workload


def test_the_floor_is_the_same_generation(work: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NEW_TOKENS", 5), ("BATCH_SIZE", 3), ("LAYERS", (1, 2))):
        monkeypatch.setattr(traces, name, value)
    batches = work.batches(3, traces.TEMPLATE)
    traces._require_same_tokens(work, batches)
    ends = set(end_ids(work.loaded))
    plain = [traces._up_to_end(ids, ends) for ids in traces._generate(work, batches)]
    assert sorted(traces._generate_continuously(work, batches)) == sorted(plain)
    axes = traces._put_axes(work)
    assert len(axes) == 4
    assert traces._job_seconds(work, axes=axes) > 0
    generate = traces._generate
    monkeypatch.setattr(traces, "_generate", lambda *given: [row[::-1] for row in generate(*given)])
    with pytest.raises(ValueError, match="do not generate the same tokens"):
        traces._require_same_tokens(work, batches)
