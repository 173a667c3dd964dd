"""How far a study's headline figures move with what was chosen before: one choice at a time.

Every model in turn as the reference, lambda over six decades about each model's own, the depth, the
number of alignment rows, and which prompts the directions are fitted on (a random half of the
pairs, judged on the other half). Only numbers are stored, in `variations`. The activations of a
layer are read once, and all lambdas and references share a model's eigendecomposition
(`axes.analysis.study.sensitivity`), so that a variation costs a few products.

A model's ridge alignments into any reference at any lambda, for what a study needs of them.

A study carries a direction over and pulls an axis back; a `RidgePath` gives both for every lambda
without forming weights, and the model's rows are decomposed once for all references.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from axes.analysis.activations import blocks
from axes.analysis.methods.alignment import parts_of_rows
from axes.analysis.methods.directions import fit_direction, unit
from axes.analysis.methods.ridge import LAMBDA_GRID, Mask, RidgePath, Spectrum
from axes.analysis.methods.universal import universal_axis
from axes.analysis.stats.auroc import auroc
from axes.analysis.stats.splits import held_out_groups
from axes.analysis.study.definition import (
    LEAST_ALIGNMENT_ROWS,
    Member,
    StudyDefinition,
    read_member,
)
from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.errors import CoverageError, DefinitionError
from axes.warehouse.layers import Rows
from axes.warehouse.progress import track
from axes.warehouse.runs import record_run
from axes.warehouse.writer import content_key, data_file, rows_table, write_rows

FACTORS = tuple(float(value) for value in np.logspace(-3, 3, 13))
FRACTIONS = (0.3, 0.5, 0.65, 0.8, 0.9, 1.0)
ROW_COUNTS = (100, 300, 1000, 3000, 6000)
DRAW_COUNT = 20

# The map of one model into the reference at one lambda; None: the reference itself.
Map = tuple[RidgePath, float] | None


@dataclass(frozen=True)
class Variation:
    """One value of one choice; `is_own`: the study's own."""

    setting: str
    value: str
    number: float | None
    is_own: bool


def measure_sensitivity(
    root: Path, study_id: str, definition: StudyDefinition, *, memory_limit: int | None = None
) -> None:
    """Write the variations of a study that are not there yet; a setting is one file.

    Raises as `run_study` where rows are missing, and `DefinitionError` for alignments other than
    ridge, which have no lambda to vary.
    """
    if definition.alignment != "ridge":
        raise DefinitionError(
            f"sensitivity is measured of ridge alignments, this study has {definition.alignment}"
        )
    missing = [
        setting
        for setting in _SETTINGS
        if not data_file(root, "variations", _file(study_id, setting)).exists()
    ]
    if not missing:
        return
    connection = connect(root, memory_limit=memory_limit)
    parameters = {"study_id": study_id, **asdict(definition)}
    with record_run(root, "study sensitivity", parameters, seed=definition.seed) as run:
        group = _read_group(connection, definition, max(ROW_COUNTS))
        with track("sensitivity", len(missing), "settings") as advance:
            for setting in missing:
                described = [
                    {**figure, **asdict(variation), "study_id": study_id, "run_id": run.run_id}
                    for variation, figures in _SETTINGS[setting](connection, group)
                    for figure in figures
                ]
                name = _file(study_id, setting)
                write_rows(root, "variations", rows_table("variations", described), name=name)
                run.rows += len(described)
                advance(1)


def _file(study_id: str, setting: str) -> str:
    return content_key(study_id, setting)


class _Group:
    """The study's models at one depth, with the alignment rows that all of them have."""

    def __init__(
        self, definition: StudyDefinition, members: Sequence[Member], own_ids: set[str]
    ) -> None:
        self.definition, self.members = definition, members
        shared = set.intersection(*(set(member.benign.prompt_ids) for member in members))
        self.row_count, self.own_row_count = len(shared), len(shared & own_ids)
        if self.own_row_count < LEAST_ALIGNMENT_ROWS:
            raise CoverageError(
                f"the models share {self.own_row_count} alignment prompts, "
                f"{LEAST_ALIGNMENT_ROWS} are the least"
            )
        self._benign = [
            member.benign
            if len(member.benign.prompt_ids) == self.row_count
            else member.benign.take(
                np.array([i for i, name in enumerate(member.benign.prompt_ids) if name in shared])
            )
            for member in members
        ]
        self._paths: dict[tuple[int, int], RidgePaths] = {}

    @property
    def reference(self) -> int:
        return self.definition.models.index(self.definition.reference)

    @cached_property
    def directions(self) -> list[Float[np.ndarray, " d_model"]]:
        """Of each model, on all prompts that the study fits on."""
        return [self.direction(member) for member in self.members]

    def direction(
        self, member: Member, drawn: Bool[np.ndarray, " row"] | None = None
    ) -> Float[np.ndarray, " d_model"]:
        """Of one model, on those of the prompts."""
        matrix = member.labelled[self.definition.prompts]
        if drawn is not None:
            matrix = matrix.take(np.flatnonzero(drawn))
        method = self.definition.direction
        return fit_direction(method, matrix.x, matrix.labels, matrix.groups).vector

    def maps(self, reference: int, row_count: int) -> list[Map]:
        """Each model's map into that one, fitted on the first rows; lambda by the study's rule."""
        return [
            None
            if index == reference
            else self._path(index, row_count).path(self._benign[reference].x)
            for index in range(len(self.members))
        ]

    def _path(self, index: int, row_count: int) -> RidgePaths:
        key = (index, row_count)
        if key not in self._paths:
            self._paths[key] = RidgePaths(
                self._benign[index].x,
                row_count,
                ridge_lambda=self.definition.ridge_lambda,
                lambda_policy=self.definition.lambda_policy,
                seed=self.definition.seed,
            )
        return self._paths[key]


def _read_group(connection: Connection, definition: StudyDefinition, row_count: int) -> _Group:
    """The models at the definition's depth; of the alignment set what is there, up to so many."""
    asked = definition
    if row_count > definition.align_rows:
        asked = replace(definition, align_rows=row_count, allow_missing=True)
    first = rows(
        connection,
        "select prompt_id from prompts where prompt_set = ? and position < ?",
        [definition.align, definition.align_rows],
    )
    members = [read_member(connection, asked, name) for name in definition.models]
    return _Group(definition, members, {row["prompt_id"] for row in first})


Varied = Iterator[tuple[Variation, list[dict[str, Any]]]]


def _vary_reference(_: Connection, group: _Group) -> Varied:
    for index, member in enumerate(group.members):
        maps = group.maps(index, group.own_row_count)
        is_own = index == group.reference
        yield Variation("reference", member.name, None, is_own), _figures(group, maps)


def _vary_lambda(_: Connection, group: _Group) -> Varied:
    """The same factor on each model's own lambda, which the scale of its activations rules."""
    own = group.maps(group.reference, group.own_row_count)
    for factor in FACTORS:
        maps = [None if one is None else (one[0], one[1] * factor) for one in own]
        variation = Variation("ridge_lambda", f"x {factor:g}", factor, factor == 1.0)
        yield variation, _figures(group, maps)


def _vary_depth(connection: Connection, group: _Group) -> Varied:
    is_chosen = group.definition.layer_policy != "fraction"
    own = None if is_chosen else group.definition.layer_fraction
    if is_chosen:
        maps = group.maps(group.reference, group.own_row_count)
        yield Variation("layer_fraction", "chosen", None, True), _figures(group, maps)
    for fraction in sorted({*FRACTIONS} if own is None else {*FRACTIONS, own}):
        there = group
        if fraction != own:
            definition = replace(group.definition, layer_policy="fraction", layer_fraction=fraction)
            there = _read_group(connection, definition, definition.align_rows)
        maps = there.maps(there.reference, there.own_row_count)
        variation = Variation("layer_fraction", f"{fraction:g}", fraction, fraction == own)
        yield variation, _figures(there, maps)


def _vary_rows(_: Connection, group: _Group) -> Varied:
    own = group.own_row_count
    for count in sorted({own, *(count for count in ROW_COUNTS if count <= group.row_count)}):
        maps = group.maps(group.reference, count)
        yield Variation("align_rows", str(count), count, count == own), _figures(group, maps)


def _vary_prompts(_: Connection, group: _Group) -> Varied:
    """Directions of half of the pairs, judged on the other half and on all of the other sets."""
    prompts = group.definition.prompts
    maps = group.maps(group.reference, group.own_row_count)
    for seed in range(DRAW_COUNT):
        unseen = {
            member.name: held_out_groups(matrix.labels, matrix.groups, fraction=0.5, seed=seed)
            for member in group.members
            for matrix in (member.labelled[prompts],)
        }
        directions = [group.direction(member, ~unseen[member.name]) for member in group.members]
        figures = _figures(group, maps, directions, unseen)
        yield Variation("prompts", f"half {seed}", seed, False), figures


_SETTINGS: dict[str, Callable[[Connection, _Group], Varied]] = {
    "reference": _vary_reference,
    "ridge_lambda": _vary_lambda,
    "layer_fraction": _vary_depth,
    "align_rows": _vary_rows,
    "prompts": _vary_prompts,
}


def _figures(
    group: _Group,
    maps: Sequence[Map],
    directions: Sequence[np.ndarray] | None = None,
    unseen: Mapping[str, np.ndarray] | None = None,
) -> list[dict[str, Any]]:
    """The headline figures of every model; `unseen` says which fitted prompts to judge on."""
    directions = group.directions if directions is None else directions
    aligned = np.stack(
        [_carried(one, direction) for one, direction in zip(maps, directions, strict=True)]
    )
    method = group.definition.universal
    universal = universal_axis(aligned, method).vector
    found = []
    for index, (member, one) in enumerate(zip(group.members, maps, strict=True)):
        axes = {"native": directions[index], "universal": _pulled_back(one, universal)}
        if len(maps) > 1:
            others = universal_axis(np.delete(aligned, index, axis=0), method).vector
            axes["leave_one_out"] = _pulled_back(one, others)
        row = partial(_row, member, one)
        found.append(row("cosine_universal", float(aligned[index] @ universal)))
        for prompt_set, matrix in member.labelled.items():
            is_fitted = prompt_set == group.definition.prompts
            judged = np.ones(len(matrix.prompt_ids), dtype=bool)
            if is_fitted and unseen is not None:
                judged = unseen[member.name]
            stacked = np.stack(list(axes.values()), axis=1)
            scores = np.concatenate([block @ stacked for (block,) in blocks(matrix.x)])
            labels = matrix.labels[judged]
            for figure, values in zip(axes, scores[judged].T, strict=True):
                is_in_sample = is_fitted and unseen is None
                area = auroc(values, labels)
                found.append(row(figure, area, prompt_set=prompt_set, is_in_sample=is_in_sample))
    return found


def _carried(one: Map, direction: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, " d"]:
    return direction if one is None else unit(one[0].carry(direction, one[1])).vector


def _pulled_back(one: Map, axis: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d_model"]:
    return axis if one is None else one[0].pull_back(axis, one[1])


def _row(member: Member, one: Map, figure: str, estimate: float, **columns: Any) -> dict[str, Any]:
    return {
        "model": member.name,
        "model_id": member.space.model_id,
        "layer": member.space.layer,
        "ridge_lambda": None if one is None else one[1],
        "figure": figure,
        "estimate": estimate,
        **columns,
    }


class RidgePaths:
    """The paths of one model's first alignment rows, and the lambda of each.

    The lambda is chosen as `fit_alignment` chooses it, unless it is given.
    """

    def __init__(
        self,
        x: Rows,
        row_count: int | None = None,
        *,
        ridge_lambda: float | None = None,
        lambda_policy: str = "held_out",
        seed: int = 0,
    ) -> None:
        self._x, self._ridge_lambda, self._policy = x, ridge_lambda, lambda_policy
        count = len(x) if row_count is None else row_count
        self._parts = {
            name: np.concatenate([part, np.zeros(len(x) - count, dtype=bool)])
            for name, part in parts_of_rows(count, seed=seed).items()
        }
        self._spectra: dict[str, Spectrum] = {}

    def path(self, y: Rows) -> tuple[RidgePath, float]:
        """The path into the space of `y`, whose rows are paired with `x`, and its lambda."""
        chosen = self._ridge_lambda
        if chosen is None:
            if self._policy == "gcv":
                errors = self._path(y, "seen").cross_validated_errors()
            else:
                held_out: Mask = self._parts["held_out"]
                errors = self._path(y, "fitted").held_out_errors(self._x, y, held_out)
            chosen = LAMBDA_GRID[int(np.argmin(errors))]
        return self._path(y, "all"), chosen

    def _path(self, y: Rows, part: str) -> RidgePath:
        path = RidgePath.of_rows(self._x, y, self._parts[part], self._spectra.get(part))
        self._spectra[part] = path.spectrum
        return path
