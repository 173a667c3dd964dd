"""The request of each job, as one frozen object: `ActivationRequest`, `TraceRequest`, ...

A request is the source of a job's content keys and of the parameters in its row of `runs`. The
command line builds its options from the fields (`option`), so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axes.ingest.forward.pooling import POOLINGS
from axes.warehouse.names import RESID_POST, ROUTER, SITES, STORE_DTYPES, TEMPLATES
from axes.warehouse.settings import option

if TYPE_CHECKING:
    from axes.ingest.forward.templates import Template
    from axes.ingest.generation.token_statistics import Kept

STEERING_MODES = ("add", "ablate", "clamp")
STEERED_POSITIONS = ("all", "prompt", "generated")
CONDITIONS = ("position", "row")
LIMIT_HELP = "Use only the first prompts of each set."
_TEMPLATE_HELP = "The prompt's text alone, or in the model's chat template."
_BUDGET_HELP = "Max tokens in one batch, padding included."


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model runs: in this process, or in worker processes of Ray that each load it.

    `workers` defaults to one for each `gpus_per_worker` GPUs of the cluster, without GPUs to one
    for each machine.
    """

    on: str = option("local", "This process, or workers of Ray.", ("local", "ray"))
    address: str | None = option(
        None, "Ray cluster, as ray start prints it. Default: $RAY_ADDRESS, else this machine."
    )
    workers: int | None = option(
        None, "Workers of Ray. Default: one for each GPU, or machine without GPUs.", minimum=1
    )
    gpus_per_worker: int | None = option(
        None,
        "GPUs of a worker of Ray; the model is spread over them. Default: 1 if any.",
        minimum=0,
    )

    def parameters(self) -> dict[str, object]:
        """As parameters of a run row: nothing for this process."""
        return {} if self.on == "local" else vars(self)


LOCAL = Placement()


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """How a model is run: `system`, `template_options` and `assistant_prefill` are of its template.

    `device` and `dtype` default to the best device and the dtype that is usual on it.
    """

    template: str = option("raw", _TEMPLATE_HELP, TEMPLATES)
    system: str | None = None
    template_options: Sequence[str] = option(
        (),
        "NAME=VALUE, a variable of the chat template, such as enable_thinking=false; VALUE is "
        "JSON or a text; repeatable.",
        flag="--template-option",
    )
    assistant_prefill: str | None = option(
        None, "Start of the assistant's turn, which the model continues; for the chat template."
    )
    device: str | None = None
    dtype: str | None = None
    skip_unusable: bool = option(
        False,
        "Leave out prompts that the model cannot use (no tokens, too long, no position to pool), "
        "and record why.",
    )

    @property
    def rendering(self) -> Template:
        """The template; raises `ModelError` for one that does not exist or is malformed."""
        from axes.ingest.forward.templates import Template

        options = tuple(self.template_options)
        return Template(self.template, self.system, options, self.assistant_prefill)

    def parameters(self) -> dict[str, object]:
        """The request as parameters of a run row."""
        resolved = ("device", "dtype", "skip_unusable")
        stated = {name: value for name, value in vars(self).items() if name not in resolved}
        return {**stated, "template": self.rendering.name}


@dataclass(frozen=True, kw_only=True)
class ActivationRequest(ModelRequest):
    """Which activations of which prompts: every site and pooling of each of `layers`.

    With `axes`, only projections on them. `prompt_sets` says how many of each set's first prompts,
    None for all.
    """

    prompt_sets: Mapping[str, int | None]
    layers: Sequence[int] | None = option(None, "Comma list such as 0,12,23. Default: every block.")
    sites: Sequence[str] = option((RESID_POST,), "Repeatable.", (*SITES, ROUTER), flag="--site")
    poolings: Sequence[str] = option(
        ("last5_mean",),
        f"Repeatable: {', '.join(POOLINGS)}, or a Python file that defines POOLING.",
        names="pooling",
        flag="--pooling",
    )
    store_dtype: str = option(
        "float32",
        "Precision of pooled vectors. Rows rounded to 16 bits have a pooling of their own, such as "
        "last5_mean+bfloat16.",
        ("float32", *STORE_DTYPES),
    )
    token_layers: Sequence[int] = option(
        (), "Also store the vector of every token at these layers.", flag="--keep-tokens"
    )
    axes: Sequence[str] = option(
        (),
        "Store projections on this axis or subspace (name or id) and no vectors; repeatable.",
        names="axis",
        flag="--axis",
    )
    shard: str | None = option(None, "Run only part I/N of the prompts, such as 3/8.")
    token_budget: int = option(1024, _BUDGET_HELP, minimum=1)
    shares_prefix: bool = option(
        True,
        "Compute the tokens that several prompts start with only once.",
        flag="--share-prefix/--no-share-prefix",
    )


@dataclass(frozen=True, kw_only=True)
class TokenRequest(ModelRequest):
    """What is kept of each token: vectors, or with `axes` projections, at the axes' layers."""

    layers: Sequence[int] | None = option(
        None,
        "Comma list of the blocks to store vectors or projections of; overrides --layer-fraction.",
    )
    layer_fraction: float = option(
        0.8, "Use the block round(fraction * (layer_count - 1)).", minimum=0.0, maximum=1.0
    )
    axes: Sequence[str] = option(
        (),
        "Store projections on this axis or subspace (name or id) and no vectors; repeatable.",
        names="axis",
        flag="--axis",
    )
    prompt_tokens: bool = option(False, "Store the prompt's tokens too, as step < 0.")
    top_tokens: int = option(
        0, "Store this many of the most likely tokens at each step.", minimum=0
    )
    limit: int | None = option(None, LIMIT_HELP, minimum=1)

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

    max_new_tokens: int = option(32, "Max tokens of a completion.", minimum=1)
    temperature: float = option(0.0, "0 is greedy (default).", minimum=0.0)
    top_p: float = option(
        1.0,
        "Sample from the most likely tokens with this total probability.",
        minimum=0.0,
        maximum=1.0,
        is_minimum_excluded=True,
    )
    seed: int = option(0, "Seed of the sampling.")
    stop_strings: Sequence[str] = option(
        (), "String that ends a completion; repeatable.", flag="--stop"
    )
    end_tokens: Sequence[str] = option(
        (), "Extra token that ends one; repeatable.", flag="--end-token"
    )

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def columns(self) -> dict[str, object]:
        """The same as columns of `generations`."""
        return {**self._numbers(), "stop_strings": list(self.stop_strings) or None}

    def _numbers(self) -> dict[str, object]:
        names = ("max_new_tokens", "temperature", "top_p", "seed")
        return {name: getattr(self, name) for name in names}

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
    samples: int = option(1, "Completions of each prompt.", minimum=1)
    batch_size: int = option(32, "Completions generated together.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class CompletionRequest(TokenRequest):
    """Prompt-completion pairs of a file (.parquet, .csv or .jsonl) to read by teacher forcing."""

    completions: Path
    token_budget: int = option(1024, _BUDGET_HELP, minimum=1)

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
    """Each axis under each strength at each of `layers`; `ablate` is at all of them at once.

    Axes lie in the model's own space. The texts of `benign_set` are read raw. Completions of
    `max_new_tokens` are made for `completed_axis_ids`, and if there are any for the unsteered
    model.
    """

    prompt_set: str
    benign_set: str = option(
        help="Prompt set used to measure the side effects of steering (KL divergence and "
        "perplexity); nothing is generated from it.",
        names="prompt_set",
        flag="--benign",
    )
    axis_ids: Sequence[str]
    strengths: Sequence[float] = option(
        (-0.16, -0.08, -0.04, -0.02, 0.02, 0.04, 0.08, 0.16),
        "Comma list, in units of the layer's median norm; for ablate, the share to remove.",
    )
    layers: Sequence[int] | None = option(
        None, "Comma list. Default: the layer of the axis; for ablate, every layer."
    )
    mode: str = option(
        "add", "Add to the component along the axis, remove it, or set it.", STEERING_MODES
    )
    positions: str = option("all", "Which tokens are steered.", STEERED_POSITIONS)
    above: float | None = option(
        None,
        "Steer only where the projection exceeds this, in units of the layer's median norm.",
        flag="--min-projection",
    )
    condition: str = option(
        "position",
        "With --min-projection: test each token, or the prompt's last token for the whole row.",
        CONDITIONS,
    )
    template: str = option("chat", _TEMPLATE_HELP, TEMPLATES)
    limit: int | None = option(None, LIMIT_HELP, minimum=1)
    benign_limit: int | None = option(
        16, "Use only the first prompts of the benign set.", minimum=1
    )
    completed_axis_ids: Sequence[str] = ()
    max_new_tokens: int = option(
        0, "Length of the greedy completions along the axes; 0 generates none.", minimum=0
    )
    openers: str = option("refusal", "Opening phrases to score, a key of ingest/openers.toml.")
    token_budget: int = option(2048, _BUDGET_HELP, minimum=1)

    @property
    def change(self) -> Change:
        condition = None if self.above is None else self.condition
        return Change(self.mode, self.positions, self.above, condition)

    def parameters(self) -> dict[str, object]:
        return super().parameters() | vars(self.change)


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """An ingest to price (`axes.ingest.cost`); rates are money, in any one currency.

    Without `prompt_count` the prompts of `prompt_sets` are counted. Without `teraflops` the speed
    is that of the model's job in the warehouse, else 10^12 operations per second.
    """

    prompt_sets: Sequence[str] = ()
    prompt_count: int | None = option(None, "Number of prompts, if not --prompts.", minimum=1)
    tokens: float | None = option(
        None, "Tokens of a prompt. Default: by texts, else 20.", minimum=1.0
    )
    layers: Sequence[int] | None = None
    vectors: int = option(1, "Vectors per prompt and layer: sites x poolings.", minimum=1)
    copies: int = option(1, "Price so many models like each MODEL.", minimum=1)
    file_mib: int = option(48, "MiB of a file, as ingest writes; compacted: 512.", minimum=1)
    store_dtype: str = option("float32", "Precision of the vectors.", ("float32", *STORE_DTYPES))
    teraflops: float | None = option(
        None,
        "Speed of the machine, in 10^12 operations per second. Default: that of the model's job in "
        "the warehouse, else 1.",
        minimum=0.0,
        is_minimum_excluded=True,
    )
    efficiency: float = option(
        1.0,
        "Share of --teraflops that the forward passes reach.",
        minimum=0.0,
        maximum=1.0,
        is_minimum_excluded=True,
    )
    rate: float | None = option(None, "Price of the machine for an hour.", minimum=0.0)
    storage_rate: float | None = option(None, "Price of 10^12 bytes for a month.", minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class PromptRequest:
    """How the rows of a source become a prompt set."""

    positive: Sequence[str] = option(
        (), "Label of the positive class; repeatable. Default: positive, 1, unsafe, ..."
    )
    labeler: str = option("dataset", "Name of the source of the labels.")
    limit: int | None = option(None, LIMIT_HELP, minimum=1)
    replace_set: bool = option(False, "Replace a stored set of this name.", flag="--replace")
    keep_whitespace: bool = option(False, "Keep white space around prompts.")
    skip_unusable: bool = option(False, "Leave out empty prompts, and record which.")


@dataclass(frozen=True, kw_only=True)
class ExternalActivationRequest:
    """Vectors of a file that others computed; None is as the file's card says, if it has one.

    `model` has keys of `ExternalModel`. `layers_are` is `blocks` (N is the output of block N) or
    `hidden_states` (N is the entry N of transformers: the output of block N - 1, with entry 0 the
    input of block 0). The last entry is behind the final norm: it is an error, or is left out with
    `skip_normed`. In `block_inputs`, as vLLM numbers, it is the last block's output. `layer_ids`
    are those of a serving engine's folder, which does not say them.
    """

    file: Path
    index: Path | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    prompt_set: str | None = option(None, "Name of the prompt set of the texts.", flag="--prompts")
    layers_are: str | None = option(
        None,
        "Meaning of layer N: the output of block N, hidden_states[N] of transformers, or the input "
        "of block N.",
        ("blocks", "hidden_states", "block_inputs"),
    )
    site: str | None = option(None, f"Default: {RESID_POST}.", SITES)
    pooling: str | None = option(
        None, "How positions were pooled to one vector: last, mean, ...", names="pooling"
    )
    template: str | None = option(None, "How prompts were rendered: raw or chat. Default: raw.")
    positive: Sequence[str] = option((), "Label of the positive class; repeatable.")
    skip_normed: bool = option(False, "Leave out the hidden_states after the final norm.")
    layer_ids: Sequence[int] = option(
        (), "Layers of a folder of vLLM or vLLM-Lens, as it was asked for them: 1,2,3."
    )
