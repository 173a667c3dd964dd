"""From a prompt's text to token ids, by a stated policy, with exactly the tokens a user would get.

`raw`                         the text by the tokenizer's defaults (as in the source study)
`chat`                        the text as the user's turn of the chat template, then the
                              beginning of the assistant's turn
`chat+system:HASH`            the same below a system prompt, which the hash names
`chat+enable_thinking=false`  the same with a variable of the chat template set
`chat+prefill:HASH`           the same with more of the assistant's turn, which the hash names

The parts combine, in this order. Each rendered prompt has one BOS where the tokenizer's defaults
add one, and never two.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from axes.ingest.models.config import one_line
from axes.warehouse.errors import ModelError
from axes.warehouse.names import TEMPLATES
from axes.warehouse.writer import content_key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Template:
    """A policy, and for `chat` what is added to it; `name` is the stored key.

    `system` is a system prompt and `prefill` the start of the assistant's turn. Each of `options`
    is NAME=VALUE, a variable of the chat template; VALUE is JSON, or a text where it is not.
    Raises `ModelError` for an unknown policy, and for additions that are malformed or to `raw`.
    """

    policy: str = "raw"
    system: str | None = None
    options: tuple[str, ...] = ()
    prefill: str | None = None

    def __post_init__(self) -> None:
        if self.policy not in TEMPLATES:
            raise ModelError(
                f"unknown template {self.policy}: it is raw or chat, "
                "and with a system prompt --template chat --system FILE"
            )
        additions = {
            "a system prompt": self.system is not None,
            "a template option": bool(self.options),
            "an assistant prefill": self.prefill is not None,
        }
        if self.policy == "raw" and (added := [each for each in additions if additions[each]]):
            raise ModelError(f"{added[0]} needs the chat template: add --template chat")
        if self.prefill is not None and not self.prefill.strip():
            raise ModelError("the assistant prefill is empty: leave --assistant-prefill out")
        if len(self.variables) < len(self.options):
            raise ModelError(f"a template option is given twice: {', '.join(self.options)}")

    @property
    def variables(self) -> dict[str, object]:
        """The options' values by name, in the order of the names."""
        pairs = {}
        for text in sorted(self.options):
            name, equals, value = text.partition("=")
            if not equals or not name.isidentifier():
                raise ModelError(
                    f"{text} is not a template option: NAME=VALUE is expected, such as "
                    "enable_thinking=false (--system and --assistant-prefill give texts)"
                )
            pairs[name] = _option_value(value)
        return pairs

    @property
    def name(self) -> str:
        """What the column `template` holds.

        >>> Template("chat").name, Template("chat", "Be brief.").name
        ('chat', 'chat+system:b1cc2ec6')
        >>> Template("chat", options=("enable_thinking=false",), prefill="Sure,").name
        'chat+enable_thinking=false+prefill:43ca3bc5'
        """
        parts = [self.policy]
        if self.system is not None:
            parts.append(f"system:{content_key(self.system)[:8]}")
        parts += [_option_name(name, value) for name, value in self.variables.items()]
        if self.prefill is not None:
            parts.append(f"prefill:{content_key(self.prefill)[:8]}")
        return "+".join(parts)


def _option_value(text: str) -> object:
    # Python's spelling would be a text, which every chat template takes for true.
    if text in _PYTHON_VALUES:
        return _PYTHON_VALUES[text]
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def _option_name(name: str, value: object) -> str:
    """`name=value` where that is short and gives the value back, else with a hash for it."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    is_plain = re.fullmatch(r"[\w.-]{1,32}", text, re.ASCII) and _option_value(text) == value
    return f"{name}={text}" if is_plain else f"{name}:{content_key(value)[:8]}"


_PYTHON_VALUES = {"True": True, "False": False, "None": None}

# A private-use character in place of a user's text, to see what the template puts behind it.
_MARK = "\ue000"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as the model reads it: token ids, unpadded and untruncated.

    `text_hash` is of the rendered text; `user_start` is the first token of the user's text and
    `user_end` one past the last, None where it is unknown (a template that rewrites the text).
    """

    token_ids: list[int]
    text_hash: str
    user_start: int | None
    user_end: int | None


def render(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], template: Template, model: str
) -> list[Rendered]:
    """Each text under the template, as token ids.

    Raises `ModelError` where the model has no chat template, or its template refuses the turns.
    """
    if not texts:
        return []
    is_raw = template.policy == "raw"
    if is_raw:
        complete, tail = list(texts), ""
    else:
        *complete, marked = chat_texts(tokenizer, [*texts, _MARK], template, model)
        tail = marked.rpartition(_MARK)[2]
    # A chat template writes its own special tokens; they are not added a second time.
    encoded: Any = tokenizer(
        complete,
        add_special_tokens=is_raw,
        return_offsets_mapping=tokenizer.is_fast,
        return_attention_mask=False,
        verbose=False,
    )
    start = [] if is_raw else _missing_bos(tokenizer)
    rendered = []
    for index, (text, full, ids) in enumerate(
        zip(texts, complete, encoded["input_ids"], strict=True)
    ):
        text_end = len(full) - len(tail)
        text_start = text_end - len(text)
        places: tuple[int | None, int | None]
        if not full[:text_end].endswith(text) or full[text_end:] != tail:
            places = None, None
        elif tokenizer.is_fast:
            offsets = encoded["offset_mapping"][index]
            places = _start_by_offsets(offsets, text_start), _end_by_offsets(offsets, text_end)
        else:
            places = (
                _start_by_prefix(tokenizer, full[:text_start], ids),
                _end_by_prefix(tokenizer, full[:text_end], ids, adds_special=is_raw),
            )
        lead = [] if ids[:1] == start else start
        user_start, user_end = (None if at is None else at + len(lead) for at in places)
        rendered.append(Rendered([*lead, *ids], content_key(full), user_start, user_end))
    return rendered


def chat_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], template: Template, model: str
) -> list[str]:
    """Each text as the user's turn of the model's chat template, as the model reads it.

    Raises `ModelError` where the model has no chat template, or its template refuses the turns or
    an option.
    """
    from jinja2 import TemplateError

    if tokenizer.chat_template is None:
        raise ModelError(f"{model} has no chat template: use --template raw")
    apply: Any = tokenizer.apply_chat_template
    parameters = {*inspect.signature(apply).parameters, "messages"}
    for name in template.variables:
        if name in parameters - {"tools", "documents"}:
            raise ModelError(f"{name} is not a template option: rendering a prompt sets it")

    def render_one(text: str, content: Callable[[str], object], prefill: str | None) -> str:
        turns = {"system": template.system, "user": text, "assistant": prefill}
        rendered = apply(
            [
                {"role": role, "content": content(words)}
                for role, words in turns.items()
                if words is not None
            ],
            add_generation_prompt=prefill is None,
            continue_final_message=prefill is not None,
            tokenize=False,
            **template.variables,
        )
        return str(rendered)

    try:
        # Templates of some vision-language models read a list of parts, and drop a plain text.
        is_dropped = _MARK not in render_one(_MARK, str, None)
        has_parts = is_dropped and _MARK in render_one(_MARK, _as_parts, None)
        content = _as_parts if has_parts else str
        return [render_one(text, content, template.prefill) for text in texts]
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
        reason = one_line(error)
        raise ModelError(f"the chat template of {model} refuses the prompt: {reason}") from error


def _as_parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def unused_additions(
    tokenizer: PreTrainedTokenizerBase, template: Template, model: str
) -> list[str]:
    """A line for each option, or system prompt, that leaves a rendered prompt as it is without.

    Raises as `chat_texts` does.
    """
    without = {f"template option {each}": _without(template, each) for each in template.options}
    if template.system is not None:
        without["the system prompt"] = replace(template, system=None)
    if not without:
        return []
    rendered = chat_texts(tokenizer, [_MARK], template, model)
    return [
        f"{addition} changes nothing: the chat template of {model} ignores it, or it is the default"
        for addition, rest in without.items()
        if chat_texts(tokenizer, [_MARK], rest, model) == rendered
    ]


def _without(template: Template, option: str) -> Template:
    return replace(template, options=tuple(each for each in template.options if each != option))


def foreign_token(token_ids: Sequence[int], vocab_size: int) -> str | None:
    """What is wrong with the ids, where one has no row in the model's embedding; else None.

    >>> foreign_token([5, 300], 259)
    "token 300 is beyond the model's vocabulary of 259: the tokenizer is another model's"
    """
    foreign = next((token for token in token_ids if not 0 <= token < vocab_size), None)
    if foreign is None:
        return None
    place = f"beyond the model's vocabulary of {vocab_size}"
    return f"token {foreign} is {place}: the tokenizer is another model's"


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token id to fill padding with; which one does not matter, the mask hides it."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return candidate
    return 0


def _missing_bos(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The BOS that the tokenizer's defaults put first, which a chat template may leave out."""
    bos = tokenizer.bos_token_id
    first = tokenizer("a", verbose=False).input_ids[:1]
    return [bos] if bos is not None and first == [bos] else []


def _end_by_offsets(offsets: Sequence[tuple[int, int]], text_end: int) -> int | None:
    """One past the last token that holds a character before `text_end`."""
    inside = [index for index, (start, end) in enumerate(offsets) if start < min(end, text_end)]
    return inside[-1] + 1 if inside else None


def _start_by_offsets(offsets: Sequence[tuple[int, int]], text_start: int) -> int | None:
    """The first token that holds a character from `text_start` on; special tokens hold none."""
    for index, (start, end) in enumerate(offsets):
        if max(start, text_start) < end:
            return index
    return None


def _start_by_prefix(tokenizer: PreTrainedTokenizerBase, before: str, ids: list[int]) -> int | None:
    """The same without offsets: behind the tokens of `before`, if those of the text begin so.

    With nothing before, behind the special tokens that the tokenizer puts first.
    """
    if not before:
        special = tokenizer.all_special_ids
        return next((index for index, token in enumerate(ids) if token not in special), None)
    prefix = tokenizer(before, add_special_tokens=False, verbose=False).input_ids
    return len(prefix) if ids[: len(prefix)] == prefix else None


def _end_by_prefix(
    tokenizer: PreTrainedTokenizerBase, before: str, ids: list[int], *, adds_special: bool
) -> int | None:
    """The same without offsets: the tokens of `before`, if those of the text begin with them.

    A tokenizer may join characters across the end, in which case the place is unknown.
    """
    prefix = tokenizer(before, add_special_tokens=adds_special, verbose=False).input_ids
    while prefix and prefix[-1] in tokenizer.all_special_ids:
        prefix = prefix[:-1]
    return len(prefix) if prefix and ids[: len(prefix)] == prefix else None
