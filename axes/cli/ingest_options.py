"""Options that the commands share: which model is meant, and how and where it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from axes.cli.names import MODEL
from axes.ingest.models.registry import DTYPES, QUANTIZATIONS

if TYPE_CHECKING:
    from axes.ingest.models.registry import ModelSpec


def device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--device`: where models run."""
    return click.option(
        "--device",
        envvar="AXES_DEVICE",
        show_envvar=True,
        help="cpu, cuda, cuda:1, mps or auto (spread over all).",
    )(command)


def dtype_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--dtype`: what weights and activations are computed in."""
    return click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        envvar="AXES_DTYPE",
        show_envvar=True,
        help="Default: float32 on a CPU.",
    )(command)


def loading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The model argument, and what of it is loaded how and where."""
    for option in (
        dtype_option,
        device_option,
        click.option("--blocks", help="Path of the block list, such as model.layers."),
        click.option("--attention", help="eager, sdpa, ... Default: what transformers takes."),
        click.option(
            "--quantization", type=click.Choice(QUANTIZATIONS), help="Load with bitsandbytes."
        ),
        click.option("--adapter", help="PEFT adapter on top: a folder or hf:OWNER/NAME."),
        click.option("--source", help="Take the weights from this folder, .gguf or hf:OWNER/NAME."),
        click.argument("model", type=MODEL),
    ):
        command = option(command)
    return command


def model_spec(model: str, options: dict[str, Any]) -> ModelSpec:
    """The model that the options name; they are taken out of `options`."""
    from axes.ingest.models.registry import resolve

    names = ("source", "adapter", "quantization", "attention", "blocks")
    return resolve(model, **{name: options.pop(name) for name in names})
