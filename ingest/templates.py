"""From a prompt's text to token ids, by a stated policy, with exactly the tokens a user would get.

`raw`   the text through the tokenizer's own defaults (the source study's way)
`chat`  the text as the user's turn of the model's chat template, up to where the answer begins
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from warehouse.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATES = ("raw", "chat")


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], template: str, model: str
) -> list[list[int]]:
    """Token ids of each text, unpadded and untruncated.

    Raises `ModelError` for an unknown policy, and for `chat` where the model has no template.
    """
    if template not in TEMPLATES:
        raise ModelError(f"unknown template {template}: it is one of {', '.join(TEMPLATES)}")
    if template == "raw":
        return list(tokenizer(list(texts), verbose=False).input_ids) if texts else []
    if tokenizer.chat_template is None:
        raise ModelError(f"{model} has no chat template: use --template raw")
    # The template writes its own BOS; special tokens are not added a second time.
    rendered = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
        )
        for text in texts
    ]
    return list(tokenizer(rendered, add_special_tokens=False, verbose=False).input_ids)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token id to fill padding with; which one does not matter, the mask hides it."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return candidate
    return 0
