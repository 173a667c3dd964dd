"""What the jobs that run a model share: how it is opened, its lock, its prompts, its run row.

A job takes a `Shard` of the prompts where it is spread over processes or machines by hand. Which
shard a prompt falls into follows from its id alone: shards are disjoint and together complete
whatever else is in the warehouse, and the files they write can be put into one root.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axes.ingest.forward.pooling import Pooling
from axes.ingest.forward.templates import (
    Rendered,
    Template,
    foreign_token,
    render,
    unused_additions,
)
from axes.ingest.models.config import (
    context_length,
    default_device,
    default_dtype,
    load_tokenizer,
    read_config,
    skeleton,
)
from axes.ingest.models.download import at_commit, fetch, local_folder, require_access
from axes.ingest.models.identity import ModelIdentity, identify
from axes.ingest.models.load import LoadedModel, find_blocks, load, model_row, require_engine
from axes.ingest.models.quantized import runnable_quantization
from axes.ingest.models.registry import ModelSpec
from axes.ingest.requests import ModelRequest
from axes.warehouse import settings
from axes.warehouse.errors import PromptError
from axes.warehouse.handle import Warehouse
from axes.warehouse.names import TEMPLATES, counted
from axes.warehouse.progress import announce, track, waiting
from axes.warehouse.render import html_record
from axes.warehouse.runs import Run, record_run
from axes.warehouse.storage.store import locked, store_at
from axes.warehouse.writer import data_file, rows_table, write_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AT_ONCE = 256

Skipped = dict[str, str]
ModelRow = dict[str, object]


@dataclass(frozen=True)
class IngestSummary:
    """What a job did: of `prompt_count` requested prompts, `new_count` were run."""

    model: str
    model_id: str
    run_id: str
    prompt_count: int
    new_count: int
    skipped_count: int
    rows: int
    tokens: int
    seconds: float

    def _repr_html_(self) -> str:
        return html_record(asdict(self), f"ingest of {self.model}")


@dataclass(frozen=True)
class Job:
    """A model about to run on a root: fetched and identified, its weights not read yet."""

    root: Path
    spec: ModelSpec
    folder: Path
    identity: ModelIdentity
    device: str
    shard: Shard
    started: float = field(default_factory=time.monotonic)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer, read when it is first needed."""
        return load_tokenizer(self.folder)

    @cached_property
    def vocab_size(self) -> int:
        """Number of tokens that the model has, by its configuration."""
        return read_config(self.folder).get_text_config().vocab_size

    def layer_count(self) -> int:
        """Number of blocks: as registered, else by the configuration; no weights are loaded."""
        registered = Warehouse.open_tables(self.root, "models").column(
            "select layer_count from models where model_id = ?", [self.identity.model_id]
        )
        if registered:
            return registered[0]
        if self.spec.blocks is None:
            return read_config(self.folder).get_text_config().num_hidden_layers
        return len(find_blocks(skeleton(self.folder, self.identity.dtype), self.spec.blocks))

    def render_usable(
        self,
        texts: Mapping[str, str],
        request: ModelRequest,
        *,
        skipped: list[Skipped],
        template: Template | None = None,
        poolings: Sequence[Pooling] = (),
        room: int = 0,
    ) -> dict[str, Rendered]:
        """The prompts (id -> text) that fit the model with `room` tokens to spare, rendered.

        `template` is by default that of the request. Raises `PromptError` naming the first prompt
        that is empty, too long, or without a position for one of the poolings; where the request
        skips unusable prompts it is left out and added to `skipped`.
        """
        if not texts:
            return {}
        template = template or request.rendering
        max_length = context_length(self.folder)
        # In slices, since a tokenizer's full output for a text is far larger than its token ids.
        every_text = list(texts.values())
        rendered = itertools.chain.from_iterable(
            render(self.tokenizer, every_text[start : start + _AT_ONCE], template, self.spec.name)
            for start in range(0, len(every_text), _AT_ONCE)
        )
        usable = {}
        for (prompt_id, text), prompt in zip(texts.items(), rendered, strict=True):
            reason = foreign_token(prompt.token_ids, self.vocab_size)
            reason = reason or _unusable(prompt, max_length, room, poolings)
            if reason is None:
                usable[prompt_id] = prompt
            elif request.skip_unusable:
                skipped.append({"prompt_id": prompt_id, "reason": reason})
            else:
                raise PromptError(
                    f"prompt {prompt_id} ({text[:40]!r}...) cannot be run by {self.spec.name} "
                    f"under template {template.name}: {reason}; "
                    "--skip-unusable leaves such prompts out and records it"
                )
        return usable

    def load(self) -> LoadedModel:
        """Load the weights."""
        with waiting(f"load {self.spec.name}"):
            return load(self.spec, self.folder, self.identity, self.device, self.tokenizer)

    @contextmanager
    def running(
        self, command: str, parameters: Mapping[str, Any], *, seed: int | None = None
    ) -> Iterator[RunningJob]:
        """Hold the model's lock and a run row, and finish the batch in hand at Ctrl-C.

        A second job on the model (or on the same shard for it) waits, and then finds the rows
        stored.
        """
        part = "" if self.shard.count == 1 else f".{self.shard.number}of{self.shard.count}"
        notice = f"{self.spec.name} is being run by another job on {self.root}: waiting for it"
        parameters = {**parameters, **self.parameters()}
        line = settings.command_line() or "--dtype"
        # The default depends on the machine, and another dtype is another model version.
        options = "" if "--dtype" in line else f" --dtype {self.identity.dtype}"
        with (
            locked(self.root, f"{self.identity.model_id}{part}", notice=notice),
            record_run(
                self.root, command, parameters, device=self.device, seed=seed, options=options
            ) as run,
            stops_between_batches() as check_interrupt,
        ):
            yield RunningJob(self, run, check_interrupt)

    def parameters(self) -> dict[str, object]:
        """The model as parameters of a run row."""
        spec = self.spec
        return {
            "model": spec.name,
            "model_id": self.identity.model_id,
            "source": spec.source,
            "dtype": self.identity.dtype,
            "quantization": self.identity.quantization,
            "attention": spec.attention,
            "adapter": spec.adapter,
            "blocks": spec.blocks,
            "engine": spec.engine,
        }

    def summary(self, run: Run, prompt_count: int, new_count: int) -> IngestSummary:
        """What `run` did for this model."""
        return IngestSummary(
            model=self.spec.name,
            model_id=self.identity.model_id,
            run_id=run.run_id,
            prompt_count=prompt_count,
            new_count=new_count,
            skipped_count=len(run.skipped),
            rows=run.rows,
            tokens=run.tokens,
            seconds=time.monotonic() - self.started,
        )


@dataclass(frozen=True)
class Part:
    """Some of a job's prompts: `units` of work in `groups`; `is_complete` if no row is missing.

    Of `prompt_count` requested prompts, `new_count` are run.
    """

    groups: Sequence[Any]
    units: int
    is_complete: bool
    prompt_count: int = 0
    new_count: int = 0


@dataclass(frozen=True)
class RunningJob:
    """A job that holds its model's lock, with its run row."""

    job: Job
    run: Run
    check_interrupt: Callable[[], None]

    def compute(
        self,
        label: str,
        unit: str,
        parts: Iterable[Part],
        compute: Callable[[Any, Sequence[Any], Callable[[int], None]], None],
        load: Callable[[], tuple[Any, ModelRow]] | None = None,
        *,
        prompt_count: int = 0,
    ) -> None:
        """Compute the parts that have units; without any, no model is loaded.

        `load` gives what computes, by default the model in this process, and the model's row.
        `compute` calls its last argument after each batch that it has stored, with the units done.
        Parts are planned one by one: the units of those to come are estimated from `prompt_count`.
        Where every row is stored but the model's row is lost, that comes back.
        """
        loaded, advance, is_complete = None, None, True
        planned = units = working = 0
        with ExitStack() as stack:

            def done(count: int) -> None:
                assert advance is not None
                advance(count)
                self.check_interrupt()

            for part in parts:
                is_complete &= part.is_complete
                planned += part.prompt_count
                if not part.units:
                    continue
                units, working = units + part.units, working + part.prompt_count
                total = units + units * max(prompt_count - planned, 0) // max(working, 1)
                if advance is None:
                    loaded = self._start(load or self.load)
                    bar = track(f"{label} {self.job.spec.name}", total, unit)
                    advance = stack.enter_context(bar)
                advance(0, total)
                compute(loaded, part.groups, done)
        if advance is None and is_complete and not store_at(self.job.root).has(self._registered):
            self._start(load or self.load)

    @property
    def _registered(self) -> Path:
        return data_file(self.job.root, "models", self.job.identity.model_id)

    def load(self) -> tuple[Any, ModelRow]:
        """The model, loaded into this process, and its row."""
        loaded = self.job.load()
        return loaded, model_row(loaded, self.run.run_id)

    def _start(self, load: Callable[[], tuple[Any, ModelRow]]) -> Any:
        with self.run.stage("load"):
            loaded, row = load()
        root = self.job.root
        if not store_at(root).has(self._registered):
            table = rows_table("models", [row])
            write_rows(root, "models", table, name=self.job.identity.model_id)
        return loaded


def open_job(
    root: Path, spec: ModelSpec, request: ModelRequest, *, shard: str | None = None
) -> Job:
    """Fetch and identify a model; the defaults are the best device and its dtype.

    A line on stderr says what its chat template ignores of the request.
    """
    part = Shard.parse("1/1" if shard is None else shard)
    template = request.rendering  # An unknown template is an error before a model is fetched.
    device = request.device or default_device()
    require_engine(spec, getattr(request, "sites", ()))
    require_access([spec])
    # A configuration of the hub is there before its weights are.
    if (config := local_folder(spec)) is not None and spec.source.startswith("hf:"):
        runnable_quantization(config / "config.json", spec.name)
    folder = fetch(spec, request.dtype)
    spec = at_commit(spec, folder)
    identity = identify(spec, folder, request.dtype or default_dtype(folder, device))
    job = Job(root, spec, folder, identity, device, part)
    # The tokenizer is read here only where something was added to the template.
    if template.name not in TEMPLATES:
        for remark in unused_additions(job.tokenizer, template, spec.name):
            announce(f"warning: {remark}")
    return job


@contextmanager
def stops_between_batches() -> Iterator[Callable[[], None]]:
    """Hold back the first Ctrl-C until the yielded function is called, which then raises it.

    So the batch in hand is finished and committed; a second Ctrl-C is not held back. One that
    comes after the last call is raised at the end, so that the caller of the job stops too.
    Nothing changes outside the main thread, where Python delivers no signals, and in a job in the
    background of a script, which is not to see the Ctrl-C that stops the others.
    """
    # No threading.Event: a second Ctrl-C inside its lock would wait for itself.
    is_requested = False

    def hold_back(_signal: int, _frame: Any) -> None:
        nonlocal is_requested
        is_requested = True
        signal.signal(signal.SIGINT, previous)
        # Past the buffer of sys.stderr: the signal may have come in the middle of a write to it.
        os.write(2, b"\nfinishing the batch; Ctrl-C again stops at once\n")

    def check() -> None:
        if is_requested:
            raise KeyboardInterrupt

    previous = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or previous in (signal.SIG_IGN, None):
        yield check
        return
    signal.signal(signal.SIGINT, hold_back)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, previous)
    check()


def _unusable(
    prompt: Rendered, max_length: int | None, room: int, poolings: Sequence[Pooling]
) -> str | None:
    """Why a prompt cannot be run, or None."""
    count = len(prompt.token_ids)
    if not count:
        return "no tokens"
    if max_length is not None and count + room > max_length:
        needed = counted(count, "token") + (f" and {room} new ones" if room else "")
        return f"{needed}, the context is {max_length}"
    for pooling in poolings:
        span = pooling.positions(prompt)
        if span is None:
            return f"it has no position for {pooling.name}"
        if not 0 <= span[0] < span[1] <= count:
            tokens = counted(count, "token")
            return f"{pooling.name} reads positions {span[0]} to {span[1]} of its {tokens}"
    return None


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`3/8` is the third of eight parts; raises `PromptError` for anything else.

        >>> Shard.parse("3/8")
        Shard(number=3, count=8)
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise PromptError(f"shard {text}: 1/8, 2/8, ... 8/8 is expected")
        return cls(int(match[1]), int(match[2]))

    def takes(self, prompt_id: str) -> bool:
        """Whether the prompt falls into this part.

        >>> [Shard(number, 3).takes("ff01") for number in (1, 2, 3)]
        [False, True, False]
        """
        return int(prompt_id, 16) % self.count == self.number - 1
