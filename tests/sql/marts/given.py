"""What the tests of several views share: rows to put in, and a query as tuples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axes.warehouse.connection import connect, rows
from tests.rows import put, put_prompts

GIVEN = {"model": "m", "model_id": "m1"}


def ask(root: Path, sql: str) -> list[tuple[Any, ...]]:
    """The rows as tuples."""
    return [tuple(row.values()) for row in rows(connect(root), sql)]


def put_overlapping_sets(root: Path) -> None:
    """`shared` is in both sets, positive in one and without a label in the other."""
    put_prompts(root, "one", {"shared": True, "a": False}, pair_id="pair", source="here")
    put_prompts(root, "two", {"b": True, "shared": None}, license="MIT", category="c")


def put_projections(
    root: Path, axis_id: str, values: dict[str, float], model: str = "m", **columns: Any
) -> None:
    """Projections of a model's prompts on an axis, prompt -> value."""
    common = {"axis_id": axis_id, "model": model, "model_id": f"{model}1", **columns}
    described = ({**common, "prompt_id": name, "projection": at} for name, at in values.items())
    put(root, "projections", *described)


def put_generation(
    root: Path, generation_id: str, prompt_id: str, projections: list[float]
) -> None:
    """A completion with tokens at layers 1 and 2, projected on the axis at layer 2."""
    common = {"model": "m", "generation_id": generation_id}
    count = len(projections)
    put(root, "generations", {**common, "prompt_id": prompt_id, "token_count": count})
    steps = [(step, layer) for layer in (1, 2) for step in reversed(range(count))]
    put(
        root,
        "generation_tokens",
        *(
            {**common, "step": step, "layer": layer, "token": f"t{step}", "logprob": -step}
            for step, layer in steps
        ),
    )
    scored = [
        {**common, "axis_id": "x", "layer": 2, "step": step, "projection": projection}
        for step, projection in enumerate(projections)
    ]
    put(root, "token_projections", *reversed(scored))
