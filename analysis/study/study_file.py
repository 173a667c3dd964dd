"""A study as a TOML file: the keys are the fields of `StudyDefinition`, read strictly.

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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from axes.analysis.study.definition import StudyDefinition
from axes.warehouse.errors import DefinitionError
from axes.warehouse.names import did_you_mean

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
