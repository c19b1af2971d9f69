"""The most memory that is in use at one moment of a forward: the model's code walked through, sizes for tensors.

Each function here follows the method of the same name in ``transformer.py``, ``attention.py``, ``moe.py`` or
``norm.py``, and takes and drops what that one makes and lets go. tests/model/test_memory.py holds the sums against
what torch's allocator counts, so a change there that is not followed here is noticed.
"""

from __future__ import annotations

from workbench.model.memory.attend import attention
from workbench.model.memory.ledger import Ledger, Sizes
from workbench.model.memory.sizes import INDEX


def norm(ledger: Ledger, s: Sizes, name: str) -> int:
    wide, scale = s.wide(s.tokens, s.config.d_model), s.wide(s.tokens)
    x = ledger.take(wide) if s.half else 0
    ledger.pass_by(wide)  # squares
    scale = ledger.show(f"{name}.hook_scale", ledger.take(scale))
    normalized = ledger.show(f"{name}.hook_normalized", ledger.take(wide))
    scaled = ledger.take(wide, "norm")
    if s.half:
        ledger.take(s.stream, "norm")
        ledger.drop(scaled)
    ledger.drop(x + scale, saved=True)
    ledger.drop(normalized, saved=ledger.trains)
    return s.stream


def moe(ledger: Ledger, s: Sizes) -> int:
    c = s.config
    slots = s.tokens * c.experts_per_token
    router_in = ledger.show_apart("mlp.hook_router_in", s.stream)
    router_logits = ledger.show("mlp.hook_router_logits", ledger.take(s.of(s.tokens, c.n_experts)))
    ledger.drop(router_in, saved=ledger.trains)
    values, indices = ledger.take(s.of(slots)), ledger.take(INDEX * slots)
    indices += ledger.show_apart("mlp.hook_expert_indices", INDEX * slots)
    weights = ledger.show("mlp.hook_expert_weights", ledger.take(s.of(slots)))
    ledger.drop(values)
    written = expert_outputs(ledger, s)
    ledger.take(s.stream, "experts' sum")
    ledger.drop(written + weights + indices, saved=True)
    ledger.drop(router_logits)
    return s.stream


def expert_outputs(ledger: Ledger, s: Sizes) -> int:
    c = s.config
    slots = s.tokens * c.experts_per_token
    expert_in = ledger.show_apart("mlp.hook_expert_in", s.stream)
    order = ledger.take(3 * INDEX * slots)  # Dispatch: order, inverse, expert_of_row
    token_of_row = ledger.take(INDEX * slots)
    rows = ledger.take(s.of(slots, c.d_model))
    ledger.drop(token_of_row, saved=True)
    gate_up = grouped_linear(ledger, s, 2 * c.d_mlp, "experts' gate and up")
    gate = through(ledger, s, "mlp.hook_expert_gate")
    up = through(ledger, s, "mlp.hook_expert_up")
    d_mlp = s.of(slots, c.d_mlp)
    clamped_swiglu(ledger, d_mlp)
    act = d_mlp
    if "mlp.hook_expert_act" in ledger.listened:
        again = through(ledger, s, "mlp.hook_expert_act")
        ledger.drop(act)
        act = again
    down = grouped_linear(ledger, s, c.d_model, "experts' down")
    out = ledger.take(s.of(slots, c.d_model), "experts' outputs by slot")
    ledger.drop(down)
    out = ledger.show("mlp.hook_expert_out", out)
    # Packed matrices are constants: what they were multiplied with is not needed for their gradient.
    ledger.drop(rows + act, saved=ledger.trains and not s.packed)
    apart = "mlp.hook_expert_gate" in ledger.listened and "mlp.hook_expert_up" in ledger.listened
    ledger.drop(gate_up, saved=not apart)
    ledger.drop(gate + up, saved=True)
    ledger.drop(expert_in)
    ledger.drop(order)
    ledger.save(INDEX * slots)  # the inverse, for the way back from slots
    return out


def grouped_linear(ledger: Ledger, s: Sizes, d_out: int, moment: str) -> int:
    out = s.of(s.tokens * s.config.experts_per_token, d_out)
    if s.packed:
        # Scratch: the native engine lays the rows out anew; elsewhere one expert's matrix is unpacked at a time.
        rows = s.of(s.tokens * s.config.experts_per_token, max(s.config.d_model, s.config.d_mlp))
        ledger.pass_by(out + (rows if s.device == "cpu" else s.of(2 * s.config.d_mlp, s.config.d_model)), moment)
    else:
        ledger.pass_by(2 * out, moment)  # the experts' parts, and all of them joined
    return ledger.take(out, moment)


def through(ledger: Ledger, s: Sizes, site: str) -> int:
    """From expert order to tokens and slots, past a site, and back; nothing where nobody listens."""
    if site not in ledger.listened:
        return 0
    n = s.of(s.tokens * s.config.experts_per_token, s.config.d_mlp)
    shown = ledger.show(site, ledger.take(n))
    ledger.take(n, "experts' sites")
    ledger.drop(shown)
    return n


def clamped_swiglu(ledger: Ledger, n: int) -> None:
    gate, up = ledger.take(n), ledger.take(n)
    plus_one = ledger.take(n)
    scaled = ledger.take(n)
    sigmoid = ledger.take(n, "experts' activation")
    ledger.drop(scaled)
    gated = ledger.take(n, "experts' activation")
    ledger.drop(sigmoid, saved=True)
    ledger.take(n, "experts' activation")
    ledger.drop(gate + plus_one + gated, saved=True)
    ledger.drop(up)


def block(ledger: Ledger, s: Sizes, window: int | None, incoming: int) -> int:
    """One layer. ``incoming`` bytes of the stream that it reads are counted already and are dropped when it is done
    with them (0 where a site keeps that very tensor); gives those of the stream that it leaves."""
    resid_pre = ledger.show_apart("hook_resid_pre", s.stream)
    x = norm(ledger, s, "ln1")
    attn_out = ledger.show("hook_attn_out", attention(ledger, s, window))
    # A linear map's backward needs what it read: a site between gave each reader a copy of its own.
    ledger.drop(x, saved=ledger.trains and not all(f"attn.hook_{which}_in" in ledger.listened for which in "qkv"))
    resid_mid = ledger.show("hook_resid_mid", ledger.take(s.stream))
    ledger.drop(attn_out)
    x = norm(ledger, s, "ln2")
    mlp_out = ledger.show("hook_mlp_out", moe(ledger, s))
    ledger.drop(x, saved=ledger.trains and "mlp.hook_router_in" not in ledger.listened)
    resid_post = ledger.show("hook_resid_post", ledger.take(s.stream))
    ledger.drop(mlp_out)
    # RMSNorm's backward needs what it read; a half-precision stream was copied to float32 there.
    ledger.drop(resid_mid, saved=not s.half)
    ledger.drop(resid_pre + (0 if resid_pre else incoming), saved=not s.half)
    ledger.drop(incoming if resid_pre else 0)
    return resid_post


def returned(ledger: Ledger, s: Sizes, returns: str | None, incoming: int) -> None:
    """From the last residual stream to what the model gives back."""
    if returns is None:
        ledger.drop(incoming, saved=not s.half)
        return
    x = norm(ledger, s, "ln_final")
    logits = ledger.take(s.of(s.unembedded, s.config.d_vocab), "logits")
    ledger.drop(x, saved=ledger.trains)
    ledger.drop(incoming, saved=not s.half)
    scored = s.unembedded if returns == "logprobs" else s.batch * (s.length - 1)
    wide = s.wide(scored, s.config.d_vocab)
    if returns != "logits":
        # In float32 (a half-precision model's logits are copied to it first); the loss lays them out anew.
        passing = ledger.take(wide * (s.half + (returns != "logprobs")), "loss")
        probabilities = ledger.take(wide, "loss")
        ledger.drop(passing)
        ledger.drop(probabilities if returns != "logprobs" else 0, saved=True)
    ledger.drop(logits if returns in ("loss", "logprobs") else 0)
