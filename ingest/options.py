"""Options that the commands share: which model is meant, and how and where it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ingest.registry import DTYPES, QUANTIZATIONS

if TYPE_CHECKING:
    from ingest.registry import ModelSpec


def loading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The model argument, and what of it is loaded how and where."""
    for option in (
        click.option("--dtype", type=click.Choice(DTYPES), help="Default: float32 on a CPU."),
        click.option("--device", help="cpu, cuda, cuda:1, mps or auto (spread over all)."),
        click.option("--blocks", help="Path of the block list, such as model.layers."),
        click.option("--attention", help="eager, sdpa, ... Default: what transformers takes."),
        click.option(
            "--quantization", type=click.Choice(QUANTIZATIONS), help="Load with bitsandbytes."
        ),
        click.option("--adapter", help="PEFT adapter on top: a folder or hf:OWNER/NAME."),
        click.option("--source", help="Take the weights from this folder, .gguf or hf:OWNER/NAME."),
        click.argument("model"),
    ):
        command = option(command)
    return command


def model_spec(model: str, options: dict[str, Any]) -> ModelSpec:
    """The model that the options name; they are taken out of `options`."""
    from ingest.registry import resolve

    names = ("source", "adapter", "quantization", "attention", "blocks")
    return resolve(model, **{name: options.pop(name) for name in names})
