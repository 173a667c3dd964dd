"""What a name that nobody knows was probably meant to be.

The places in a transformer block that the column `site` names.

resid_post  the residual stream after the block: its output
resid_pre   the residual stream before the block: its input
attn_out    what attention adds to the residual stream
mlp_out     what the MLP, or the mixture of experts, adds to it
"""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean NEAR?)`, to stand behind the name in a message; empty where none is near.

    >>> did_you_mean("SmolM2-135m", ["smollm2-135m", "gemma3-270m"])
    ' (did you mean smollm2-135m?)'
    >>> did_you_mean("nothing", ["smollm2-135m"])
    ''
    """
    import difflib  # Only where something is wrong: every command imports this module.

    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f" (did you mean {lowered[near[0]]}?)" if near else ""


RESID_POST = "resid_post"
SITES = (RESID_POST, "resid_pre", "attn_out", "mlp_out")
