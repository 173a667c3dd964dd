"""The request of each job, as one frozen object: `ActivationRequest`, `TraceRequest`, ...

A request is the source of a job's content keys and of the parameters in its row of `runs`. Its
fields are the options of the command, which read their defaults here; so nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axes.warehouse.names import RESID_POST

if TYPE_CHECKING:
    from axes.ingest.forward.templates import Template
    from axes.ingest.generation.token_statistics import Kept

TEMPLATES = ("raw", "chat")
STEERING_MODES = ("add", "ablate", "clamp")
STEERED_POSITIONS = ("all", "prompt", "generated")
CONDITIONS = ("position", "row")


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """How a model is run: `system` is the system prompt of the chat template.

    `skip_unusable` leaves out, and records in the run row, prompts that the model cannot run.
    `device` and `dtype` default to the best device and the dtype that is usual on it.
    """

    template: str = "raw"
    system: str | None = None
    device: str | None = None
    dtype: str | None = None
    skip_unusable: bool = False

    @property
    def rendering(self) -> Template:
        """The template; raises `ModelError` for one that does not exist."""
        from axes.ingest.forward.templates import Template

        return Template(self.template, self.system)

    def parameters(self) -> dict[str, object]:
        """The request as parameters of a run row."""
        resolved = ("device", "dtype", "skip_unusable")
        stated = {name: value for name, value in vars(self).items() if name not in resolved}
        return {**stated, "template": self.rendering.name}


@dataclass(frozen=True, kw_only=True)
class ActivationRequest(ModelRequest):
    """Which activations of which prompts: `layers` None for all, every site and pooling of each.

    `prompt_sets` says how many of each set's first prompts, None for all; `shard` (`3/8`) takes a
    part of them. Of `token_layers` every token's vector is stored next to the pooled ones. A
    pooling is a name of `POOLINGS` or a Python file. `shares_prefix` runs tokens that all prompts
    begin with once, where the model allows it.
    """

    prompt_sets: Mapping[str, int | None]
    layers: Sequence[int] | None = None
    sites: Sequence[str] = (RESID_POST,)
    poolings: Sequence[str] = ("last5_mean",)
    token_layers: Sequence[int] = ()
    shard: str | None = None
    token_budget: int = 1024
    shares_prefix: bool = True


@dataclass(frozen=True, kw_only=True)
class TokenRequest(ModelRequest):
    """What is kept of each token.

    Vectors at `layers`, without them at the one block `round(layer_fraction * (layer_count - 1))`.
    With `axes` (ids or names) no vectors are kept but the projections on these axes, at the axes'
    layers or at `layers`. `prompt_tokens` keeps the prompt's tokens too, `top_tokens` so many of
    the likeliest tokens at each step.
    """

    layers: Sequence[int] | None = None
    layer_fraction: float = 0.8
    axes: Sequence[str] = ()
    prompt_tokens: bool = False
    top_tokens: int = 0
    limit: int | None = None

    def key(self, model_id: str, kept: Kept, prompt_id: str, settings: Mapping[str, Any]) -> str:
        """The id of a completion under `settings`; what is not kept does not enter."""
        from axes.warehouse.writer import content_key

        options = {
            "axes": [list(readout.key) for readout in kept.readouts],
            "prompt_tokens": self.prompt_tokens,
            "top_tokens": kept.top_count,
        }
        stated = {name: value for name, value in options.items() if value}
        template = self.rendering.name
        return content_key(model_id, template, list(kept.layers), {**settings, **stated}, prompt_id)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen: temperature 0 is greedy, top_p 1 keeps the complete distribution.

    `stop_strings` end a completion with the token that completes one of them; `end_tokens`, as the
    vocabulary writes them, end it with themselves, as those of the checkpoint do.
    """

    max_new_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop_strings: Sequence[str] = ()
    end_tokens: Sequence[str] = ()

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def columns(self) -> dict[str, object]:
        """The same as columns of `generations`."""
        return {**self._numbers(), "stop_strings": list(self.stop_strings) or None}

    def _numbers(self) -> dict[str, object]:
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
        }

    def sampling_key(self, sample: int = 0) -> dict[str, object]:
        """What makes one completion of a prompt differ from another; empty options are left out.

        >>> Sampling().sampling_key()
        {'max_new_tokens': 32, 'temperature': 0.0, 'top_p': 1.0, 'seed': 0}
        """
        options = {"stop_strings": self.stop_strings, "end_tokens": self.end_tokens}
        return {
            **self._numbers(),
            **{name: list(values) for name, values in options.items() if values},
            **({} if self.is_greedy else {"sample": sample}),
        }


@dataclass(frozen=True, kw_only=True)
class TraceRequest(Sampling, TokenRequest):
    """Completions to generate: `samples` for each prompt of a set, each with its own seed."""

    prompt_set: str
    samples: int = 1
    batch_size: int = 16


@dataclass(frozen=True, kw_only=True)
class CompletionRequest(TokenRequest):
    """Prompt-completion pairs of a file (.parquet, .csv or .jsonl) to read by teacher forcing."""

    completions: Path
    token_budget: int = 1024

    def parameters(self) -> dict[str, object]:
        return {**super().parameters(), "completions": str(self.completions.resolve())}


@dataclass(frozen=True)
class Change:
    """What is done, apart from the axis, the blocks and how strongly (`steering.Intervention`)."""

    mode: str = "add"
    positions: str = "all"
    above: float | None = None
    condition: str | None = None


@dataclass(frozen=True, kw_only=True)
class InterventionRequest(ModelRequest):
    """Each axis under each strength at each of `layers` (default: the axis's layer).

    `ablate` takes the axis from all of `layers` at once (default: every block). Axes lie in the
    model's own space. The texts of `benign_set` are read raw. Completions of `max_new_tokens` are
    made for `completed_axis_ids`, and if there are any for the unsteered model. `condition` counts
    with `above` only.
    """

    prompt_set: str
    benign_set: str
    axis_ids: Sequence[str]
    strengths: Sequence[float] = (-0.16, -0.08, -0.04, -0.02, 0.02, 0.04, 0.08, 0.16)
    layers: Sequence[int] | None = None
    mode: str = "add"
    positions: str = "all"
    above: float | None = None
    condition: str = "position"
    template: str = "chat"
    limit: int | None = None
    benign_limit: int | None = 16
    completed_axis_ids: Sequence[str] = ()
    max_new_tokens: int = 0
    openers: str = "refusal"
    token_budget: int = 2048

    @property
    def change(self) -> Change:
        condition = None if self.above is None else self.condition
        return Change(self.mode, self.positions, self.above, condition)

    def parameters(self) -> dict[str, object]:
        return super().parameters() | vars(self.change)


@dataclass(frozen=True, kw_only=True)
class PromptRequest:
    """How the rows of a source become a prompt set.

    `positive` are the labels of the positive class, `labeler` says whose labels they are; `limit`
    takes the first rows. `replace_set` replaces other rows that are stored under the name.
    """

    positive: Sequence[str] = ()
    labeler: str = "dataset"
    limit: int | None = None
    replace_set: bool = False
    keep_whitespace: bool = False
    skip_unusable: bool = False


@dataclass(frozen=True, kw_only=True)
class ExternalActivationRequest:
    """Vectors of a file that others computed; None is as the file's card says, if it has one.

    `model` has keys of `ExternalModel`. `layers_are` is `blocks` (N is the output of block N) or
    `hidden_states` (N is the entry N of transformers: the output of block N - 1, with entry 0 the
    input of block 0). The last entry is behind the final norm: it is an error, or is left out with
    `skip_normed`.
    """

    file: Path
    index: Path | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    prompt_set: str | None = None
    layers_are: str | None = None
    site: str | None = None
    pooling: str | None = None
    template: str | None = None
    positive: Sequence[str] = ()
    skip_normed: bool = False
