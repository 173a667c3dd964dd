"""A request gives the keys that rows of before are found by, and the defaults of the options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch

from axes.cli.main import cli
from axes.ingest.forward.activation_keys import Item
from axes.ingest.forward.pooling import POOLINGS
from axes.ingest.generation.sweeps import UNSTEERED, Sweep
from axes.ingest.generation.token_statistics import Kept
from axes.ingest.requests import (
    ActivationRequest,
    CompletionRequest,
    InterventionRequest,
    Sampling,
    TraceRequest,
)
from axes.warehouse.axes import AxisReadout
from axes.warehouse.errors import ModelError
from axes.warehouse.writer import content_key

GREEDY = TraceRequest(prompt_set="p")
DRAWN = TraceRequest(
    prompt_set="p",
    template="chat",
    system="Be brief.",
    max_new_tokens=8,
    temperature=0.7,
    top_p=0.9,
    seed=5,
    stop_strings=("End",),
    end_tokens=["</s>"],
    prompt_tokens=True,
)


def test_keys_are_those_that_stored_rows_have() -> None:
    """The constants were computed by the code that wrote the first warehouses."""
    assert GREEDY.key("m", Kept((0, 3)), "p", GREEDY.sampling_key(0)) == "e8be198756f1a4e3"
    readout = AxisReadout("axis", "n", "m", "id", 2, None, np.zeros(2), 0.0)
    kept = Kept((), (readout,), 3)
    assert DRAWN.key("m", kept, "p", DRAWN.sampling_key(1)) == "031dc65d8c83bf12"
    given = CompletionRequest(completions=Path())
    settings = {"given": "Hello", "source": "api"}
    assert given.key("m", Kept((0, 3)), "p", settings) == "a5e97f91d3f7ae37"
    given = CompletionRequest(completions=Path(), prompt_tokens=True)
    settings = {"given": [1, 2], "source": "api"}
    assert given.key("m", Kept((0, 3), (), 2), "p", settings) == "66e797be34c59078"
    request = InterventionRequest(
        prompt_set="p", benign_set="b", axis_ids=["axis"], above=0.25, condition="row"
    )
    sweep = Sweep("axis", torch.zeros(2), (3,), (0.5,), 390.0, request.change)
    assert sweep.columns("m", "chat", 0.5)["intervention_id"] == "8bc118981199598c"
    assert UNSTEERED.columns("m", "chat", 0.0)["intervention_id"] == "18f3905ec1f9acb1"
    items = [Item(0, "resid_post", "last5_mean"), Item(1, "resid_post", "")]
    assert content_key("m", "raw", items, ["a", "b"]) == "b0a9a74ae1cc4495"


@pytest.mark.parametrize(
    ("request_type", "words"),
    [
        (ActivationRequest, ["ingest", "activations"]),
        (TraceRequest, ["ingest", "traces"]),
        (CompletionRequest, ["ingest", "traces"]),
        (InterventionRequest, ["intervene"]),
    ],
)
def test_options_have_the_defaults_of_the_request(request_type: type, words: list[str]) -> None:
    command: Any = cli
    for word in words:
        command = command.get_command(click.Context(command), word)
    stated = {param: param.to_info_dict().get("default") for param in command.params}
    options = {
        param.name: param.type_cast_value(click.Context(command), default)
        for param, default in stated.items()
        if default is not None
    }
    compared = 0
    for name in request_type.__dataclass_fields__:
        if name in options and hasattr(request_type, name):
            assert options[name] == getattr(request_type, name), name
            compared += 1
    assert compared >= 4, "most fields are options"


def test_requests_and_names_of_poolings_load_without_torch_and_numpy() -> None:
    script = (
        "import sys, axes.ingest.requests, axes.ingest.forward.pooling as p; print(*p.POOLINGS, "
    )
    script += "*({'torch', 'numpy', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == list(POOLINGS), done.stderr


def test_a_condition_counts_only_with_a_bound_and_templates_are_checked() -> None:
    request = InterventionRequest(prompt_set="p", benign_set="b", axis_ids=[])
    assert request.change.condition is None
    assert request.parameters()["strengths"] == InterventionRequest.strengths
    with pytest.raises(ModelError, match="unknown template xml"):
        ActivationRequest(prompt_sets={}, template="xml").parameters()
    assert Sampling().columns()["stop_strings"] is None
