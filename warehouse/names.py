"""Names that stand in the tables, and what a mistyped name was probably meant to be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

# The places in a transformer block that the column `site` names: the residual stream after the
# block (its output) and before it, and what attention and the MLP (or mixture of experts) add.
RESID_POST = "resid_post"
SITES = (RESID_POST, "resid_pre", "attn_out", "mlp_out")
# A site of mixture-of-experts blocks: the gate's logits, a number for each expert. They are of
# another width, and in no space that an axis lies in.
ROUTER = "router"

# Precision that a pooled vector may be rounded to; `pooling` then ends in + and its name.
STORE_DTYPES = ("float16", "bfloat16")

# What the column `template` begins with: the prompt's text alone, or in the model's chat template.
TEMPLATES = ("raw", "chat")

# Poolings without stored vectors: a prompt's score is made of its tokens' projections.
TOKEN_POOLINGS = ("tokens_mean", "tokens_max", "tokens_rolling_max", "tokens_attention")

# `models.source` of a model that no job here has run: its vectors were imported. What an import
# does not say of a model or prompt is `UNKNOWN`, or 0 where the column is a number.
IMPORTED = "imported"
UNKNOWN = "unknown"


def sql_literal(text: str) -> str:
    """A text as a SQL literal, for statements that are shown or that take no parameters.

    >>> sql_literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def with_literals(sql: str, parameters: Sequence[object] | Mapping[str, object]) -> str:
    """A statement with its parameters filled in, to be shown and run again.

    >>> with_literals("from x where a = ? and list_contains(?, b)", ["it", ["c", "d"]])
    "from x where a = 'it' and list_contains(['c', 'd'], b)"
    """
    if isinstance(parameters, Mapping):
        return re.sub(r"\$(\w+)", lambda match: _literal(parameters[match[1]]), sql).strip()
    values = iter(parameters)
    return re.sub(r"\?", lambda _: _literal(next(values)), sql).strip()


def _literal(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return sql_literal(value) if isinstance(value, str) else str(value)


def counted(count: int, noun: str) -> str:
    """`1 token`, `2 tokens`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """` (did you mean NEAR?)`, to stand behind the name in a message; empty where none is near.

    >>> did_you_mean("SmolM2-135m", ["smollm2-135m", "gemma3-270m"])
    ' (did you mean smollm2-135m?)'
    >>> did_you_mean("nothing", ["smollm2-135m"])
    ''
    """
    import difflib  # Only where something is wrong: every command imports this module.

    lowered = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f" (did you mean {lowered[near[0]]}?)" if near else ""
