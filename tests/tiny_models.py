"""Tiny randomly initialised models with a tokenizer, saved as a user's local folder would be."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message.role }}>{{ message.content }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)

# Sizes that every family of the source study accepts.
SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def byte_tokenizer(*, adds_bos: bool = True, chat: bool = True) -> PreTrainedTokenizerFast:
    """One token a byte: pad 0, bos 1, eos 2, then the 256 bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT_TEMPLATE if chat else None,
    )


def tiny_model(architecture: str, *, seed: int = 0, **sizes: int) -> torch.nn.Module:
    """A causal language model of a transformers `model_type`, float32, in evaluation mode."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(architecture, **{**SIZES, **sizes})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def save_tiny(
    folder: Path, architecture: str, *, seed: int = 0, chat: bool = True, **sizes: int
) -> Path:
    """A tiny model and its tokenizer in `folder`, as safetensors."""
    tiny_model(architecture, seed=seed, **sizes).save_pretrained(folder)
    byte_tokenizer(chat=chat).save_pretrained(folder)
    return folder
