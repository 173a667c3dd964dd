"""A map trained by mini-batch gradient descent: full, of low rank, or with a hidden layer.

Adam on the mean squared error (Kingma and Ba 2015); nothing is penalised, the number of epochs is
chosen by early stopping on held-out rows. `x` is standardised by dimension, so that a few massive
ones do not set the step, and `y` scaled as a whole; both are folded into the map that is returned.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from axes.analysis.activations import blocks, take
from axes.analysis.methods import AlignmentOptions
from axes.analysis.methods.covariance import mean_and_variance
from axes.analysis.methods.maps.affine_map import Alignment, HiddenLayer
from axes.analysis.methods.maps.alignment import Choice, Procedure
from axes.analysis.stats.auroc import Labels
from axes.warehouse.layers import Rows

_BATCH_ROWS, _MAX_EPOCHS, _PATIENCE = 64, 200, 8
# A step moves every weight alike, so what a unit sums over its inputs moves with their number:
# the step of a layer is this over its inputs (Yang and Hu 2021).
_STEP, _MAX_STEP = 0.1, 0.01


class Gradient(Procedure):
    """A trained map; the number of epochs is chosen on held-out rows."""

    def choose(self, y: Rows) -> Choice:
        """The best epoch on held-out rows, once their error has not fallen for eight epochs."""
        model, held_out = self._model(y, "fitted"), self.parts["held_out"]
        best, best_error = 0, model.error(self.x, y, held_out)
        for epoch in range(1, _MAX_EPOCHS + 1):
            model.run_epoch()
            error = model.error(self.x, y, held_out)
            if error < best_error:
                best, best_error = epoch, error
            if epoch - best >= _PATIENCE:
                break
        return Choice(rank=self.options.rank, epochs=best)

    def solve(self, y: Rows, part: str, choice: Choice) -> Alignment:
        """The map trained on a part of the rows for that many epochs; none gives the mean."""
        model = self._model(y, part)
        for _ in range(choice.epochs):
            model.run_epoch()
        return model.alignment()

    def _model(self, y: Rows, part: str) -> _Model:
        return _Model(self.x, y, self.parts[part], self.options, self.seed)


class _Model:
    """The parameters in torch, and the rows that they are trained on."""

    def __init__(
        self, x: Rows, y: Rows, where: Labels, options: AlignmentOptions, seed: int
    ) -> None:
        self._x, self._y, self._rows = x, y, np.flatnonzero(where)
        self._mean_x, variance = mean_and_variance(x, where)
        self._scale_x = np.where(variance > 0, np.sqrt(variance), 1.0)
        self._mean_y, variance = mean_and_variance(y, where)
        self._scale_y = float(np.sqrt(variance.mean())) or 1.0
        self._random = np.random.default_rng(seed)
        width, targets = x.shape[1], y.shape[1]
        self._weights: list[torch.Tensor] = []
        if (rank := options.rank) is None:
            self._weights = [torch.zeros(width, targets)]
        else:
            self._weights = [self._draw(width, rank), torch.zeros(rank, targets)]
        # The map starts at the mean: what is trained last, the output, starts at zero.
        self._hidden: list[torch.Tensor] = []
        if (hidden := options.hidden_width) is not None:
            self._hidden = [
                self._draw(width, hidden),
                torch.zeros(hidden),
                torch.zeros(hidden, targets),
            ]
        self._bias = torch.zeros(targets)
        parameters = [*self._weights, *self._hidden, self._bias]
        for parameter in parameters:
            parameter.requires_grad_()
        self._optimiser = torch.optim.Adam(
            {"params": [parameter], "lr": _learning_rate(parameter)} for parameter in parameters
        )

    def run_epoch(self) -> None:
        """One pass over the rows in a new order."""
        for batch in self._batches():
            rows, targets = self._scaled(*batch)
            self._optimiser.zero_grad()
            (self._forward(rows) - targets).square().mean().backward()
            self._optimiser.step()

    def error(self, x: Rows, y: Rows, where: Labels) -> float:
        """Squared error on other rows, in the scaled units."""
        total = 0.0
        with torch.no_grad():
            for batch in blocks(x, y, where=where):
                rows, targets = self._scaled(*batch)
                total += float((self._forward(rows) - targets).double().square().sum())
        return total

    def alignment(self) -> Alignment:
        """The map in the units of the activations."""
        weights, *rest = (part.detach().double().numpy() for part in self._weights)
        for factor in rest:
            weights = weights @ factor
        weights = weights * self._scale_y / self._scale_x[:, None]
        bias = self._bias.detach().double().numpy() * self._scale_y
        intercept = self._mean_y + bias - self._mean_x @ weights
        return Alignment(weights, intercept, None, self._hidden_layer())

    def _hidden_layer(self) -> HiddenLayer | None:
        if not self._hidden:
            return None
        inner, offset, output = (part.detach().double().numpy() for part in self._hidden)
        inner = inner / self._scale_x[:, None]
        offset = offset - self._mean_x @ inner
        on = np.zeros(len(offset))
        for batch, _ in self._batches():
            on += (batch @ inner + offset > 0).sum(axis=0)
        return HiddenLayer(inner, offset, output * self._scale_y, on / len(self._rows))

    def _forward(self, rows: torch.Tensor) -> torch.Tensor:
        mapped = rows
        for factor in self._weights:
            mapped = mapped @ factor
        if self._hidden:
            inner, offset, output = self._hidden
            mapped = mapped + (rows @ inner + offset).relu() @ output
        return mapped + self._bias

    def _scaled(self, x: np.ndarray, y: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        rows, targets = (x - self._mean_x) / self._scale_x, (y - self._mean_y) / self._scale_y
        return torch.from_numpy(rows).float(), torch.from_numpy(targets).float()

    def _batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = self._random.permutation(self._rows)
        for start in range(0, len(order), _BATCH_ROWS):
            part = np.sort(order[start : start + _BATCH_ROWS])
            yield take(self._x, part)[:], take(self._y, part)[:]

    def _draw(self, width: int, count: int) -> torch.Tensor:
        drawn = self._random.standard_normal((width, count)) / np.sqrt(width)
        return torch.from_numpy(drawn).float()


def _learning_rate(parameter: torch.Tensor) -> float:
    inputs = parameter.shape[0] if parameter.ndim > 1 else 1
    return min(_STEP / inputs, _MAX_STEP)
