"""What a study is, and what is read and fitted for each of its models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from axes.analysis.activations import Matrix, Space, find_space, load_matrix, require_classes
from axes.analysis.methods import alignment, directions, universal
from axes.analysis.methods.alignment import AlignmentOptions
from axes.analysis.methods.layer_selection import select_layers
from axes.analysis.registry import Axis, StoredAlignment
from axes.analysis.stats.auroc import auroc
from axes.warehouse.connection import Connection
from axes.warehouse.errors import CoverageError, DefinitionError, ModelError

LEAST_ALIGNMENT_ROWS = 10
LAYER_POLICIES = ("fraction", "cross_validated")

_CHOICES = {
    "layer_policy": LAYER_POLICIES,
    "direction": directions.METHODS,
    "alignment": alignment.METHODS,
    "lambda_policy": alignment.LAMBDA_POLICIES,
    "universal": universal.METHODS,
}


@dataclass(frozen=True)
class StudyDefinition:
    """What a study is; with the rows it reads, this determines every number.

    `layer_policy` is `fraction` (of the depth, `layer_fraction`) or `cross_validated` (the layer of
    each model with the best out-of-fold AUROC on `prompts`). `ridge_lambda` None: chosen for each
    model on alignment rows by `lambda_policy`; the other options of the alignment are those of
    `AlignmentOptions`. `label` names the group in the names of the axes.
    """

    models: tuple[str, ...]
    reference: str
    prompts: str
    align: str
    evaluate: tuple[str, ...] = ()
    align_rows: int = 3000
    layer_policy: str = "fraction"
    layer_fraction: float = 0.8
    direction: str = "mean_diff"
    alignment: str = "ridge"
    ridge_lambda: float | None = None
    lambda_policy: str = "held_out"
    rank: int | None = None
    hidden_width: int | None = None
    is_scaled: bool = True
    alignment_shuffles: int = 20
    universal: str = "svd"
    site: str = "resid_post"
    pooling: str = "last5_mean"
    template: str = "raw"
    seed: int = 0
    allow_missing: bool = False
    label: str = "group"

    def __post_init__(self) -> None:
        """Raise `DefinitionError` for a value out of its range."""
        if not 0 <= self.layer_fraction <= 1:
            raise DefinitionError(f"layer_fraction is {self.layer_fraction}, expected 0 to 1")
        if self.ridge_lambda is not None and not self.ridge_lambda > 0:
            raise DefinitionError(f"ridge_lambda is {self.ridge_lambda}, expected more than 0")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise DefinitionError(
                    f"{name} is {getattr(self, name)}, expected {' or '.join(known)}"
                )
        if self.alignment_shuffles < 0:
            raise DefinitionError(f"alignment_shuffles is {self.alignment_shuffles}, expected 0 on")
        if self.reference not in self.models:
            raise ModelError(f"the reference {self.reference} is not among the study's models")

    @property
    def labelled_sets(self) -> tuple[str, ...]:
        """The set the directions are fitted on, then the others they are judged on."""
        return tuple(dict.fromkeys((self.prompts, *self.evaluate)))

    @property
    def variant(self) -> tuple[str, ...]:
        """What tells the axes of two studies of one group apart by name: how they were aligned."""
        options = self.alignment_options
        parts = [] if self.direction == "mean_diff" else [self.direction.replace("_", "-")]
        parts += [] if self.universal == "svd" else [self.universal]
        parts += [] if options.method == "ridge" else [options.method.replace("_", "-")]
        if options.has_lambda:
            policy = (
                options.lambda_policy if self.ridge_lambda is None else f"{self.ridge_lambda:g}"
            )
            parts.append(f"lambda-{policy}")
        if self.rank is not None:
            parts.append(f"rank-{self.rank}")
        if self.hidden_width is not None:
            parts.append(f"hidden-{self.hidden_width}")
        if options.method == "procrustes" and not self.is_scaled:
            parts.append("unscaled")
        return tuple(parts)

    @property
    def alignment_options(self) -> AlignmentOptions:
        """The method of the alignments; raises `AlignmentError` where it has no such option."""
        return AlignmentOptions(
            self.alignment,
            self.ridge_lambda,
            self.lambda_policy,
            self.rank,
            self.hidden_width,
            self.is_scaled,
        )


@dataclass(frozen=True)
class Member:
    """One model at the study's layer: its labelled prompts by set, and its alignment prompts.

    Where the layer was chosen, `layers` are the prompts that it was chosen on, at every layer.
    """

    space: Space
    labelled: dict[str, Matrix]
    benign: Matrix
    layers: tuple[Matrix, ...] = ()

    @property
    def name(self) -> str:
        return self.space.model

    @property
    def place(self) -> list[Any]:
        """What picks the member's activations."""
        return [*self.space.key, self.space.layer]


@dataclass(frozen=True)
class Fitted:
    """What was fitted for one model; `leave_one_out` is None in a group of one."""

    native: Axis
    aligned: Axis
    alignment: StoredAlignment
    leave_one_out: Axis | None


def read_member(connection: Connection, definition: StudyDefinition, name: str) -> Member:
    """The activations of one model at the study's layer; raises where rows are missing."""
    allow = definition.allow_missing
    space = find_space(
        connection,
        name,
        site=definition.site,
        pooling=definition.pooling,
        template=definition.template,
    )
    layers: tuple[Matrix, ...] = ()
    if definition.layer_policy == "fraction":
        space = space.at_fraction(definition.layer_fraction)
    else:
        layers = tuple(
            load_matrix(connection, space.at(layer), definition.prompts, allow_missing=allow)
            for layer in range(space.layer_count)
        )
        space = space.at(_best_layer(definition, layers))
    labelled = {
        prompt_set: load_matrix(connection, space, prompt_set, allow_missing=allow)
        for prompt_set in definition.labelled_sets
    }
    for prompt_set, matrix in labelled.items():
        require_classes(matrix, prompt_set)
    benign = load_matrix(
        connection, space, definition.align, limit=definition.align_rows, allow_missing=allow
    )
    if len(benign.prompt_ids) < LEAST_ALIGNMENT_ROWS:
        raise CoverageError(
            f"{definition.align} gives {len(benign.prompt_ids)} alignment prompts, "
            f"{LEAST_ALIGNMENT_ROWS} are the least"
        )
    return Member(space, labelled, benign, layers)


def _best_layer(definition: StudyDefinition, layers: Sequence[Matrix]) -> int:
    """The layer with the best out-of-fold AUROC on the rows that directions are fitted on."""
    require_classes(layers[0], definition.prompts)
    found = select_layers(
        (matrix.read() for matrix in layers),
        layers[0].labels,
        layers[0].groups,
        method=definition.direction,
        seed=definition.seed,
    )
    areas = [auroc(scores, layers[0].labels) for scores in found.cross_validated]
    return int(np.argmax(areas))
