"""Prompts become exactly the tokens a user would get, with one BOS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from axes.ingest.forward.pooling import POOLINGS
from axes.ingest.forward.templates import Template, pad_id, render, unused_additions
from axes.warehouse.errors import ModelError
from tests.tiny_models import byte_tokenizer

BOS = 1


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], policy: str, model: str = "m"
) -> list[list[int]]:
    return [prompt.token_ids for prompt in render(tokenizer, texts, Template(policy), model)]


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


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_token() -> None:
    tokenizer = byte_tokenizer()
    assert pad_id(tokenizer) == 0
    tokenizer.pad_token = None
    assert pad_id(tokenizer) == tokenizer.eos_token_id == 2
    tokenizer.eos_token = None
    assert pad_id(tokenizer) == 0


def end_of_user(
    tokenizer: PreTrainedTokenizerBase, text: str, template: Template
) -> tuple[str, str]:
    """What stands before and after the end of the user's text, decoded."""
    (prompt,) = render(tokenizer, [text], template, "m")
    assert prompt.user_end is not None
    ids = prompt.token_ids
    return tokenizer.decode(ids[: prompt.user_end]), tokenizer.decode(ids[prompt.user_end :])


@pytest.mark.parametrize("text", ["hello", "café", "two\nlines", "<assistant>", "user"])
def test_the_end_of_the_users_text_is_found_under_every_template_behind_one_bos(text: str) -> None:
    tokenizer = byte_tokenizer()
    assert end_of_user(tokenizer, text, Template()) == (f"<s>{text}", "")
    chat = end_of_user(tokenizer, text, Template("chat"))
    assert chat == (f"<s><user>{text}", "<assistant>")
    # The text stands in the system prompt too; the turn itself is meant.
    with_system = end_of_user(tokenizer, text, Template("chat", f"Answer {text} well."))
    assert with_system == (f"<s><system>Answer {text} well.<user>{text}", "<assistant>")


def test_a_template_of_parts_is_given_parts_and_drops_no_text() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for turn in messages %}<{{ turn.role }}>{% for part in turn.content %}"
        "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert end_of_user(tokenizer, "hello", Template("chat", "Be kind.", prefill="Well,")) == (
        "<s><system>Be kind.<user>hello",
        "<assistant>Well,",
    )


TURNS = {
    "marks": "{{ bos_token }}<user>{{ messages[-1].content }}</s><assistant>",
    "no marks": "{{ messages[-1].content }}",
    "text first": "{{ messages[-1].content }}</s><assistant>",
    "line": "### User:\n{{ messages[-1].content }}\n\n### Assistant:\n",
    "system": "{% for m in messages %}<s>{{ m.role }} {{ m.content }}</s>{% endfor %}",
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("text", ["hello", " café ", "</s>", "user", "### User:\nme", "日本"])
def test_the_content_is_the_users_text_and_nothing_of_any_template(turn: str, text: str) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TURNS[turn]
    system = "Be user hello." if turn == "system" else None
    for template in (Template(), Template("chat", system)):
        (prompt,) = render(tokenizer, [text], template, "m")
        assert prompt.user_start is not None and prompt.user_end is not None
        assert tokenizer.decode(prompt.token_ids[prompt.user_start : prompt.user_end]) == text
        # What stands before is there for any other text too.
        (other,) = render(tokenizer, ["x"], template, "m")
        assert prompt.token_ids[: prompt.user_start] == other.token_ids[: other.user_start]


def test_a_token_that_spans_the_border_belongs_to_the_content() -> None:
    """Cut apart, `:h` is two tokens: the text alone would give others than the model reads."""
    tokenizer = byte_tokenizer()
    grown = json.loads(tokenizer.backend_tokenizer.to_str())
    grown["model"]["vocab"][":h"] = len(grown["model"]["vocab"])
    grown["model"]["merges"] = [[":", "h"]]
    grown["pre_tokenizer"]["use_regex"] = False
    joined = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(grown)), bos_token="<s>"
    )
    joined.chat_template = "user:{{ messages[0].content }}|"
    (prompt,) = render(joined, ["hi"], Template("chat"), "m")
    content = prompt.token_ids[prompt.user_start : prompt.user_end]
    assert joined.convert_ids_to_tokens(content) == [":h", "i"]


def test_a_text_of_no_characters_has_no_content() -> None:
    (prompt,) = render(byte_tokenizer(), [""], Template(), "m")
    assert POOLINGS["content_mean"].positions(prompt) is None


def test_a_template_that_rewrites_the_text_leaves_its_end_unknown() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content | upper }}!"
    (prompt,) = render(tokenizer, ["hello"], Template("chat"), "m")
    assert tokenizer.decode(prompt.token_ids) == "<s>HELLO!"
    assert prompt.user_start is prompt.user_end is None


def test_a_tokenizer_without_a_fast_version_gives_the_same(tmp_path: Path) -> None:
    slow = ByT5Tokenizer()
    assert not slow.is_fast
    slow.chat_template = "[{{ messages[0].content }}]"
    (raw,) = render(slow, ["héllo"], Template(), "m")
    assert raw.token_ids == slow("héllo").input_ids, "its own default, the end token included"
    assert slow.decode(raw.token_ids[raw.user_start : raw.user_end]) == "héllo"
    assert raw.token_ids[raw.user_end :] == [slow.eos_token_id]
    (chat,) = render(slow, ["héllo"], Template("chat"), "m")
    assert slow.decode(chat.token_ids[: chat.user_end]) == "[héllo"
    assert slow.decode(chat.token_ids[chat.user_end :]) == "]"
    assert slow.decode(chat.token_ids[chat.user_start : chat.user_end]) == "héllo"


@pytest.mark.parametrize("writes_bos", [True, False])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_chat_has_one_bos_whoever_writes_it_and_none_where_nobody_does(writes_bos, adds_bos):
    tokenizer = byte_tokenizer(adds_bos=adds_bos)
    if not writes_bos:
        tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "")
    (prompt,) = render(tokenizer, ["hi"], Template("chat"), "m")
    assert prompt.token_ids.count(BOS) == int(writes_bos or adds_bos)
    assert tokenizer.decode(prompt.token_ids[: prompt.user_end]).endswith("<user>hi")


def test_a_system_prompt_is_in_the_tokens_the_name_and_the_hash() -> None:
    tokenizer = byte_tokenizer()
    plain, one, other = Template("chat"), Template("chat", "Be kind."), Template("chat", "Be.")
    assert len({plain.name, one.name, other.name}) == 3
    hashes = {render(tokenizer, ["hi"], template, "m")[0].text_hash for template in (one, other)}
    assert len(hashes) == 2
    (prompt,) = render(tokenizer, ["hi"], one, "m")
    assert tokenizer.decode(prompt.token_ids) == "<s><system>Be kind.<user>hi<assistant>"


def test_what_cannot_be_rendered_says_what_to_do() -> None:
    with pytest.raises(ModelError, match="^base has no chat template: use --template raw$"):
        encode(byte_tokenizer(chat=False), ["hello"], "chat", "base")
    with pytest.raises(ModelError, match="unknown template other: it is raw or chat"):
        encode(byte_tokenizer(), ["text"], "other", "tiny")
    with pytest.raises(ModelError, match="a system prompt needs the chat template"):
        Template("raw", "Be kind.")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    refused = "the chat template of m refuses the prompt: System role not supported"
    with pytest.raises(ModelError, match=refused):
        render(tokenizer, ["hi"], Template("chat", "Be kind."), "m")


# As the templates of reasoning models: an option with a default, in the generation prompt.
THINKING = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    "{% endif %}"
)


def thinking_text(*options: str, prefill: str | None = None) -> str:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = THINKING
    template = Template("chat", options=options, prefill=prefill)
    return tokenizer.decode(render(tokenizer, ["hi"], template, "m")[0].token_ids)


@pytest.mark.parametrize("value", ["false", "False", "0", '""', "[]"])
def test_an_option_reaches_the_chat_template_as_a_value_and_not_as_a_text(value: str) -> None:
    assert thinking_text() == "<s><user>hi<assistant>"
    assert thinking_text(f"enable_thinking={value}") == "<s><user>hi<assistant><think></think>"
    for true in ("true", "True", "1", "low"):
        assert thinking_text(f"enable_thinking={true}") == thinking_text()


def test_a_prefill_continues_the_assistants_turn_and_the_users_text_ends_where_it_did() -> None:
    tokenizer = byte_tokenizer()
    template = Template("chat", "Be kind.", prefill="Sure, here")
    before, after = end_of_user(tokenizer, "Sure, here", template)
    assert before == "<s><system>Be kind.<user>Sure, here"
    assert after == "<assistant>Sure, here"


def test_each_addition_is_another_key_which_neither_order_nor_spelling_changes() -> None:
    def name(*options: str, prefill: str | None = None) -> str:
        return Template("chat", options=options, prefill=prefill).name

    assert name() == "chat"
    assert name("enable_thinking=false") == name("enable_thinking=False")
    assert name("b=1", "a=2") == name("a=2", "b=1") == "chat+a=2+b=1"
    assert name('tools=[{"a": 1, "b": 2}]') == name('tools=[{"b":2,"a":1}]')
    distinct = [
        name(),
        name("a=1"),
        name('a="1"'),
        name("a=true"),
        name('a="true"'),
        name("a=two words"),
        name("a=" + "x" * 40),
        name("a=" + "x" * 41),
        name("b=1"),
        name(prefill="1"),
        name(prefill="1 "),
        name("a=1", prefill="1"),
    ]
    assert len(set(distinct)) == len(distinct)
    assert all(len(each) < 64 for each in distinct)


def test_an_addition_that_changes_no_prompt_is_named() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = THINKING
    used = Template("chat", "Be kind.", ("enable_thinking=false",), "Sure,")
    # A prefill takes the place of what the option adds here, and says so.
    (remark,) = unused_additions(tokenizer, used, "m")
    assert remark.startswith("template option enable_thinking=false changes nothing: ")
    template = Template("chat", "Be kind.", ("enable_thinking=false", "reasoning_effort=low"))
    (remark,) = unused_additions(tokenizer, template, "m")
    assert "reasoning_effort=low" in remark and "\n" not in remark
    tokenizer.chat_template = "{{ messages[-1].content }}"
    (remark,) = unused_additions(tokenizer, Template("chat", "Be kind."), "m")
    assert remark.startswith("the system prompt changes nothing: the chat template of m ignores")
    assert unused_additions(tokenizer, Template("chat"), "m") == []
    assert unused_additions(tokenizer, Template(), "m") == []


@pytest.mark.parametrize(
    ("options", "prefill", "message"),
    [
        (("enable_thinking",), None, "enable_thinking is not a template option: NAME=VALUE"),
        (("=false",), None, "=false is not a template option"),
        (("a b=1",), None, "a b=1 is not a template option"),
        (("a=1", "a=2"), None, "a template option is given twice: a=1, a=2"),
        (("tokenize=true",), None, "tokenize is not a template option: rendering a prompt sets"),
        (("messages=[]",), None, "messages is not a template option"),
        (("chat_template=x",), None, "chat_template is not a template option"),
        (("tools=5",), None, "the chat template of m refuses the prompt: "),
        ((), " ", "the assistant prefill is empty"),
    ],
)
def test_a_malformed_addition_is_one_line(options, prefill, message) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        render(byte_tokenizer(), ["hi"], Template("chat", None, options, prefill), "m")
    assert "\n" not in str(caught.value)


def test_additions_need_the_chat_template_and_a_prefill_one_that_shows_it() -> None:
    with pytest.raises(ModelError, match="a template option needs the chat template: add --temp"):
        Template("raw", options=("a=1",))
    with pytest.raises(ModelError, match="an assistant prefill needs the chat template: add"):
        Template("raw", prefill="Sure,")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}"
    with pytest.raises(ModelError, match=r"^the chat template of m refuses [^\n]*$"):
        render(tokenizer, ["hi"], Template("chat", prefill="Sure,"), "m")
