"""The source study's seven models, tiny and random, with the manners of the real ones.

Weights are stored in the dtype of the real checkpoint. Tokenizers begin with a BOS, split words and
wrap a chat as the real ones do: a NeoX has neither BOS nor chat template, Llama 2 and Mistral have
SentencePiece with bytes to fall back on, Llama 3 has headers, Qwen adds a system prompt of its own.
The templates are short versions that give the same text for one turn of a user.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.tiny_models import tiny_model

_LLAMA_2 = r"""
{%- for message in messages -%}
{%- if message.role == 'user' -%}{{ bos_token + '[INST] ' + message.content.strip() + ' [/INST]' }}
{%- else -%}{{ raise_exception('the short version is of one turn of a user') }}{%- endif -%}
{%- endfor -%}"""

_LLAMA_3 = r"""
{%- for message in messages -%}
{%- set head = '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' -%}
{{ (bos_token if loop.first else '') + head + message.content.strip() + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif -%}"""

_MISTRAL = r"""
{{- bos_token -}}
{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{{ '[INST] ' + message.content + ' [/INST]' if message.role == 'user' else message.content }}
{%- endfor -%}"""

_QWEN = r"""
{%- if messages[0].role != 'system' -%}
{{ '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"""


@dataclass(frozen=True)
class Family:
    """An architecture with the dtype of its checkpoints and the manners of its tokenizer."""

    architecture: str
    dtype: torch.dtype
    tokenizer_class: str
    eos: str
    bos: str | None = None
    adds_bos: bool = False
    is_sentence_piece: bool = False
    others: tuple[str, ...] = ()
    template: str | None = None


_NEOX = Family("gpt_neox", torch.float16, "GPTNeoXTokenizer", "<|endoftext|>", "<|endoftext|>")
FAMILIES = {
    "pythia-160m": _NEOX,
    "pythia-410m": _NEOX,
    "pythia-1b": _NEOX,
    "llama-2-13b-chat": Family(
        "llama",
        torch.float16,
        "LlamaTokenizer",
        eos="</s>",
        bos="<s>",
        adds_bos=True,
        is_sentence_piece=True,
        template=_LLAMA_2,
    ),
    "llama-3-8b-instruct": Family(
        "llama",
        torch.bfloat16,
        "PreTrainedTokenizerFast",
        eos="<|eot_id|>",
        bos="<|begin_of_text|>",
        adds_bos=True,
        others=("<|start_header_id|>", "<|end_header_id|>"),
        template=_LLAMA_3,
    ),
    "mistral-7b-instruct": Family(
        "mistral",
        torch.bfloat16,
        "LlamaTokenizer",
        eos="</s>",
        bos="<s>",
        adds_bos=True,
        is_sentence_piece=True,
        template=_MISTRAL,
    ),
    "qwen2.5-7b": Family(
        "qwen2",
        torch.bfloat16,
        "Qwen2Tokenizer",
        eos="<|im_end|>",
        others=("<|endoftext|>", "<|im_start|>"),
        template=_QWEN,
    ),
}
# What a chat of the one turn "Hello" is, as its tokens read.
CHATS = {
    "llama-2-13b-chat": "<s>[INST] Hello [/INST]",
    "llama-3-8b-instruct": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "mistral-7b-instruct": "<s> [INST] Hello [/INST]",
    "qwen2.5-7b": (
        "<|im_start|>system\nYou are Qwen.<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    ),
}


def save_family(folder: Path, name: str, *, seed: int) -> Path:
    """The tiny model of a name of the registry and its tokenizer, as safetensors."""
    family = FAMILIES[name]
    model = tiny_model(family.architecture, seed=seed, vocab_size=320)
    model.to(family.dtype).save_pretrained(folder, max_shard_size="40KB")
    make_tokenizer(family).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text().replace("TokenizersBackend", family.tokenizer_class))
    return folder


def make_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes with the manners of the family."""
    special = list(dict.fromkeys(filter(None, (family.bos, family.eos, *family.others))))
    tokenizer = _sentence_piece(special) if family.is_sentence_piece else _byte_level(special)
    if family.adds_bos:
        bos = str(family.bos)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=family.bos,
        eos_token=family.eos,
        additional_special_tokens=list(family.others),
        chat_template=family.template,
    )


def _byte_level(special: list[str]) -> Tokenizer:
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _sentence_piece(special: list[str]) -> Tokenizer:
    tokens = ["<unk>", *special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(special)
    return tokenizer
