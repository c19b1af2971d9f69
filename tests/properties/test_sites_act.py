"""Every site that model.sites names is a place where an edit acts: on what reads it, and on nothing else."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from tests.forms import DENSE, NATIVE, held_as, only
from workbench.model import HookedGptOss, Sites

form = held_as(DENSE, NATIVE)  # tests/model/test_packed.py edits every site in both packed forms
SITES = list(Sites(3))
ONE_OF_EACH = [site for site in SITES if not site.startswith(("blocks.0.", "blocks.2."))]
# Keys and values are read by later queries too; every other site of the last layer by its own position alone.
READ_BY_LATER = ("hook_resid_pre", "ln1.", "hook_k_in", "hook_v_in", "hook_k", "hook_v", "hook_rot_k")
READ_AT = 5


def noisy(seed: int, where: slice | int = slice(None)) -> Callable[[Tensor, HookPoint], Tensor]:
    """An edit that is no null: noise on a site's values at some positions; other experts in the slots of indices."""

    def edit(value: Tensor, hook: HookPoint) -> Tensor:
        new = value.clone()
        axis = 2 if hook.name.endswith(("hook_pattern", "hook_attn_scores")) else 1
        part = new.select(axis, where) if isinstance(where, int) else new
        if not value.is_floating_point():
            part.copy_((part + 1) % 6)
            return new
        noise = torch.randn(part.shape, generator=torch.Generator().manual_seed(seed), dtype=value.dtype)
        part.add_(noise)
        return new

    return edit


@only(DENSE)
@pytest.mark.parametrize("site", SITES)
def test_an_edit_of_a_site_changes_the_logits(
    model: HookedGptOss, tokens: Tensor, plain: Tensor, seed: int, site: str
) -> None:
    edited = model.run_with_hooks(tokens, fwd_hooks=[(site, noisy(seed))])
    assert torch.isfinite(edited).all() and (edited - plain).abs().max() > 1e-6


@pytest.mark.parametrize("site", [site for site in SITES if not site.startswith(("blocks.0.", "blocks.1."))])
def test_the_last_layer_at_other_positions_does_not_act_on_the_one_read(
    model: HookedGptOss, tokens: Tensor, plain: Tensor, seed: int, site: str
) -> None:
    read_by_later = site == "hook_embed" or site.removeprefix("blocks.2.").removeprefix("attn.").startswith(
        READ_BY_LATER
    )
    for position in (READ_AT + 1, READ_AT - 1, READ_AT):
        edited = model.run_with_hooks(tokens, fwd_hooks=[(site, noisy(seed, position))])
        moved = (edited - plain)[:, READ_AT].abs().max() > 1e-8
        assert moved == (position == READ_AT or (read_by_later and position < READ_AT)), position


READERS = {
    "attn.hook_q_in": ("attn.hook_q", "attn.hook_rot_q"),
    "attn.hook_k_in": ("attn.hook_k", "attn.hook_rot_k"),
    "attn.hook_v_in": ("attn.hook_v",),
    "mlp.hook_router_in": ("mlp.hook_router_logits", "mlp.hook_expert_indices", "mlp.hook_expert_weights"),
    "mlp.hook_expert_in": ("mlp.hook_expert_gate", "mlp.hook_expert_up", "mlp.hook_expert_act", "mlp.hook_expert_out"),
}


@pytest.mark.parametrize("in_place", [False, True], ids=["returned", "in place"])
@pytest.mark.parametrize("reader", READERS)
def test_an_edit_of_what_one_reader_gets_leaves_the_others_as_they_were(
    model: HookedGptOss, tokens: Tensor, reader: str, in_place: bool
) -> None:
    def edit(value: Tensor, hook: HookPoint) -> Tensor | None:
        if not in_place:
            return value.flip(-1)
        value.copy_(value.flip(-1))
        return None

    before = model.run_with_cache(tokens)[1]
    with model.hooks(fwd_hooks=[(f"blocks.1.{reader}", edit)]):
        after = model.run_with_cache(tokens)[1]
    own = {f"blocks.1.{name}" for name in (reader, *READERS[reader])}
    others = [f"blocks.1.{name}" for key, sites in READERS.items() if key != reader for name in (key, *sites)]
    if reader == "mlp.hook_router_in":  # other experts read the same stream
        others = [name for name in others if "hook_expert_" not in name or name.endswith("hook_expert_in")]
    elif reader.startswith("attn"):
        others = [name for name in others if ".attn." in name]
    assert all(torch.equal(before[name], after[name]) for name in others)
    assert all(not torch.equal(before[name], after[name]) for name in own)


def test_an_edit_in_place_is_the_same_as_one_returned_at_every_site(
    model: HookedGptOss, tokens: Tensor, seed: int
) -> None:
    for site in ONE_OF_EACH:
        returned = noisy(seed)
        with model.hooks(fwd_hooks=[(site, returned)]):
            logits, cache = model.run_with_cache(tokens)

        def in_place(value: Tensor, hook: HookPoint, edit: Callable = returned) -> None:
            value.copy_(edit(value, hook))

        with model.hooks(fwd_hooks=[(site, in_place)]):
            logits_again, cache_again = model.run_with_cache(tokens)
        assert torch.equal(logits, logits_again), site
        differing = [name for name in SITES if not torch.equal(cache[name], cache_again[name])]
        assert not differing, (site, differing)


def test_edits_with_gradients_on_act_as_without(model: HookedGptOss, tokens: Tensor, seed: int) -> None:
    for site in ONE_OF_EACH:
        hooks = [(site, noisy(seed))]
        without = model.run_with_hooks(tokens, fwd_hooks=hooks)
        with torch.enable_grad():
            assert torch.equal(model.run_with_hooks(tokens, fwd_hooks=hooks), without), site
