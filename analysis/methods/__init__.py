"""The methods by name: how directions, alignments and shared axes are fitted.

A method is a function or a class in its module, and one line in a table of this one. Names load
without numpy: what a line points to is imported when it is first used. Command-line choices, the
check of study files and docs read the tables; docs/howto/method.md adds a method step by step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, TypeVar

from axes.warehouse.errors import AlignmentError, AxesError
from axes.warehouse.names import did_you_mean

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class DirectionMethod:
    """`fitter` is `module:function`: (rows, groups, mask of rows to fit on) -> labels -> vector.

    Nulls and resamples rest on `draw_count` fits; `is_of_pairs` says that it matters which rows
    are a pair.
    """

    fitter: str
    draw_count: int = 40
    is_of_pairs: bool = False


@dataclass(frozen=True)
class AlignmentMethod:
    """`procedure` is `module:class`, a subclass of `alignment.Procedure`.

    `options` names the fields of `AlignmentOptions` that the method takes.
    """

    procedure: str
    options: tuple[str, ...] = ()


DIRECTIONS: dict[str, DirectionMethod] = {
    "mean_diff": DirectionMethod("axes.analysis.methods.directions:mean_diff", draw_count=200),
    "whitened": DirectionMethod("axes.analysis.methods.directions:whitened", draw_count=200),
    "logistic": DirectionMethod("axes.analysis.methods.directions:logistic"),
    "pair_pca": DirectionMethod("axes.analysis.methods.directions:pair_pca", is_of_pairs=True),
    "soft_auc": DirectionMethod("axes.analysis.methods.soft_auc:soft_auc"),
}

ALIGNMENTS: dict[str, AlignmentMethod] = {
    "ridge": AlignmentMethod("axes.analysis.methods.maps.ridge:Ridge", ("ridge_lambda",)),
    "procrustes": AlignmentMethod("axes.analysis.methods.maps.low_rank:Procrustes", ("is_scaled",)),
    "reduced_rank": AlignmentMethod(
        "axes.analysis.methods.maps.low_rank:ReducedRank", ("ridge_lambda", "rank")
    ),
    "cca": AlignmentMethod(
        "axes.analysis.methods.maps.low_rank:CanonicalCorrelation", ("ridge_lambda", "rank")
    ),
    "anchor_projection": AlignmentMethod(
        "axes.analysis.methods.maps.anchors:AnchorProjection", ("rank",)
    ),
    "gradient": AlignmentMethod(
        "axes.analysis.methods.maps.gradient:Gradient", ("rank", "hidden_width")
    ),
}

# What chooses lambda: (ridge procedure, targets) -> an error for each lambda of the grid.
LAMBDA_POLICIES: dict[str, str] = {
    "held_out": "axes.analysis.methods.maps.ridge:held_out_errors",
    "gcv": "axes.analysis.methods.maps.ridge:generalised_cross_validation",
}

# How unit directions become one axis: directions [model, d_model] -> `UniversalAxis`.
UNIVERSALS: dict[str, str] = {
    "svd": "axes.analysis.methods.universal:leading_direction",
    "mean": "axes.analysis.methods.universal:mean_direction",
}


def find_method(
    kind: str, methods: Mapping[str, Entry], name: str, error: type[AxesError]
) -> Entry:
    """The line of a table; raises `error` with the names of the table for any other name."""
    if name not in methods:
        raise error(
            f"unknown {kind} {name}{did_you_mean(name, methods)}: choose {', '.join(methods)}"
        )
    return methods[name]


def load(function: str) -> Any:
    """The function or class that a line of a table points to."""
    return resolve_name(function)


@dataclass(frozen=True)
class AlignmentOptions:
    """Which map, and the options that are set; None: chosen on held-out rows, or left out.

    `rank` is for `reduced_rank`, `cca`, `anchor_projection` and `gradient` (full without),
    `hidden_width` for `gradient`, `is_scaled` for `procrustes`.
    """

    method: str = "ridge"
    ridge_lambda: float | None = None
    lambda_policy: str = "held_out"
    rank: int | None = None
    hidden_width: int | None = None
    is_scaled: bool = True

    def __post_init__(self) -> None:
        options = find_method("alignment", ALIGNMENTS, self.method, AlignmentError).options
        for name in ("ridge_lambda", "rank", "hidden_width"):
            if getattr(self, name) is not None and name not in options:
                others = [other for other, entry in ALIGNMENTS.items() if name in entry.options]
                raise AlignmentError(
                    f"the alignment {self.method} has no {name}: leave it out, "
                    f"or choose {' or '.join(others)}"
                )

    def has(self, option: str) -> bool:
        """Whether the method takes an option."""
        return option in ALIGNMENTS[self.method].options
