"""The sites that our model and TransformerBridge both have: (our name, its name)."""

from __future__ import annotations

_OUTER = [
    ("hook_embed", "hook_embed"),
    ("ln_final.hook_scale", "ln_final.hook_scale"),
    ("ln_final.hook_normalized", "ln_final.hook_normalized"),
]
# TransformerBridge holds the routing weights as [token, expert], ours are [batch, pos, slot]; all else is alike.
_BLOCK = [
    *((f"hook_{name}",) * 2 for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")),
    *((f"{norm}.{name}",) * 2 for norm in ("ln1", "ln2") for name in ("hook_scale", "hook_normalized")),
    *((f"attn.hook_{name}",) * 2 for name in ("q", "k", "v", "rot_q", "rot_k", "attn_scores", "pattern", "z")),
    ("mlp.hook_router_logits", "mlp.router.hook_out"),
    ("mlp.hook_expert_weights", "mlp.hook_expert_weights"),
    ("mlp.hook_expert_indices", "mlp.hook_expert_indices"),
]
# Ends of the names of all residual, attention and routing sites; without hook_result, 64 streams a layer.
WHOLE_ANSWER = (
    *("hook_embed", "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out"),
    *("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_attn_scores", "hook_pattern", "hook_z"),
    *("hook_sink", "hook_sink_logit", "hook_router_logits", "hook_expert_indices", "hook_expert_weights"),
)


def shared_sites(n_layers: int) -> list[tuple[str, str]]:
    """All of them, for a model of that many layers."""
    blocks = [
        (f"blocks.{layer}.{ours}", f"blocks.{layer}.{theirs}") for layer in range(n_layers) for ours, theirs in _BLOCK
    ]
    return [*_OUTER, *blocks]
