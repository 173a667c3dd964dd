"""From a prompt's text to token ids, by a stated policy, with exactly the tokens a user would get.

`raw`               the text by the tokenizer's defaults (as in the source study)
`chat`              the text as the user's turn of the chat template, up to the assistant's turn
`chat+system:HASH`  the same below a system prompt, which the hash names

Each has one BOS where the tokenizer's defaults add one, and never two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from axes.warehouse.errors import ModelError
from axes.warehouse.names import TEMPLATES
from axes.warehouse.writer import content_key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Template:
    """A policy, and for `chat` a system prompt if there is one; `name` is the stored key."""

    policy: str = "raw"
    system: str | None = None

    def __post_init__(self) -> None:
        if self.policy not in TEMPLATES:
            raise ModelError(
                f"unknown template {self.policy}: it is raw or chat, "
                "and with a system prompt --template chat --system FILE"
            )
        if self.system is not None and self.policy == "raw":
            raise ModelError("a system prompt needs the chat template: add --template chat")

    @property
    def name(self) -> str:
        """What the column `template` holds.

        >>> Template("chat").name, Template("chat", "Be brief.").name
        ('chat', 'chat+system:b1cc2ec6')
        """
        if self.system is None:
            return self.policy
        return f"{self.policy}+system:{content_key(self.system)[:8]}"


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
        *complete, marked = _chats(tokenizer, [*texts, _MARK], template, model)
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


def _chats(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], template: Template, model: str
) -> list[str]:
    from jinja2 import TemplateError

    if tokenizer.chat_template is None:
        raise ModelError(f"{model} has no chat template: use --template raw")
    before = [] if template.system is None else [{"role": "system", "content": template.system}]
    try:
        return [
            str(
                tokenizer.apply_chat_template(
                    [*before, {"role": "user", "content": text}],
                    add_generation_prompt=True,
                    tokenize=False,
                )
            )
            for text in texts
        ]
    except TemplateError as error:
        raise ModelError(f"the chat template of {model} refuses the prompt: {error}") from error


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
