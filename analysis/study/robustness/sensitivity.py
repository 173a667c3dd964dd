"""Sensitivity analysis: how a study's headline metrics change with one setting at a time.

docs/methods.md has the settings. Only numbers are stored, in `variations`. The activations of a
layer are read once. What a study needs of an alignment, a mapped direction and a pulled-back axis,
a `RidgePath` gives for every lambda without forming weights, and a model's rows are decomposed once
for all references, so a variation costs a few products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import blocks
from axes.analysis.methods.directions import fit_direction, unit
from axes.analysis.methods.maps.ridge import Ridge, RidgePath
from axes.analysis.methods.universal import leave_one_out_axes, universal_axis
from axes.analysis.stats.auroc import Labels, auroc
from axes.analysis.stats.splits import held_out_groups
from axes.analysis.study.definition import MIN_ALIGNMENT_ROWS, StudyDefinition
from axes.analysis.study.fit import Member, on_shared_prompts, read_members
from axes.warehouse.errors import CoverageError, DefinitionError
from axes.warehouse.handle import Warehouse
from axes.warehouse.progress import track
from axes.warehouse.writer import content_key, rows_table

FACTORS = tuple(float(value) for value in np.logspace(-3, 3, 13))
FRACTIONS = (0.3, 0.5, 0.65, 0.8, 0.9, 1.0)
ROW_COUNTS = (100, 300, 1000, 3000, 6000)
DRAW_COUNT = 20


@dataclass(frozen=True)
class Variation:
    """One value of one setting; `is_own`: the study's."""

    setting: str
    value: str
    number: float | None
    is_own: bool


@dataclass(frozen=True)
class Outcome:
    """A headline metric of a model under a variation: columns of `variations`."""

    model: str
    model_id: str
    layer: int
    ridge_lambda: float | None
    figure: str
    estimate: float
    prompt_set: str | None = None
    is_in_sample: bool | None = None


Varied = Iterator[tuple[Variation, list[Outcome]]]


def measure_sensitivity(
    root: Path, study_id: str, definition: StudyDefinition, *, memory_limit: int | None = None
) -> None:
    """Write the variations of a study that are not stored; a setting is one file.

    Raises as `run_study` where rows are missing, and `DefinitionError` for alignments other than
    ridge, which have no lambda to vary.
    """
    if definition.alignment != "ridge":
        raise DefinitionError(
            f"sensitivity is measured of ridge alignments, this study has {definition.alignment}"
        )
    warehouse = Warehouse.open(root, memory_limit=memory_limit)
    names = {setting: content_key(study_id, setting) for setting in _SETTINGS}
    missing = [setting for setting, name in names.items() if not warehouse.has("variations", name)]
    if not missing:
        return
    parameters = {"study_id": study_id, **asdict(definition)}
    with warehouse.run("study sensitivity", parameters, seed=definition.seed) as run:
        group = _read_group(warehouse, definition, max(ROW_COUNTS))
        with track("sensitivity", len(missing), "settings") as advance:
            for setting in missing:
                rows = [
                    {
                        **asdict(outcome),
                        **asdict(variation),
                        "study_id": study_id,
                        "run_id": run.run_id,
                    }
                    for variation, outcomes in _SETTINGS[setting](warehouse, group)
                    for outcome in outcomes
                ]
                warehouse.write("variations", rows_table("variations", rows), name=names[setting])
                run.rows += len(rows)
                advance(1)


class Map(NamedTuple):
    """A model's map into the reference at one lambda; without a path the reference's identity."""

    path: RidgePath | None = None
    ridge_lambda: float = 0.0

    def map(self, direction: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, " d_reference"]:
        """The unit direction in the reference's space."""
        if self.path is None:
            return direction
        return unit(self.path.map(direction, self.ridge_lambda)).vector

    def pull_back(self, axis: Float[np.ndarray, " d_reference"]) -> Float[np.ndarray, " d_model"]:
        """The axis in the model's space, up to a constant of the projections."""
        return axis if self.path is None else self.path.pull_back(axis, self.ridge_lambda)


class _Group:
    """The study's models at one depth, with the alignment rows that all of them have.

    `row_count` rows are shared, of which the first `own_row_count` are the study's.
    """

    def __init__(
        self, definition: StudyDefinition, members: Sequence[Member], own_ids: set[str]
    ) -> None:
        self.definition, self.members = definition, members
        self._benign = on_shared_prompts([member.benign for member in members])
        shared = self._benign[0].prompt_ids
        self.row_count, self.own_row_count = len(shared), len(own_ids.intersection(shared))
        if self.own_row_count < MIN_ALIGNMENT_ROWS:
            raise CoverageError(
                f"the models share {self.own_row_count} alignment prompts, "
                f"{MIN_ALIGNMENT_ROWS} are needed"
            )
        self._procedures: dict[tuple[int, int], Ridge] = {}
        self.reference = definition.models.index(definition.reference)

    @cached_property
    def directions(self) -> list[Float[np.ndarray, " d_model"]]:
        """Of each model, on all prompts that the study fits on."""
        return [self.direction(member) for member in self.members]

    def direction(
        self, member: Member, drawn: Labels | None = None
    ) -> Float[np.ndarray, " d_model"]:
        """Of one model, on those of the prompts."""
        matrix = member.labelled[self.definition.prompts]
        if drawn is not None:
            matrix = matrix.take(np.flatnonzero(drawn))
        method = self.definition.direction
        return fit_direction(method, matrix.x, matrix.labels, matrix.groups).vector

    def maps(self, *, reference: int | None = None, row_count: int | None = None) -> list[Map]:
        """Each model's map, fitted on the first rows with lambda by the study's rule.

        Into the study's reference on the study's rows by default.
        """
        target = self.reference if reference is None else reference
        count = self.own_row_count if row_count is None else row_count
        y = self._benign[target].x
        maps = []
        for index in range(len(self.members)):
            if index == target:
                maps.append(Map())
                continue
            if (index, count) not in self._procedures:
                options, seed = self.definition.alignment_options, self.definition.seed
                x = self._benign[index].x
                self._procedures[index, count] = Ridge(x, options, seed=seed, row_count=count)
            procedure = self._procedures[index, count]
            ridge_lambda = procedure.choose(y).ridge_lambda
            assert ridge_lambda is not None
            maps.append(Map(procedure.path(y, "all"), ridge_lambda))
        return maps


def _read_group(warehouse: Warehouse, definition: StudyDefinition, row_count: int) -> _Group:
    """The models at the definition's depth, with up to so many stored rows of the alignment set."""
    widened = definition
    if row_count > definition.align_rows:
        widened = replace(definition, align_rows=row_count, allow_missing=True)
    own_ids = warehouse.column(
        "select prompt_id from prompts where prompt_set = ? and position < ?",
        [definition.align, definition.align_rows],
    )
    members = read_members(warehouse, widened)
    return _Group(definition, members, set(own_ids))


def _vary_reference(_: Warehouse, group: _Group) -> Varied:
    for index, member in enumerate(group.members):
        variation = Variation("reference", member.name, None, index == group.reference)
        yield variation, _outcomes(group, group.maps(reference=index))


def _vary_lambda(_: Warehouse, group: _Group) -> Varied:
    """The same factor on each model's lambda, which the scale of its activations determines."""
    own = group.maps()
    for factor in FACTORS:
        maps = [each._replace(ridge_lambda=each.ridge_lambda * factor) for each in own]
        variation = Variation("ridge_lambda", f"x {factor:g}", factor, factor == 1.0)
        yield variation, _outcomes(group, maps)


def _vary_depth(warehouse: Warehouse, group: _Group) -> Varied:
    definition, own = group.definition, group.definition.layer_fraction
    fractions = {*FRACTIONS, own}
    if definition.layer_policy != "fraction":
        fractions, own = {*FRACTIONS}, np.nan
        yield Variation("layer_fraction", "chosen", None, True), _outcomes(group, group.maps())
    for fraction in sorted(fractions):
        at_depth = group
        if fraction != own:
            varied = replace(definition, layer_policy="fraction", layer_fraction=fraction)
            at_depth = _read_group(warehouse, varied, definition.align_rows)
        variation = Variation("layer_fraction", f"{fraction:g}", fraction, fraction == own)
        yield variation, _outcomes(at_depth, at_depth.maps())


def _vary_rows(_: Warehouse, group: _Group) -> Varied:
    own = group.own_row_count
    for count in sorted({own, *(count for count in ROW_COUNTS if count <= group.row_count)}):
        variation = Variation("align_rows", str(count), count, count == own)
        yield variation, _outcomes(group, group.maps(row_count=count))


def _vary_prompts(_: Warehouse, group: _Group) -> Varied:
    """Directions of half of the pairs, evaluated on the other half and on all other sets."""
    maps = group.maps()
    for seed in range(DRAW_COUNT):
        unseen = {
            member.name: held_out_groups(matrix.labels, matrix.groups, fraction=0.5, seed=seed)
            for member in group.members
            for matrix in (member.labelled[group.definition.prompts],)
        }
        directions = [group.direction(member, ~unseen[member.name]) for member in group.members]
        outcomes = _outcomes(group, maps, directions, unseen)
        yield Variation("prompts", f"half {seed}", seed, False), outcomes


_SETTINGS: dict[str, Callable[[Warehouse, _Group], Varied]] = {
    "reference": _vary_reference,
    "ridge_lambda": _vary_lambda,
    "layer_fraction": _vary_depth,
    "align_rows": _vary_rows,
    "prompts": _vary_prompts,
}


def _outcomes(
    group: _Group,
    maps: Sequence[Map],
    directions: Sequence[np.ndarray] | None = None,
    unseen: Mapping[str, np.ndarray] | None = None,
) -> list[Outcome]:
    """The headline metrics of every model; `unseen` says which fitted prompts to evaluate on."""
    directions = group.directions if directions is None else directions
    aligned = np.stack(
        [each.map(direction) for each, direction in zip(maps, directions, strict=True)]
    )
    method = group.definition.universal
    universal = universal_axis(aligned, method).vector
    others = leave_one_out_axes(aligned, method) if len(maps) > 1 else []
    outcomes = []
    for index, (member, each) in enumerate(zip(group.members, maps, strict=True)):
        space = member.space
        ridge_lambda = None if each.path is None else each.ridge_lambda
        location = (space.model, space.model_id, space.layer, ridge_lambda)
        axes = {"native": directions[index], "universal": each.pull_back(universal)}
        if others:
            axes["leave_one_out"] = each.pull_back(others[index])
        cosine = float(aligned[index] @ universal)
        outcomes.append(Outcome(*location, "cosine_universal", cosine))
        # Every axis of the model at once: [row, d_model] @ [d_model, axis].
        stacked = np.stack(list(axes.values()), axis=1)
        for prompt_set, matrix in member.labelled.items():
            scores = np.concatenate([block @ stacked for (block,) in blocks(matrix.x)])
            labels, is_fitted = matrix.labels, prompt_set == group.definition.prompts
            if is_fitted and unseen is not None:
                rows = unseen[member.name]
                scores, labels = scores[rows], labels[rows]
            is_in_sample = is_fitted and unseen is None
            outcomes += [
                Outcome(*location, name, auroc(values, labels), prompt_set, is_in_sample)
                for name, values in zip(axes, scores.T, strict=True)
            ]
    return outcomes
