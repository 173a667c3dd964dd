"""The options that say how directions, alignments and shared axes are fitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

direction_option = click.option(
    "--direction",
    type=click.Choice(("mean_diff", "whitened", "logistic", "pair_pca")),
    default="mean_diff",
    show_default=True,
    help="How the two classes give a direction; pair_pca needs pair_id.",
)


def method_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How directions, alignments and shared axes are fitted; each is a key of a study file."""
    for option in (
        click.option(
            "--universal",
            type=click.Choice(("svd", "mean")),
            default="svd",
            show_default=True,
            help="How aligned directions become one axis.",
        ),
        click.option(
            "--alignment-shuffles",
            type=click.IntRange(min=0),
            default=20,
            show_default=True,
            help="Refits on shuffled pairs, the null of R2; none with 0.",
        ),
        click.option(
            "--scale/--no-scale",
            "is_scaled",
            default=True,
            show_default=True,
            help="Whether procrustes may stretch.",
        ),
        click.option(
            "--hidden-width", type=click.IntRange(min=1), help="A hidden layer, for gradient."
        ),
        click.option(
            "--rank",
            type=click.IntRange(min=1),
            help="Of reduced_rank and cca (default: chosen), gradient (default: full).",
        ),
        click.option(
            "--lambda-policy",
            type=click.Choice(("held_out", "gcv")),
            default="held_out",
            show_default=True,
            help="What chooses lambda: held-out rows or generalised cross-validation.",
        ),
        click.option(
            "--ridge-lambda",
            type=click.FloatRange(min=0.0, min_open=True),
            help="Default: chosen per model on alignment rows.",
        ),
        click.option(
            "--layer-policy",
            type=click.Choice(("fraction", "cross_validated")),
            default="fraction",
            show_default=True,
            help="One depth for all models, or each model's best by cross-validation.",
        ),
        direction_option,
        click.option(
            "--alignment",
            type=click.Choice(("ridge", "procrustes", "reduced_rank", "cca", "gradient")),
            default="ridge",
            show_default=True,
            help="The map from each model into the reference.",
        ),
    ):
        command = option(command)
    return command
