"""What is said of a model whose vectors others computed, and its row in `models`.

Nothing of it can be looked up here, so it is keyed by all that is said: two descriptions are two
models, and none is ever one that a job of ours has run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from axes.warehouse.errors import ModelError
from axes.warehouse.external_models import IMPORTED, UNKNOWN
from axes.warehouse.writer import content_key

_NUMBERS = ("layer_count", "d_model")
_NEEDED = {"name": "--model NAME", "layer_count": "--layer-count N"}


@dataclass(frozen=True)
class GivenModel:
    """A model as its owner describes it; `computed_with` says what computed the vectors."""

    name: str
    layer_count: int
    d_model: int
    revision: str | None = None
    computed_with: str | None = None
    architecture: str = UNKNOWN
    dtype: str = UNKNOWN
    weights_hash: str = UNKNOWN
    tokenizer_hash: str = UNKNOWN
    template_hash: str | None = None
    license: str | None = None

    @property
    def model_id(self) -> str:
        """A key of what is said of it, apart from the licence."""
        return content_key(IMPORTED, {**asdict(self), "license": None})

    def row(self, run_id: str) -> dict[str, Any]:
        """Its row in `models`."""
        source = IMPORTED if self.computed_with is None else f"{IMPORTED}:{self.computed_with}"
        said = {key: value for key, value in asdict(self).items() if key != "computed_with"}
        return {
            **said,
            "model": said.pop("name"),
            "model_id": self.model_id,
            "source": source,
            "parameter_count": 0,
            "is_reference": False,
            "run_id": run_id,
        }


def read_description(path: Path) -> dict[str, Any]:
    """What a JSON file says of a model; raises `ModelError` where it is no JSON object."""
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(said, dict):
        raise ModelError(f"{path} holds no JSON object: keys among {', '.join(_KEYS)} are expected")
    return said


def describe(said: Mapping[str, Any], *, width: int) -> GivenModel:
    """The model that is described, of vectors of `width` numbers; raises `ModelError`."""
    given = {key: value for key, value in said.items() if value is not None}
    given.setdefault("d_model", width)
    if strange := sorted(given.keys() - set(_KEYS)):
        raise ModelError(f"unknown key {strange[0]} of a model: keys are {', '.join(_KEYS)}")
    if lacking := [name for name in _NEEDED if name not in given]:
        raise ModelError(
            f"the model's {' and '.join(lacking)} must be said: "
            + ", ".join(_NEEDED[name] for name in lacking)
        )
    for name in _NUMBERS:
        if not isinstance(given[name], int) or given[name] < 1:
            raise ModelError(f"{name} is {given[name]!r}, a whole number of 1 or more is expected")
    if given["d_model"] != width:
        raise ModelError(
            f"the vectors have {width} numbers, d_model of {given['name']} is {given['d_model']}"
        )
    texts = {key: str(value) for key, value in given.items() if key not in _NUMBERS}
    return GivenModel(layer_count=given["layer_count"], d_model=width, **texts)


_KEYS = tuple(field.name for field in fields(GivenModel))
