"""What a study is, and what is read and fitted for each of its models.

A study as a TOML file: the keys are the fields of `StudyDefinition`, read strictly.

group = "demo"                      # or models = ["a", "b"] and reference = "b"
prompts = "demo_safety"
align = "demo_alignment"
ridge_lambda = ["held_out", 1e4]    # a list of values: one study for each
[published."smollm2-135m"]          # figures of others, shown beside ours
native = 0.7
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from axes.analysis.activations import Matrix, Space, find_space, load_matrix, require_classes
from axes.analysis.methods import alignment, directions, universal
from axes.analysis.methods.alignment import AlignmentOptions
from axes.analysis.methods.layer_selection import select_layers
from axes.analysis.registry import Axis, StoredAlignment
from axes.analysis.stats.auroc import auroc
from axes.warehouse.connection import Connection
from axes.warehouse.errors import CoverageError, DefinitionError, ModelError
from axes.warehouse.names import did_you_mean

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


FOLDER = Path(__file__).resolve().parents[2] / "studies"
PUBLISHED_FIGURES = ("native", "universal", "leave_one_out", "cosine_universal")
EVERY_MODEL = "*"

# Given to the definition by the command: which models a group has is the registry's to say.
_OF_MODELS = {"group": str, "models": tuple[str, ...], "reference": str}
_HELD_OUT = "held_out"


@dataclass(frozen=True)
class StudyFile:
    """The studies of a file as settings, keyed as the command's options; and published figures.

    `published` is model (or `*` for every one) -> figure -> value.
    """

    path: Path
    studies: tuple[dict[str, Any], ...]
    published: dict[str, dict[str, float]]


def find_study_file(name: str) -> Path | None:
    """The file of that path, or the study of that name that comes with the package."""
    if Path(name).is_file():
        return Path(name)
    packaged = FOLDER / f"{name}.toml"
    return packaged if packaged.is_file() else None


def packaged_studies() -> list[str]:
    """The names of the studies that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_study_file(path: Path) -> StudyFile:
    """Read and check a study file; `DefinitionError` names the key that is wrong, in one line."""
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path} is not TOML: {error}") from error
    published = _read_published(path, content.pop("published", {}))
    kinds = _kinds()
    options: dict[str, list[Any]] = {}
    for key, value in content.items():
        if key not in kinds:
            raise DefinitionError(f"{path}: {_unknown('key', key, [*kinds, 'published'])}")
        options[key] = list(_values(path, key, value, kinds[key]))
    for key in _required():
        if key not in options:
            raise DefinitionError(f"{path}: the key {key} is missing")
    if ("group" in options) == ("models" in options):
        raise DefinitionError(f"{path}: give group, or models and reference")
    if "models" in options and "reference" not in options:
        raise DefinitionError(f"{path}: give reference with models")
    studies = (dict(zip(options, chosen, strict=True)) for chosen in _product(options))
    return StudyFile(path, tuple(studies), published)


def option_names() -> list[str]:
    """Every key that a file may have, `published` apart."""
    return list(_kinds())


def _product(options: Mapping[str, list[Any]]) -> Iterator[tuple[Any, ...]]:
    return itertools.product(*options.values())


def _kinds() -> dict[str, Any]:
    """Key -> type, of every key that a file may have."""
    hints = get_type_hints(StudyDefinition)
    own = {field.name: hints[field.name] for field in fields(StudyDefinition)}
    return {**{key: kind for key, kind in own.items() if key != "label"}, **_OF_MODELS}


def _required() -> list[str]:
    needed = [field.name for field in fields(StudyDefinition) if field.default is MISSING]
    return [name for name in needed if name not in _OF_MODELS]


def _values(path: Path, key: str, value: Any, kind: Any) -> Iterator[Any]:
    """The value, or each of a list where one is expected."""
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DefinitionError(f"{path}: {key} is {_shown(value)}, expected a list of texts")
        yield tuple(value)
        return
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise DefinitionError(f"{path}: {key} is an empty list")
    for item in listed:
        yield _converted(path, key, item, kind)


def _converted(path: Path, key: str, value: Any, kind: Any) -> Any:
    is_optional = isinstance(kind, UnionType)
    plain = get_args(kind)[0] if is_optional else kind
    if is_optional and value == _HELD_OUT:
        return None
    if plain is float and type(value) is int:
        return float(value)
    if type(value) is not plain:
        expected = _NAMES[plain] + (f' or "{_HELD_OUT}"' if is_optional else "")
        raise DefinitionError(f"{path}: {key} is {_shown(value)}, expected {expected}")
    return value


_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _read_published(path: Path, content: Any) -> dict[str, dict[str, float]]:
    if not isinstance(content, dict) or not all(
        isinstance(item, dict) for item in content.values()
    ):
        raise DefinitionError(f"{path}: published is not a table of models, [published.MODEL]")
    for model, figures in content.items():
        for name, value in figures.items():
            if name not in PUBLISHED_FIGURES:
                what = _unknown("figure", name, PUBLISHED_FIGURES)
                raise DefinitionError(f"{path}: published.{model}: {what}")
            if type(value) not in (int, float):
                what = f"{name} is {_shown(value)}, expected a number"
                raise DefinitionError(f"{path}: published.{model}: {what}")
    return {
        model: {name: float(value) for name, value in figures.items()}
        for model, figures in content.items()
    }


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    hint = did_you_mean(name, known) or f": known: {', '.join(known)}"
    return f"unknown {what} {name}{hint}"


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
