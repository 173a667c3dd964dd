"""Variances by dimension, and covariances that can be inverted.

A covariance is shrunk towards a sphere by as much as the rows call for.

The intensity is Ledoit and Wolf's (2004), from the variance of the rows' products about their
mean; neither it nor the covariance looks at labels, so one decomposition serves every labelling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import blocks, mean
from axes.analysis.stats.auroc import Labels
from axes.warehouse.layers import Rows


@dataclass(frozen=True)
class Covariance:
    """`vectors diag(values) vectors' + floor I`, about `mean`; `shrinkage` is the intensity."""

    mean: Float[np.ndarray, " d_model"]
    values: Float[np.ndarray, " component"]
    vectors: Float[np.ndarray, "d_model component"]
    floor: float
    shrinkage: float

    def solve(self, vector: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, " d_model"]:
        """The inverse times a vector."""
        inside = self.vectors.T @ vector
        rest = (vector - self.vectors @ inside) / self.floor if self.floor else 0.0
        return self.vectors @ (inside / (self.values + self.floor)) + rest


def mean_and_variance(
    x: Rows, where: Labels | None = None
) -> tuple[Float[np.ndarray, " d_model"], Float[np.ndarray, " d_model"]]:
    """Mean and variance of every dimension over the rows, in float64."""
    centre, total, count = mean(x, where), np.zeros(x.shape[1]), 0
    for (block,) in blocks(x, where=where):
        total += np.square(block - centre).sum(axis=0)
        count += len(block)
    return centre, total / count


def shrunk_covariance(x: Rows, where: Labels | None = None) -> Covariance:
    """The covariance of the rows about their mean, shrunk by Ledoit and Wolf's intensity.

    >>> rows = np.random.default_rng(0).standard_normal((50, 20))
    >>> 0.5 < shrunk_covariance(rows).shrinkage < 1
    True
    """
    centre, width = mean(x, where), x.shape[1]
    count = len(x) if where is None else int(where.sum())
    fourth = 0.0
    if count < width:
        centred = np.concatenate([block - centre for (block,) in blocks(x, where=where)])
        fourth = float(np.square(np.square(centred).sum(axis=1)).sum())
        values, rotation = np.linalg.eigh(centred @ centred.T / count)
        # About their mean, n rows vary along n - 1 dimensions.
        values, rotation = values[1:].clip(min=0.0), rotation[:, 1:]
        is_positive = values > values.max(initial=0.0) * np.finfo(float).eps * count
        values, rotation = values[is_positive], rotation[:, is_positive]
        vectors = centred.T @ (rotation / np.sqrt(values * count))
    else:
        products = np.zeros((width, width))
        for (block,) in blocks(x, where=where):
            centred = block - centre
            products += centred.T @ centred
            fourth += float(np.square(np.square(centred).sum(axis=1)).sum())
        values, vectors = np.linalg.eigh(products / count)
        values = values.clip(min=0.0)
    size, power = float(values.sum()) / width, float(np.square(values).sum())
    variance = power / width - size**2
    noise = (fourth / count - power) / count / width
    shrinkage = min(max(noise / variance, 0.0), 1.0) if variance > 0 else 1.0
    return Covariance(centre, (1 - shrinkage) * values, vectors, shrinkage * size, shrinkage)
