"""What a study is: its options, each declared once, and its TOML file.

An option is a field of `StudyDefinition` with its help, its choices and its range. The command line
builds its options from the fields, a study file has them as keys, read strictly, and
`axes.study(...)` takes them as keywords. Nothing heavy is imported here, for `--help`.

group = "demo"                      # or models = ["a", "b"] and reference = "b"
prompts = "demo_safety"             # or concepts = ["a", "b"]: a study for each, then k-way
align = "demo_alignment"
ridge_lambda = ["held_out", 1e4]    # a list of values: one study for each
[published."smollm2-135m"]          # published values, shown next to the study's
native = 0.7
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from axes.analysis.methods import (
    ALIGNMENTS,
    DIRECTIONS,
    LAMBDA_POLICIES,
    UNIVERSALS,
    AlignmentOptions,
)
from axes.warehouse.errors import DefinitionError, ModelError
from axes.warehouse.names import SITES, TOKEN_POOLINGS, did_you_mean
from axes.warehouse.settings import option, options_of

MIN_ALIGNMENT_ROWS = 10
LAYER_POLICIES = ("fraction", "cross_validated")


@dataclass(frozen=True)
class StudyDefinition:
    """What a study is; with the rows it reads, this determines every number.

    `layer_policy` is `fraction` (of the depth, `layer_fraction`) or `cross_validated` (the layer of
    each model with the best out-of-fold AUROC on `prompts`). `ridge_lambda` None: chosen for each
    model on alignment rows by `lambda_policy`; the other options of the alignment are those of
    `AlignmentOptions`. `label` names the group in the names of the axes.
    """

    models: tuple[str, ...] = option(help="A model; repeatable.", names="model", flag="--model")
    reference: str = option(help="The model whose space is aligned into.", names="model")
    prompts: str = option(
        help="Labelled set that the directions are fitted on.", names="prompt_set"
    )
    align: str = option(
        help="Unlabelled set that the alignments are fitted on.", names="prompt_set"
    )
    evaluate: tuple[str, ...] = option(
        (), "Another labelled set to evaluate on; repeatable.", names="prompt_set"
    )
    align_rows: int = option(
        3000, "Alignment prompts: the first of the set.", minimum=MIN_ALIGNMENT_ROWS
    )
    layer_policy: str = option(
        "fraction",
        "One depth for all models, or each model's best by cross-validation.",
        LAYER_POLICIES,
    )
    layer_fraction: float = option(
        0.8, "Layer round(fraction * (layer_count - 1)) of each model.", minimum=0.0, maximum=1.0
    )
    direction: str = option(
        "mean_diff", "How the two classes give a direction; pair_pca needs pair_id.", DIRECTIONS
    )
    alignment: str = option("ridge", "The map from each model into the reference.", ALIGNMENTS)
    ridge_lambda: float | None = option(
        None,
        "Default: chosen per model on alignment rows.",
        minimum=0.0,
        is_minimum_excluded=True,
    )
    lambda_policy: str = option(
        "held_out",
        "What chooses lambda: held-out rows or generalised cross-validation.",
        LAMBDA_POLICIES,
    )
    rank: int | None = option(
        None,
        "Of reduced_rank, cca, anchor_projection (default: chosen), gradient (default: full).",
        minimum=1,
    )
    hidden_width: int | None = option(None, "A hidden layer, for gradient.", minimum=1)
    is_scaled: bool = option(True, "Whether procrustes may stretch.", flag="--scale/--no-scale")
    alignment_shuffles: int = option(
        20, "Refits on shuffled pairs, the null of R2; none with 0.", minimum=0
    )
    universal: str = option("svd", "How aligned directions become one axis.", UNIVERSALS)
    site: str = option(SITES[0], "Where in a block vectors were read.", SITES)
    pooling: str = option(
        "last5_mean",
        f"As stored: last, mean, ...; of fit and evaluate also {', '.join(TOKEN_POOLINGS)}.",
        names="pooling",
    )
    template: str = option(
        "raw", "As stored: raw, chat, chat+enable_thinking=false, chat+system:HASH, ..."
    )
    seed: int = option(0, "Random seed.")
    allow_missing: bool = option(False, "Continue where rows are missing, and report how many.")
    label: str = "group"

    def __post_init__(self) -> None:
        """Raise `DefinitionError` for a value out of its range."""
        for name, declared in _FIELDS.items():
            value = getattr(self, name)
            if (expected := declared.problem(value)) is not None:
                raise DefinitionError(f"{name} is {value}, expected {expected}")
        if self.pooling.partition("@")[0] in TOKEN_POOLINGS:
            raise DefinitionError(
                f"{self.pooling} gives scores and no vector to align: choose a stored pooling, or "
                "evaluate the tokens of one model with `axes fit` and `axes evaluate`"
            )
        if self.reference not in self.models:
            raise ModelError(f"the reference {self.reference} is not among the study's models")

    @property
    def labelled_sets(self) -> tuple[str, ...]:
        """The set the directions are fitted on, then the others they are evaluated on."""
        return tuple(dict.fromkeys((self.prompts, *self.evaluate)))

    @property
    def variant(self) -> tuple[str, ...]:
        """The part of an axis name that says how it was fitted, where not by default."""
        options = self.alignment_options
        parts = [] if self.align == "demo_alignment" else [self.align]
        parts += [] if self.direction == "mean_diff" else [self.direction.replace("_", "-")]
        parts += [] if self.universal == "svd" else [self.universal]
        parts += [] if options.method == "ridge" else [options.method.replace("_", "-")]
        if options.has("ridge_lambda"):
            policy = (
                options.lambda_policy if self.ridge_lambda is None else f"{self.ridge_lambda:g}"
            )
            parts.append(f"lambda-{policy}")
        if self.rank is not None:
            parts.append(f"rank-{self.rank}")
        if self.hidden_width is not None:
            parts.append(f"hidden-{self.hidden_width}")
        if options.has("is_scaled") and not self.is_scaled:
            parts.append("unscaled")
        return tuple(parts)

    @property
    def alignment_options(self) -> AlignmentOptions:
        """The alignment method; raises `AlignmentError` for an option that it does not have."""
        names = ("ridge_lambda", "lambda_policy", "rank", "hidden_width", "is_scaled")
        return AlignmentOptions(self.alignment, *(getattr(self, name) for name in names))


_FIELDS = options_of(StudyDefinition)
# Every option of a study, and of a file every key but `published`.
OPTIONS = ("group", "concepts", *_FIELDS)


def option_types() -> dict[str, Any]:
    """The type of every option."""
    hints = get_type_hints(StudyDefinition)
    return {"group": str, "concepts": tuple[str, ...], **{name: hints[name] for name in _FIELDS}}


FOLDER = Path(__file__).resolve().parents[2] / "studies"
PUBLISHED_METRICS = ("native", "universal", "leave_one_out", "cosine_universal")
EVERY_MODEL = "*"
_HELD_OUT = "held_out"


@dataclass(frozen=True)
class StudyFile:
    """The studies of a file as settings, keyed as the command's options; and published values.

    `published` is model (or `*` for every model) -> metric -> value.
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
    try:
        published = _read_published(content.pop("published", {}))
        types = option_types()
        options: dict[str, list[Any]] = {}
        if "concepts" in content:
            if "prompts" in content:
                raise DefinitionError("give prompts or concepts, not both")
            content["prompts"] = content["concepts"]
        for key, value in content.items():
            if key not in types:
                raise DefinitionError(_unknown("key", key, [*types, "published"]))
            options[key] = list(_values(key, value, types[key]))
        for key in ("prompts", "align"):
            if key not in options:
                raise DefinitionError(f"the key {key} is missing")
        if ("group" in options) == ("models" in options):
            raise DefinitionError("give group, or models and reference")
        if "models" in options and "reference" not in options:
            raise DefinitionError("give reference with models")
    except DefinitionError as error:
        raise DefinitionError(f"{path}: {error}") from None
    combinations = itertools.product(*options.values())
    studies = (dict(zip(options, values, strict=True)) for values in combinations)
    return StudyFile(path, tuple(studies), published)


def _values(key: str, value: Any, kind: Any) -> Iterator[Any]:
    """The value, or each of a list where a single value is expected."""
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DefinitionError(f"{key} is {_shown(value)}, expected a list of texts")
        yield tuple(value)
        return
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise DefinitionError(f"{key} is an empty list")
    for item in listed:
        yield _converted(key, item, kind)


def _converted(key: str, value: Any, kind: Any) -> Any:
    is_optional = isinstance(kind, UnionType)
    plain = get_args(kind)[0] if is_optional else kind
    if is_optional and value == _HELD_OUT:
        return None
    if plain is float and type(value) is int:
        return float(value)
    if type(value) is not plain:
        expected = _NAMES[plain] + (f' or "{_HELD_OUT}"' if is_optional else "")
        raise DefinitionError(f"{key} is {_shown(value)}, expected {expected}")
    return value


_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _read_published(content: Any) -> dict[str, dict[str, float]]:
    if not isinstance(content, dict) or not all(
        isinstance(item, dict) for item in content.values()
    ):
        raise DefinitionError("published is not a table of models, [published.MODEL]")
    for model, metrics in content.items():
        for name, value in metrics.items():
            if name not in PUBLISHED_METRICS:
                problem = _unknown("metric", name, PUBLISHED_METRICS)
                raise DefinitionError(f"published.{model}: {problem}")
            if type(value) not in (int, float):
                problem = f"{name} is {_shown(value)}, expected a number"
                raise DefinitionError(f"published.{model}: {problem}")
    return {
        model: {name: float(value) for name, value in metrics.items()}
        for model, metrics in content.items()
    }


def _unknown(what: str, name: str, names: Sequence[str]) -> str:
    hint = did_you_mean(name, names) or f": known: {', '.join(names)}"
    return f"unknown {what} {name}{hint}"


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
