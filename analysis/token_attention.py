"""The query of an attention probe, learned from tokens that pass by in blocks.

A prompt's logit is `sum_t softmax_t(z_t q) (z_t v) + b`: the query `q` finds the tokens to read,
the value `v` reads them (arXiv 2601.11516, one head); `z` are tokens in standardised units. Adam
minimises the logistic loss plus a penalty on both. Only the query is kept: what it makes of a
prompt's tokens is one vector, and a direction method fits the value on these vectors
(`--direction logistic` is the probe).
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from axes.analysis.activations import Space, load_matrix, mean, require_classes
from axes.analysis.methods.directions import unit
from axes.analysis.registry import make_axis, registered_directions, write_axes
from axes.analysis.stats.auroc import Labels
from axes.analysis.token_rows import TokenRows
from axes.warehouse.axes import Axis
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import Rows
from axes.warehouse.runs import Run

EPOCHS, BATCH, RATE, PENALTY = 30, 32, 0.02, 1e-3
_DECAYS = np.array([[0.9], [0.999]])


def learn_attention(
    warehouse: Warehouse, run: Run, space: Space, prompt_set: str, *, allow_missing: bool = False
) -> tuple[Space, Axis]:
    """The space `tokens_attention@AXIS` and its query, learned on a labelled set and registered.

    A registered query is not learned again. Raises as `load_matrix` does, and `LabelError`.
    """
    matrix = load_matrix(warehouse, space, prompt_set, allow_missing=allow_missing)
    require_classes(matrix, prompt_set)
    query = make_axis(
        "native",
        "attention_query",
        space,
        lambda: unit(fit_query(cast(TokenRows, matrix.x), matrix.labels)),
        matrix,
        prompt_set,
        label=space.model,
        variant=("query",),
        fitted_model=space.model,
        registered=registered_directions(warehouse, space),
    )
    # Written at once: the rows of the new space are read through it.
    write_axes(warehouse, run, [query])
    return replace(space, pooling=f"{space.pooling}@{query.axis_id}"), query


def fit_query(x: TokenRows, labels: Labels, *, seed: int = 0) -> Float[np.ndarray, " d_model"]:
    """The query in the units of `x`; the tokens are read once for each epoch and twice before.

    It starts at even attention, the value at the difference of the class means. Prompts of a block
    are batched in random order.
    """
    centre, scale = _token_moments(x)
    rows = cast(Rows, x)
    value = (mean(rows, labels) - mean(rows, ~labels)) / scale
    width, random = len(value), np.random.default_rng(seed)
    point = np.concatenate([np.zeros(width), value / (np.linalg.norm(value) or 1.0), [0.0]])
    moments, step = np.zeros((2, len(point))), 0
    for _ in range(EPOCHS):
        for places, spans, tokens in x.blocks():
            order = random.permutation(len(places))
            for batch in np.array_split(order, -(-len(order) // BATCH)):
                z = np.concatenate([tokens[start:end] for start, end in spans[batch]])
                counts = spans[batch, 1] - spans[batch, 0]
                first = counts.cumsum() - counts
                slope = attention_loss(point, (z - centre) / scale, first, labels[places[batch]])[1]
                step += 1
                moments = _DECAYS * moments + (1 - _DECAYS) * np.stack([slope, slope**2])
                drift, size = moments / (1 - _DECAYS**step)
                point = point - RATE * drift / (np.sqrt(size) + 1e-8)
    return point[:width] / scale


def attention_loss(
    point: Float[np.ndarray, " parameter"],
    z: Float[np.ndarray, "token d_model"],
    starts: Int[np.ndarray, " prompt"],
    labels: Labels,
) -> tuple[float, Float[np.ndarray, " parameter"]]:
    """Penalised mean loss of a batch and its slope; `point` is query, value and offset in a row."""
    query, value = point[:-1].reshape(2, -1)
    counts, values, logits = np.diff(starts, append=len(z)), z @ value, z @ query
    powers = np.exp(logits - np.repeat(np.maximum.reduceat(logits, starts), counts))
    weights = powers / np.repeat(np.add.reduceat(powers, starts), counts)
    read = np.add.reduceat(weights * values, starts)
    margins = read + point[-1]
    errors = (expit(margins) - labels) / len(labels)
    # d logit / d query = sum_t w_t (v_t - read) z_t, d logit / d value = sum_t w_t z_t.
    by_token = np.repeat(errors, counts) * weights
    slopes = np.stack([by_token * (values - np.repeat(read, counts)), by_token]) @ z
    loss = np.logaddexp(0.0, np.where(labels, -margins, margins)).mean()
    shrunk = np.append(point[:-1], 0.0)
    slope = np.append(slopes, errors.sum()) + PENALTY * shrunk
    return float(loss + PENALTY / 2 * shrunk @ shrunk), slope


def _token_moments(x: TokenRows) -> Float[np.ndarray, "moment d_model"]:
    """Mean and standard deviation of every dimension over the tokens; 1 where it is constant."""
    centre = mean(cast(Rows, x))
    sums, count = np.zeros((2, len(centre))), 0
    for _, spans, tokens in x.blocks():
        centred = np.concatenate([tokens[start:end] for start, end in spans]) - centre
        sums += centred.sum(axis=0), np.square(centred).sum(axis=0)
        count += len(centred)
    moved, squares = sums / count
    variance = squares - np.square(moved)
    return np.stack([centre + moved, np.sqrt(np.where(variance > 0, variance, 1.0))])
