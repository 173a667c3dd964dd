"""Monitor the projection of each token on an axis while a model generates, in any `generate` call.

One product per token: the block's output at the new position with one vector of the model's space
(an `AxisReadout` holds a universal axis pulled back through the alignment). The completion does not
change, unless a row is to stop where the calibrated probability passes a bound.

    monitor = Monitor(model.model.layers[14], vector, constant, on_reading=print)
    with monitor.watching():
        model.generate(**inputs, stopping_criteria=[monitor])
        pipe("Name a river.", logits_processor=[monitor.logits_processor()])

Rows may be many and padded on the left, greedy or sampled; beam search, which exchanges rows, is
not supported. A stopping criterion reads a token when the next one is chosen, so a row that stops
has one token more than the one that stopped it; a logits processor reads it before. The last token,
which `generate` never runs, has no projection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from axes.ingest.forward.recording import Point, record
from axes.ingest.generation.generate import end_ids
from axes.ingest.models.load import LoadedModel
from axes.warehouse.axes import AxisReadout
from axes.warehouse.errors import AxisError
from axes.warehouse.layers import TokenPooling
from axes.warehouse.names import RESID_POST

# Tokens whose mean is compared with the calibration: prompts are calibrated as `last5_mean`.
WINDOW = 5

Probability = Callable[[Float[np.ndarray, " row"]], Float[np.ndarray, " row"]]


@dataclass(frozen=True)
class Reading:
    """One token of one row; `smoothed` is the mean projection of the last `WINDOW` of its tokens.

    On an axis of a token pooling `smoothed` is the score of all tokens of the row so far.

    `probability` is that of `smoothed`, None without a calibration. All three are None for the last
    token, which was chosen and not run.
    """

    row: int
    step: int
    token_id: int
    projection: float | None = None
    smoothed: float | None = None
    probability: float | None = None


class Monitor(StoppingCriteria):
    """A stopping criterion that reads one block; give it to `generate` inside of `watching()`.

    `vector` and `constant` give the projection; `pooling`, of tokens, what `smoothed` is in the
    place of a mean; `probability` maps smoothed projections to 0 ... 1 (`Calibration.probability`),
    a row stops at the first one at or above `stop_above`. After one of `end_ids` a row's tokens are
    padding and are not read. `on_reading` gets each reading at once; `readings` has all.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        vector: Float[np.ndarray, " d_model"],
        constant: float = 0.0,
        *,
        probability: Probability | None = None,
        pooling: TokenPooling | None = None,
        stop_above: float | None = None,
        end_ids: Sequence[int] = (),
        on_reading: Callable[[Reading], None] | None = None,
    ) -> None:
        if stop_above is not None and probability is None:
            raise ValueError("stop_above is a probability: it needs a calibration")
        self._module, self._vector, self._constant = module, vector, constant
        self._probability, self._stop_above = probability, stop_above
        self._pooling = pooling
        self._end_ids, self._on_reading = frozenset(end_ids), on_reading
        self._on_device: Tensor | None = None
        self._latest: Tensor | None = None
        self._start()

    @classmethod
    def of(cls, loaded: LoadedModel, readout: AxisReadout, **options: Any) -> Monitor:
        """A monitor of a loaded model on a registered axis (see `read_axis_readout`).

        `options` are `probability`, `stop_above` and `on_reading`. Raises `AxisError` for an axis
        of `tokens_attention`, which would need a second projection.
        """
        options["pooling"] = pooling = TokenPooling.find(readout.pooling)
        if pooling is not None and pooling.kind == "tokens_attention":
            raise AxisError(
                f"{readout.axis_name} weights tokens by a second axis, which a monitor does not "
                "read: choose an axis of tokens_max or tokens_rolling_max"
            )
        block, ends = loaded.blocks[readout.layer], end_ids(loaded)
        return cls(block, readout.vector, readout.offset, end_ids=ends, **options)

    def _start(self) -> None:
        self.readings: list[Reading] = []
        self.prompt_projections: list[float] = []
        self._ran: Tensor | None = None
        self._is_passed = torch.zeros(0, dtype=torch.bool)
        self._prompt_width = 0
        self._recent: list[deque[float]] = []
        self._is_over: list[bool] = []

    @contextmanager
    def watching(self) -> Iterator[Monitor]:
        """Read the block while active; entered again, it starts over.

        Each call of `generate` inside starts over too: take its `readings` before the next one.
        """
        self._start()
        self._latest = None
        with record([Point(0, RESID_POST, self._module)], self._receive):
            yield self

    def _receive(self, _point: Point, hidden: Float[Tensor, "batch position d_model"]) -> None:
        if self._on_device is None or self._on_device.device != hidden.device:
            wide = torch.float32 if hidden.device.type == "mps" else torch.float64
            self._on_device = torch.as_tensor(self._vector, dtype=wide, device=hidden.device)
        last = hidden[:, -1].to(self._on_device.dtype)
        self._latest = last @ self._on_device + self._constant

    def __call__(
        self, input_ids: Int[Tensor, "batch position"], _scores: object, **_: object
    ) -> Tensor:
        """Record what the last pass read; True for each row that is to stop."""
        # The newest token was chosen and has not run.
        return self.read(input_ids[:, :-1])

    def read(self, ran: Int[Tensor, "batch position"]) -> Bool[Tensor, " batch"]:
        """Record the last of the tokens that ran, once; True for each row that is to stop.

        Tokens that do not continue those of the call before are a new prompt: it starts over.
        """
        if self._latest is None:
            raise RuntimeError("generate was called outside of Monitor.watching()")
        if self._ran is not None and torch.equal(ran, self._ran):
            return self._is_passed
        if self._ran is None or not torch.equal(ran[:, :-1], self._ran):
            projections = self._latest.tolist()
            self._start()
            self._prompt_width, self.prompt_projections = ran.shape[1], projections
            kept = WINDOW if self._pooling is None else None
            self._recent = [deque(maxlen=kept) for _ in projections]
            self._is_over = [False] * len(projections)
            is_passed = self._is_over
        else:
            step = ran.shape[1] - self._prompt_width - 1
            newest = zip(ran[:, -1].tolist(), self._latest.tolist(), strict=True)
            is_passed = [
                not self._is_over[row] and self._read(row, step, token_id, projection)
                for row, (token_id, projection) in enumerate(newest)
            ]
        self._ran, self._is_passed = ran, torch.tensor(is_passed, device=ran.device)
        return self._is_passed

    def logits_processor(self) -> LogitsProcessor:
        """The same reading as a logits processor: a row that is to stop gets an end token next.

        For whatever takes no stopping criterion; a row then has no token more than the one that
        stopped it and the end token. Raises `ValueError` without `end_ids`.
        """
        if not self._end_ids:
            raise ValueError("a logits processor stops a row by an end token: give end_ids")
        return _EndAbove(self, min(self._end_ids))

    def _read(self, row: int, step: int, token_id: int, projection: float) -> bool:
        """Record one token; returns whether the row is to stop."""
        recent = self._recent[row]
        recent.append(projection)
        smoothed = sum(recent) / len(recent)
        if self._pooling is not None:
            smoothed = float(self._pooling.score(np.array(recent)))
        probability = None
        if self._probability is not None:
            probability = float(self._probability(np.array([smoothed]))[0])
        self._add(Reading(row, step, token_id, projection, smoothed, probability))
        is_passed = self._stop_above is not None and (probability or 0.0) >= self._stop_above
        self._is_over[row] = is_passed or token_id in self._end_ids
        return is_passed

    def _add(self, reading: Reading) -> None:
        self.readings.append(reading)
        if self._on_reading is not None:
            self._on_reading(reading)

    def finish(self, sequences: Int[Tensor, "batch position"]) -> None:
        """Record the last tokens of what `generate` returned, which it chose and did not run."""
        for row, ids in enumerate(sequences[:, self._prompt_width :].tolist()):
            steps = [reading.step for reading in self.readings if reading.row == row]
            step = max(steps, default=-1) + 1
            was_ended = step > 0 and ids[step - 1] in self._end_ids
            if step < len(ids) and not was_ended:
                self._add(Reading(row, step, ids[step]))


class _EndAbove(LogitsProcessor):
    """Leaves `end_id` as the only token where the monitor says that a row is to stop."""

    def __init__(self, monitor: Monitor, end_id: int) -> None:
        self._monitor, self._end_id = monitor, end_id

    def __call__(
        self, input_ids: Int[Tensor, "batch position"], scores: Float[Tensor, "batch vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        is_passed = self._monitor.read(input_ids)
        is_other = torch.arange(scores.shape[1], device=scores.device) != self._end_id
        return scores.masked_fill(is_passed[:, None] & is_other, -torch.inf)
