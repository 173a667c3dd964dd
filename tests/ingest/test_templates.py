"""Prompts become exactly the tokens a user would get, with one BOS."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from ingest.templates import Template, pad_id, render
from tests.tiny_models import byte_tokenizer
from warehouse.errors import ModelError

BOS = 1


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], policy: str, model: str = "m"
) -> list[list[int]]:
    return [prompt.token_ids for prompt in render(tokenizer, texts, Template(policy), model)]


@pytest.mark.parametrize("template", ["raw", "chat"])
@pytest.mark.parametrize("text", ["hello", "two\nlines", "café", "s"])
def test_there_is_exactly_one_bos(template: str, text: str) -> None:
    (tokens,) = encode(byte_tokenizer(), [text], template)
    assert tokens[0] == BOS
    assert tokens.count(BOS) == 1


def test_raw_is_the_tokenizers_own_default() -> None:
    tokenizer = byte_tokenizer()
    assert encode(tokenizer, ["hello"], "raw") == [tokenizer("hello").input_ids]
    bare = byte_tokenizer(adds_bos=False)
    assert BOS not in encode(bare, ["hello"], "raw")[0]
    assert bare.decode(encode(bare, ["hello"], "raw")[0]) == "hello"


def test_chat_is_the_users_turn_up_to_where_the_answer_begins() -> None:
    tokenizer = byte_tokenizer()
    (tokens,) = encode(tokenizer, ["hello"], "chat")
    assert tokenizer.decode(tokens) == "<s><user>hello<assistant>"
    turn = [{"role": "user", "content": "hello"}]
    own = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    assert tokens == own


def test_texts_are_neither_padded_nor_cut_and_keep_their_order() -> None:
    tokenizer = byte_tokenizer()
    texts = ["a" * 700, "b", "", "cc"]
    for template in ("raw", "chat"):
        together = encode(tokenizer, texts, template)
        assert together == [encode(tokenizer, [text], template)[0] for text in texts]
        assert len(together[0]) >= 701
    assert encode(tokenizer, [], "raw") == []


def test_without_a_chat_template_the_error_says_what_to_do() -> None:
    with pytest.raises(ModelError) as caught:
        encode(byte_tokenizer(chat=False), ["hello"], "chat", "base-model")
    assert str(caught.value) == "base-model has no chat template: use --template raw"


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_token() -> None:
    tokenizer = byte_tokenizer()
    assert pad_id(tokenizer) == 0
    tokenizer.pad_token = None
    assert pad_id(tokenizer) == tokenizer.eos_token_id == 2
    tokenizer.eos_token = None
    assert pad_id(tokenizer) == 0


def test_an_unknown_policy_is_refused_and_not_taken_for_another() -> None:
    with pytest.raises(ModelError, match="unknown template other: it is raw or chat"):
        encode(byte_tokenizer(), ["text"], "other", "tiny")
