"""What a study is, and what is read and fitted for each of its models."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.matrices import Matrix, Space, find_space, load_matrix, require_classes
from analysis.records import Axis, StoredAlignment
from warehouse.connection import Connection
from warehouse.errors import CoverageError, DefinitionError, ModelError

LEAST_ALIGNMENT_ROWS = 10


@dataclass(frozen=True)
class StudyDefinition:
    """What a study is; with the rows it reads, this determines every number.

    `ridge_lambda` None: chosen for each model on held-out alignment rows. `label` names the group
    in the names of the axes.
    """

    models: tuple[str, ...]
    reference: str
    prompts: str
    align: str
    evaluate: tuple[str, ...] = ()
    align_rows: int = 3000
    layer_fraction: float = 0.8
    ridge_lambda: float | None = None
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
        if self.reference not in self.models:
            raise ModelError(f"the reference {self.reference} is not among the study's models")

    @property
    def labelled_sets(self) -> tuple[str, ...]:
        """The set the directions are fitted on, then the others they are judged on."""
        return tuple(dict.fromkeys((self.prompts, *self.evaluate)))

    @property
    def variant(self) -> tuple[str, ...]:
        """What tells the axes of two studies of one group apart by name: the lambda."""
        policy = "held_out" if self.ridge_lambda is None else f"{self.ridge_lambda:g}"
        return (f"lambda-{policy}",)


@dataclass(frozen=True)
class Member:
    """One model at the study's layer: its labelled prompts by set, and its alignment prompts."""

    space: Space
    labelled: dict[str, Matrix]
    benign: Matrix

    @property
    def name(self) -> str:
        return self.space.model


@dataclass(frozen=True)
class Fitted:
    """What was fitted for one model; `leave_one_out` is None in a group of one."""

    native: Axis
    aligned: Axis
    alignment: StoredAlignment
    leave_one_out: Axis | None


def read_member(connection: Connection, definition: StudyDefinition, name: str) -> Member:
    """The activations of one model at the study's layer; raises where rows are missing."""
    space = find_space(
        connection,
        name,
        site=definition.site,
        pooling=definition.pooling,
        template=definition.template,
    ).at_fraction(definition.layer_fraction)
    allow = definition.allow_missing
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
    return Member(space, labelled, benign)
