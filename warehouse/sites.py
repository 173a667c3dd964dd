"""The places in a transformer block that the column `site` names.

resid_post  the residual stream after the block: its output
resid_pre   the residual stream before the block: its input
attn_out    what attention adds to the residual stream
mlp_out     what the MLP, or the mixture of experts, adds to it
"""

RESID_POST = "resid_post"
SITES = (RESID_POST, "resid_pre", "attn_out", "mlp_out")
