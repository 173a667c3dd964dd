"""`axes diff`: two versions of a model on the same prompts, by the differences of activations.

The versions have one width and one number of layers: base and tuned, with an adapter and without,
two dtypes, two templates. A difference is the second's activation less the first's. Its size is
evaluated at every layer; at one layer its mean and its first principal components become axes, and
its projection on every registered axis of that layer says what moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from axes.analysis.activations import Matrix, Space, find_space, load_matrix
from axes.analysis.methods.directions import Direction, cosine, unit
from axes.analysis.registry import Axis, write_axes
from axes.analysis.stats.auroc import Estimate, Groups
from axes.analysis.study.evaluations import Evaluation, evaluate_once
from axes.analysis.study.fit import on_shared_prompts
from axes.warehouse.axes import read_axes
from axes.warehouse.errors import CoverageError, ModelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.progress import track
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key

# Raised whenever the rows of unchanged inputs would change.
_VERSION = 1
_COMPONENTS = 3
_Z = float(norm.isf(0.025))


@dataclass(frozen=True)
class DifferenceDefinition:
    """What is compared: two models by name (NAME@ID where versions differ), and their prompts.

    `other_template` is the second's, if not that of the first; `layer_fraction` is the depth of the
    layer whose differences become axes.
    """

    first: str
    second: str
    prompts: str
    other_template: str | None = None
    layer_fraction: float = 0.8
    site: str = "resid_post"
    pooling: str = "last5_mean"
    template: str = "raw"
    seed: int = 0
    allow_missing: bool = False


@dataclass(frozen=True)
class PromptDifference:
    """How far a prompt moved at a layer: norm, share of the first's norm, part along the mean."""

    prompt_id: str
    text: str
    norm: float
    relative_norm: float
    along_mean: float
    cosine: float


def compare_models(warehouse: Warehouse, definition: DifferenceDefinition) -> str:
    """Evaluate the differences of two models; the id of the rows in `evaluations`.

    Stored rows are not computed again. Raises `ModelError` for one and the same model version and
    template or for other widths, `CoverageError` where rows are missing.
    """
    spaces = _find_spaces(warehouse, definition)
    matrices = _read(warehouse, definition, spaces)
    keys = [[*space.key, space.layer, space.layer_count] for space in spaces]
    study_id = content_key(
        "diff", _VERSION, asdict(definition), keys, [each.row_set_hash for each in matrices]
    )

    def compute(run: Run) -> list[Evaluation]:
        rows = list(_layer_rows(warehouse, definition, spaces))
        axes = _axes(definition, spaces, *matrices)
        write_axes(warehouse, run, axes)
        rows += _component_rows(axes, *matrices)
        rows += _moved_rows(warehouse, spaces, axes[0], *matrices)
        first, second = map(_label, spaces)
        return [
            replace(
                row,
                model=spaces[1].model,
                model_id=spaces[1].model_id,
                layer=spaces[1].layer if row.layer is None else row.layer,
                prompt_set=definition.prompts,
                fitted_on=first,
                judged_on=second,
            )
            for row in rows
        ]

    evaluate_once(warehouse, "diff", study_id, asdict(definition), compute)
    return study_id


def moved_prompts(warehouse: Warehouse, definition: DifferenceDefinition) -> list[PromptDifference]:
    """Every prompt's difference at the layer of the axes, the largest norm first."""
    first, second = _read(warehouse, definition, _find_spaces(warehouse, definition))
    x, moved = _float(first), _float(second) - _float(first)
    sizes, mean = np.linalg.norm(moved, axis=1), _mean_direction(moved).vector
    ids, texts = first.prompt_ids, first.texts.to_pylist()
    return [
        PromptDifference(
            ids[row],
            texts[row],
            float(sizes[row]),
            float(sizes[row] / np.linalg.norm(x[row])),
            float(moved[row] @ mean),
            cosine(x[row], x[row] + moved[row]),
        )
        for row in np.argsort(-sizes, kind="stable")
    ]


def _find_spaces(warehouse: Warehouse, definition: DifferenceDefinition) -> tuple[Space, Space]:
    """Both spaces at the layer of the axes."""
    find = partial(find_space, warehouse, site=definition.site, pooling=definition.pooling)
    first = find(definition.first, template=definition.template)
    second = find(definition.second, template=definition.other_template or definition.template)
    if first.key == second.key:
        raise ModelError(f"{_label(first)} is compared with itself: give another version or --to")
    shapes = [(space.d_model, space.layer_count) for space in (first, second)]
    if shapes[0] != shapes[1]:
        raise ModelError(
            f"{first.model} has {shapes[0][0]} dimensions and {shapes[0][1]} layers, "
            f"{second.model} {shapes[1][0]} and {shapes[1][1]}: only versions of one model can be "
            "subtracted"
        )
    fraction = definition.layer_fraction
    return first.at_fraction(fraction), second.at_fraction(fraction)


def _label(space: Space) -> str:
    """The model version as the rows name it, with its template unless that is raw."""
    name = f"{space.model}@{space.model_id[:8]}"
    return name if space.template == "raw" else f"{name} {space.template}"


def _read(
    warehouse: Warehouse, definition: DifferenceDefinition, spaces: Sequence[Space]
) -> tuple[Matrix, Matrix]:
    """The same prompts in both."""
    prompts, allow = definition.prompts, definition.allow_missing
    first, second = on_shared_prompts(
        [load_matrix(warehouse, space, prompts, allow_missing=allow) for space in spaces]
    )
    if len(first.prompt_ids) < 2:
        raise CoverageError(f"both models have {len(first.prompt_ids)} prompts of {prompts}")
    return first, second


def _layer_rows(
    warehouse: Warehouse, definition: DifferenceDefinition, spaces: Sequence[Space]
) -> Iterator[Evaluation]:
    """Means over prompts of the size of the difference, at every layer."""
    with track("diff", spaces[0].layer_count, "layers") as advance:
        for layer in range(spaces[0].layer_count):
            first, second = _read(warehouse, definition, [space.at(layer) for space in spaces])
            x, y = _float(first), _float(second)
            norms, sizes = np.linalg.norm(x, axis=1), np.linalg.norm(y - x, axis=1)
            cosines = np.einsum("rd,rd->r", x, y) / (norms * np.linalg.norm(y, axis=1))
            estimates = {
                "difference_norm": _mean(sizes, first.groups),
                "difference_relative_norm": _mean(sizes / norms, first.groups),
                "difference_cosine": _mean(cosines, first.groups),
                "difference_mean_share": Estimate(_share(y - x)),
            }
            for metric, estimate in estimates.items():
                yield Evaluation.of("difference", metric, estimate, layer=layer)
            advance(1)


def _mean(values: Float[np.ndarray, " row"], groups: Groups) -> Estimate:
    """The mean with a 95 % interval, whole groups independent."""
    mean, group = values.mean(), np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(group, weights=values - mean)
    error = np.sqrt(np.square(sums).sum() * len(sums) / max(len(sums) - 1, 1)) / len(values)
    return Estimate(float(mean), float(mean - _Z * error), float(mean + _Z * error))


def _share(moved: Float[np.ndarray, "row d"]) -> float:
    """How much of the squared differences their mean makes: 1 where all prompts move alike."""
    total = np.square(moved).sum(axis=1).mean()
    return float(np.square(moved.mean(axis=0)).sum() / total) if total else 0.0


def _mean_direction(moved: Float[np.ndarray, "row d"]) -> Direction:
    if not moved.any():
        raise CoverageError("both models have the same activations at this layer: nothing moved")
    return unit(moved.mean(axis=0))


def _axes(
    definition: DifferenceDefinition, spaces: Sequence[Space], first: Matrix, second: Matrix
) -> list[Axis]:
    """The mean difference and the components of what is left, in the second model's space.

    The sign of a component is that of its largest coordinate. The name says what it is from.
    """
    source, space = spaces
    versions = zip(
        (source.model, source.template, source.model_id[:8]),
        (space.model, space.template, space.model_id[:8]),
        strict=True,
    )
    told = next(mine for mine, theirs in versions if mine != theirs)
    moved = _float(second) - _float(first)
    directions = {"mean": _mean_direction(moved)}
    right = np.linalg.svd(moved - moved.mean(axis=0), full_matrices=False)[2]
    for index, vector in enumerate(right[:_COMPONENTS], 1):
        directions[f"pca-{index}"] = unit(vector * np.sign(vector[np.abs(vector).argmax()]))
    return [
        Axis(
            axis_id=content_key("difference", _VERSION, asdict(definition), space.key, method),
            name=f"difference/{space.model}/{space.layer}/{definition.prompts}/{method}-from-{told}",
            kind="difference",
            method=method,
            space=space,
            vector=direction.vector.astype(np.float32).astype(np.float64),
            raw_norm=direction.raw_norm,
            prompt_set=definition.prompts,
            positive_count=len(moved),
            negative_count=len(moved),
            row_set_hash=second.row_set_hash,
            query=second.query,
            parameters="{}",
            fitted_model=space.model,
        )
        for method, direction in directions.items()
    ]


def _component_rows(axes: Sequence[Axis], first: Matrix, second: Matrix) -> Iterator[Evaluation]:
    """Share of the squared differences along each axis."""
    moved = _float(second) - _float(first)
    for component, axis in enumerate(axes):
        share = np.square(moved @ axis.vector).sum() / np.square(moved).sum()
        estimate = Estimate(float(share))
        yield Evaluation.of(
            "difference", "difference_axis_share", estimate, axis=axis, component=component
        )


def _moved_rows(
    warehouse: Warehouse, spaces: Sequence[Space], mean: Axis, first: Matrix, second: Matrix
) -> Iterator[Evaluation]:
    """How far the prompts moved along every axis registered in either space at this layer.

    In standard deviations of the first model's projections. The p-value is that of the cosine with
    the mean difference, against random directions.
    """
    space, other = spaces
    axis_ids = warehouse.column(
        "select axis_id from axes where kind != 'difference' and space_model_id in (?, ?) "
        "and layer = ? and site = ? and pooling = ? order by axis_id",
        [space.model_id, other.model_id, space.layer, space.site, space.pooling],
    )
    x, moved = _float(first), _float(second) - _float(first)
    for component, axis in enumerate(read_axes(warehouse, axis_ids) if axis_ids else ()):
        along, deviation = moved @ axis.vector, float((x @ axis.vector).std())
        along_mean = cosine(axis.vector, mean.vector)
        p_value = float(2 * norm.sf(abs(along_mean) * np.sqrt(len(mean.vector))))
        row = partial(Evaluation.of, "registered_axis", axis=axis, component=component)
        if deviation > 0:
            yield row("moved", _mean(along / deviation, first.groups))
        yield row("moved_cosine", Estimate(along_mean, p_value=p_value))


def _float(matrix: Matrix) -> Float[np.ndarray, "row d"]:
    return np.asarray(matrix.x[:], dtype=np.float64)
