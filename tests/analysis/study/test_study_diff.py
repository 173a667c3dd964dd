from __future__ import annotations

from dataclasses import replace

import pytest

from axes.analysis.study.claims import definition_differences, metric_differences
from axes.analysis.study.run import find_study, read_definition, run_study
from axes.warehouse.connection import connect
from axes.warehouse.errors import AxesError
from axes.warehouse.handle import Warehouse


def test_studies_differ_in_what_was_changed_and_in_the_figures_that_follow(lake, definition):
    warehouse = Warehouse.open(lake)
    first = find_study(warehouse, definition)
    changed = replace(definition, ridge_lambda=1e6, evaluate=())
    with pytest.raises(AxesError, match="has not been run"):
        find_study(warehouse, changed)
    second = run_study(lake, changed)
    connection = connect(lake)
    assert read_definition(connection, second) == changed
    assert definition_differences(connection, first, second) == [
        {"field": "evaluate", "a": '["other"]', "b": "[]"},
        {"field": "ridge_lambda", "a": "null", "b": "1000000.0"},
    ]
    found = {
        (row["model"], row["prompt_set"], row["figure"]): row
        for row in metric_differences(Warehouse(lake, connection), first, second)
    }
    native = found["alpha", "labelled", "native"]
    assert native["difference"] == 0 and native["lower"] == 0 == native["upper"]
    universal = found["alpha", "labelled", "universal"]
    assert universal["difference"] == pytest.approx(universal["b"] - universal["a"])
    assert universal["lower"] <= universal["difference"] <= universal["upper"]
    # Judged by one of the two only.
    assert found["alpha", "other", "universal"]["b"] is None
    assert found["alpha", "other", "universal"]["lower"] is None
    # No projections behind these, so no paired interval.
    assert found["alpha", None, "cosine_universal"]["lower"] is None
