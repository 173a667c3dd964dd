"""Synthetic model groups whose truth is known: a planted shared axis, nothing, or one fault.

A prompt is a latent vector; a model shows it through a random rotation of its own, with noise.
Prompts of the positive class are moved along one latent direction, so every model's own direction
is the image of that one. `make_group` keeps a group in memory, hundreds in a minute, and knows the
exact AUROC of any axis; `make_world` writes one to a warehouse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
from scipy.stats import norm

from axes.analysis.study.definition import StudyDefinition
from axes.warehouse.storage.store import store_at
from axes.warehouse.writer import content_key, rows_table, vector_array, write_rows
from tests.rows import full

LATENT = 12
BENIGN = "benign"

# The share of positive prompts that carry the mean of a model with outliers, and how far.
_OUTLIER_SHARE, _OUTLIER_REACH = 0.15, 15.0
_MASSIVE_DIMENSIONS, _MASSIVE_SIZE = 2, 60.0
# How faintly a model shows the axis beside everything else.
_FAINT = 0.1
# Of the prompts of a class so many have the surface that goes with it.
_SURFACE_SHARE = 0.8
SURFACES = {
    "word": (lambda words: f"{words} indeed", lambda words: words),
    "word pair": (lambda words: f"{words} red blue", lambda words: f"{words} blue red"),
    "capitals": (str.upper, str),
    "punctuation": (lambda words: f"{words}!!", lambda words: words),
    "length": (lambda words: f"{words} {words} {words}", lambda words: words),
}


@dataclass(frozen=True)
class Group:
    """What was planted, and the prompts as every model shows them.

    `maps` are `[latent, d_model]`, `gaps` the latent difference of the class means, by model;
    `labels`, `texts`, `pairs` by prompt set; `latents` by model and set, `[row, latent]`.
    """

    axis: np.ndarray
    maps: dict[str, np.ndarray]
    gaps: dict[str, np.ndarray]
    noise: dict[str, float]
    labels: dict[str, np.ndarray | None]
    texts: dict[str, list[str]]
    sources: dict[str, list[str]]
    pairs: dict[str, np.ndarray]
    latents: dict[str, dict[str, np.ndarray]]
    topic: float
    massive: str | None
    seed: int

    def activations(self, model: str, prompt_set: str, layer: int = 0) -> np.ndarray:
        """`[row, d_model]`: the same vectors at every layer, plus noise of its own."""
        random = np.random.default_rng(
            [self.seed, layer, *(crc32(name.encode()) for name in (model, prompt_set))]
        )
        shown = self.latents[model][prompt_set] @ self.maps[model]
        shown = shown + self.noise[model] * random.standard_normal(shown.shape)
        if model == self.massive:
            swing = 1 + 0.3 * random.standard_normal((len(shown), _MASSIVE_DIMENSIONS))
            shown[:, :_MASSIVE_DIMENSIONS] += _MASSIVE_SIZE * swing
        return shown

    def planted(self, model: str) -> np.ndarray:
        """The unit image of the planted axis in a model's space."""
        image = self.axis @ self.maps[model]
        return image / np.linalg.norm(image)

    def difference(self, model: str) -> np.ndarray:
        """The class means' difference that infinitely many prompts would give, without faults."""
        return self.gaps[model] @ self.maps[model]

    def auroc(self, model: str, vector: np.ndarray) -> float:
        """The exact AUROC of projections `x @ vector` on new prompts, without faults."""
        return float(norm.cdf(self._distance(model, vector) / np.sqrt(2)))

    def tpr_at_fpr(self, model: str, vector: np.ndarray, rate: float) -> float:
        """The exact true-positive rate at a false-positive rate, likewise."""
        return float(norm.cdf(self._distance(model, vector) - norm.isf(rate)))

    def _distance(self, model: str, vector: np.ndarray) -> float:
        """Distance of the class means along `vector` in standard deviations.

        Both classes are normal along it, with one spread.
        """
        seen = self.maps[model] @ vector
        variance = (1 + self.topic**2) * seen @ seen + self.noise[model] ** 2 * vector @ vector
        return float(self.difference(model) @ vector / np.sqrt(variance))


@dataclass(frozen=True)
class World(Group):
    """A group written to the warehouse at `root`."""

    root: Path = Path()


def make_group(
    widths: dict[str, int],
    *,
    strength: float = 3.0,
    noise: float | dict[str, float] = 0.05,
    rotation: float = 0.0,
    confound: float = 0.0,
    topic: float = 0.0,
    flipped: str | Sequence[str] = (),
    surface: str | None = None,
    norm: float = 0.0,
    mislabelled: float = 0.0,
    is_benign_flat: bool = False,
    massive: str | None = None,
    outliers: str | None = None,
    broken: str | None = None,
    turned: str | None = None,
    faint: str | None = None,
    shifted: str | None = None,
    unrelated: str | Sequence[str] = (),
    relabelled: str | None = None,
    labelled: dict[str, int] | None = None,
    benign_count: int = 400,
    benign: str = BENIGN,
    seed: int = 0,
) -> Group:
    """A group of models on labelled sets (`labelled`: set -> matched pairs) and a benign one.

    `strength`: distance of the classes in units of the spread within one. `rotation`: angle between
    each model's own axis and the shared one. `confound`: the source of a prompt determines its
    label, moves its activations so far along another direction, and shows in its words. `surface`:
    the same of one of `SURFACES`, which goes with the label of most prompts only. `norm`: so much
    longer are the activations of most positive prompts. `topic`: standard deviation of what the
    prompts of a pair share. `mislabelled`: share of the prompts with the other label.
    `is_benign_flat`: benign prompts do not differ along the axis.

    Faults, each in one model: `flipped` shows labelled prompts mirrored along the axis; `massive`
    has two dimensions of huge values; `outliers` shows most positive prompts a little the wrong way
    and a few very far the right way; `broken` shows labelled prompts through another map than
    benign ones; `turned` parts the classes elsewhere in every labelled set but the first; `faint`
    shows the axis weakly beside everything else; `shifted` shows labelled prompts moved along the
    axis, both classes alike; `unrelated` shows benign prompts that have nothing to do with those of
    the others. `relabelled` is a set whose labels are swapped.
    """
    random = np.random.default_rng(seed)
    axis = _unit(random.standard_normal(LATENT))
    flipped, unrelated = ((n,) if isinstance(n, str) else n for n in (flipped, unrelated))
    # Draws of its own, so that worlds without these stay what they were.
    extra = np.random.default_rng([seed, 1])
    maps = {
        model: np.linalg.qr(random.standard_normal((max(width, LATENT), LATENT)))[0].T[:, :width]
        for model, width in widths.items()
    }
    sets: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        benign: (random.standard_normal((benign_count, LATENT)), None)
    }
    for prompt_set, pairs in (labelled or {"labelled": 300, "other": 80}).items():
        labels = np.arange(2 * pairs) % 2 == 0
        latent = random.standard_normal((2 * pairs, LATENT))
        if topic:
            latent += np.repeat(topic * random.standard_normal((pairs, LATENT)), 2, axis=0)
        sets[prompt_set] = (latent, labels)
    if is_benign_flat:
        spread = sets[benign][0]
        sets[benign] = (spread - np.outer(spread @ axis, axis), None)
    shows = {
        name: labels ^ (extra.random(len(labels)) >= _SURFACE_SHARE)
        for name, (_, labels) in sets.items()
        if labels is not None
    }
    middle = 3 * _unit(extra.standard_normal(LATENT)) if norm else np.zeros(LATENT)
    source_axis = _orthogonal(random.standard_normal(LATENT), axis)
    first = next(name for name, (_, labels) in sets.items() if labels is not None)
    gaps, latents = {}, {}
    for model in widths:
        own = _orthogonal(random.standard_normal(LATENT), axis)
        if model == faint:
            maps[model] = maps[model] - (1 - _FAINT) * np.outer(axis, axis @ maps[model])
        angle = np.pi / 4 if model == turned else rotation
        gaps[model] = strength * (np.cos(angle) * axis + np.sin(angle) * own)
        if surface is None:
            gaps[model] = gaps[model] + confound * source_axis
        latents[model] = {benign: sets[benign][0]}
        if model in unrelated:
            latents[model] = {benign: random.standard_normal(sets[benign][0].shape)}
        for prompt_set, (latent, labels) in sets.items():
            if labels is None:
                continue
            shown = latent + (labels - 0.5)[:, None] * gaps[model]
            if surface is not None:
                shown = shown + np.outer(shows[prompt_set] - 0.5, confound * source_axis)
            if norm:
                shown = (shown + middle) * (1 + norm * shows[prompt_set])[:, None]
            if model in flipped:
                shown = shown - 2 * np.outer(shown @ axis, axis)
            if model == outliers:
                shown = _carried_by_few(latent, labels, axis, own, strength)
            if model == broken:
                shown = shown @ _quarter_turn(axis, own)
            if model == turned and prompt_set != first:
                shown = latent + np.outer(labels - 0.5, strength * (own - 0.5 * axis))
            if model == shifted:
                shown = shown + 2 * strength * axis
            latents[model][prompt_set] = shown
    return Group(
        axis=axis,
        maps=maps,
        gaps=gaps,
        noise={model: noise[model] if isinstance(noise, dict) else noise for model in widths},
        labels={
            name: labels
            if labels is None
            else labels ^ (name == relabelled) ^ (extra.random(len(labels)) < mislabelled)
            for name, (_, labels) in sets.items()
        },
        texts={
            name: _surfaces(name, surface, shows[name])
            if surface and name in shows
            else _texts(name, len(latent), labels if confound else None, random)
            for name, (latent, labels) in sets.items()
        },
        sources={
            name: _sources(len(latent), labels if confound and not surface else None)
            for name, (latent, labels) in sets.items()
        },
        pairs={name: np.arange(len(latent)) // 2 for name, (latent, _) in sets.items()},
        latents=latents,
        topic=topic,
        massive=massive,
        seed=seed,
    )


def define_study(models: Sequence[str] | dict[str, int], **options: Any) -> StudyDefinition:
    """The study of a world: labelled and benign prompts; the last model is the reference."""
    names = tuple(models)
    usual = {"reference": names[-1], "prompts": "labelled", "align": BENIGN}
    return StudyDefinition(models=names, **{**usual, **options})


def make_world(root: Path, *, widths: dict[str, int], layer_count: int = 3, **planted) -> World:
    """Write a group of `make_group` as prompts, labels, models and activations."""
    group = make_group(widths, **planted)
    store_at(root).init()
    for prompt_set, labels in group.labels.items():
        write_prompt_set(
            root,
            prompt_set,
            len(group.texts[prompt_set]),
            labels,
            texts=group.texts[prompt_set],
            sources=group.sources[prompt_set],
        )
    for model, width in widths.items():
        write_model(root, model, width, layer_count)
        for prompt_set in group.labels:
            for layer in range(layer_count):
                shown = group.activations(model, prompt_set, layer)
                write_activations(root, model, layer, prompt_set, shown)
    return World(**vars(group), root=root)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _orthogonal(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """The unit vector in the direction of what `vector` has besides `axis`."""
    return _unit(vector - (vector @ axis) * axis)


def _carried_by_few(
    latent: np.ndarray, labels: np.ndarray, axis: np.ndarray, own: np.ndarray, strength: float
) -> np.ndarray:
    """The bulk of the positive class told apart along `own` and moved against `axis`.

    A few of its rows lie so far along `axis` that the class's mean does too.
    """
    far = np.zeros(len(labels), dtype=bool)
    far[np.flatnonzero(labels)[: round(_OUTLIER_SHARE * labels.sum())]] = True
    along = np.where(far, _OUTLIER_REACH * strength, np.where(labels, -0.9 * strength, 0.0))
    return latent + np.outer(along, axis) + np.outer(np.where(labels, 1.5 * strength, 0.0), own)


def _quarter_turn(axis: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The rotation `[latent, latent]` that takes rows along `axis` to rows along `own`."""
    plane = np.outer(axis, axis) + np.outer(own, own)
    return np.eye(len(axis)) - plane + np.outer(axis, own) - np.outer(own, axis)


def _sources(count: int, labels: np.ndarray | None) -> list[str]:
    if labels is None:
        return ["north"] * count
    return ["north" if is_positive else "south" for is_positive in labels]


def _texts(
    prompt_set: str, count: int, labels: np.ndarray | None, random: np.random.Generator
) -> list[str]:
    """Texts with a word of their source, where sources tell the labels.

    Rows are numbered by set: a bare number would carry its row's label from one set to another.
    """
    texts = [f"{prompt_set} text {prompt_set}{row}" for row in range(count)]
    if labels is None:
        return texts
    words = random.integers(20, size=count)
    return [
        f"{text} {source}{word}"
        for text, source, word in zip(texts, _sources(count, labels), words, strict=True)
    ]


def _surfaces(prompt_set: str, surface: str, shows: np.ndarray) -> list[str]:
    with_it, without = SURFACES[surface]
    return [
        (with_it if is_shown else without)(f"{prompt_set} text {prompt_set}{row:04d}")
        for row, is_shown in enumerate(shows)
    ]


def prompt_ids(prompt_set: str, count: int) -> list[str]:
    return [f"{prompt_set}-{row:05d}" for row in range(count)]


def write_prompt_set(
    root: Path,
    prompt_set: str,
    count: int,
    labels: np.ndarray | None,
    *,
    texts: list[str] | None = None,
    sources: list[str] | None = None,
    **columns: list[str],
) -> None:
    """`count` prompts in matched pairs, labelled where `labels` is given; further `columns`."""
    described = [
        {
            "prompt_id": prompt_id,
            "position": row,
            "text": texts[row] if texts else f"{prompt_set} text {row}",
            "source": sources[row] if sources else None,
            "pair_id": f"{prompt_set}-{row // 2}",
            "run_id": "world",
            **{name: values[row] for name, values in columns.items()},
        }
        for row, prompt_id in enumerate(prompt_ids(prompt_set, count))
    ]
    write_rows(root, "prompts", rows_table("prompts", described), name="set", partition=prompt_set)
    if labels is not None:
        marked = [
            {
                "prompt_set": prompt_set,
                "prompt_id": row["prompt_id"],
                "label": "unsafe" if is_positive else "safe",
                "is_positive": bool(is_positive),
                "run_id": "world",
            }
            for row, is_positive in zip(described, labels, strict=True)
        ]
        table = rows_table("labels", marked)
        write_rows(root, "labels", table, name=prompt_set, partition="dataset")


def write_model(root: Path, model: str, width: int, layer_count: int) -> None:
    sizes = {"d_model": width, "layer_count": layer_count, "parameter_count": 1}
    described = {"source": "world", "architecture": "llama", "dtype": "float32", **sizes}
    row = {"model_id": f"id-{model}", "model": model, **described, "run_id": "world"}
    write_rows(root, "models", rows_table("models", [full("models", row)]), name=row["model_id"])


def write_activations(
    root: Path, model: str, layer: int, prompt_set: str, matrix: np.ndarray
) -> None:
    space = {"site": "resid_post", "pooling": "last5_mean", "template": "raw"}
    pooled = {"token_count": 5, "pooled_end": 5, "pooled_tokens": list("abcde")}
    common = {"model_id": f"id-{model}", "layer": layer, **space, **pooled, "run_id": "world"}
    filled = full("activations", common)
    for name in ("model", "vector", "norm"):
        del filled[name]
    described = [
        {**filled, "prompt_id": prompt_id} for prompt_id in prompt_ids(prompt_set, len(matrix))
    ]
    norms = np.linalg.norm(matrix.astype(np.float32), axis=1).astype(np.float32)
    table = rows_table("activations", described, vector=vector_array(matrix), norm=pa.array(norms))
    name = content_key(model, layer, prompt_set)
    write_rows(root, "activations", table, name=name, partition=model)


def make_concepts(
    root: Path,
    *,
    widths: dict[str, int],
    axes: dict[str, np.ndarray],
    pairs: int = 100,
    strength: float = 2.0,
    topic: float = 1.0,
    layer_count: int = 1,
    benign_count: int = 200,
    seed: int = 0,
) -> None:
    """Models that show several concepts, each a set that is moved along one of `axes` `[LATENT]`.

    `strength` and `topic` as for `make_group`; every layer has the same rows.
    """
    random = np.random.default_rng(seed)
    maps = {
        model: np.linalg.qr(random.standard_normal((width, LATENT)))[0].T
        for model, width in widths.items()
    }
    sets: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        BENIGN: (2 * random.standard_normal((benign_count, LATENT)), None)
    }
    for name, axis in axes.items():
        labels = np.arange(2 * pairs) % 2 == 0
        latent = random.standard_normal((2 * pairs, LATENT))
        latent += np.repeat(topic * random.standard_normal((pairs, LATENT)), 2, axis=0)
        sets[name] = (latent + np.outer(labels - 0.5, strength * axis), labels)
    store_at(root).init()
    for name, (latent, labels) in sets.items():
        write_prompt_set(root, name, len(latent), labels)
    for model, width in widths.items():
        write_model(root, model, width, layer_count)
        for name, (latent, _) in sets.items():
            for layer in range(layer_count):
                write_activations(root, model, layer, name, latent @ maps[model])


def kway_accuracy(count: int, distance: float) -> float:
    """Of `count` axes at right angles: how often the one moved along by so many spreads is first.

    The integral of phi(t - distance) Phi(t)^(count - 1).
    """
    grid = np.linspace(-8, 8 + distance, 4001)
    density = norm.pdf(grid - distance) * norm.cdf(grid) ** (count - 1)
    return float(np.trapezoid(density, grid))
