"""What a cache holds and how it is asked: names, filters, slices."""

from collections.abc import Sequence

import pytest
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.utilities import get_act_name

from workbench.model import HookedGptOss, UnknownSite

SHORTHAND = {
    ("embed", None, None): "hook_embed",
    ("resid_pre", 0, None): "blocks.0.hook_resid_pre",
    ("resid_post", -1, None): "blocks.2.hook_resid_post",
    ("pattern", 1, None): "blocks.1.attn.hook_pattern",
    ("pattern", 1, "attn"): "blocks.1.attn.hook_pattern",
    ("attn_scores", 2, None): "blocks.2.attn.hook_attn_scores",
    ("q", 0, None): "blocks.0.attn.hook_q",
    ("rot_k", 0, None): "blocks.0.attn.hook_rot_k",
    ("v", 1, None): "blocks.1.attn.hook_v",
    ("z", -2, None): "blocks.1.attn.hook_z",
    ("result", 1, None): "blocks.1.attn.hook_result",
    ("scale", None, None): "ln_final.hook_scale",
    ("normalized", 2, "ln2"): "blocks.2.ln2.hook_normalized",
    ("sink", 1, "attn"): "blocks.1.attn.hook_sink",
    ("router_logits", 1, "mlp"): "blocks.1.mlp.hook_router_logits",
    ("expert_weights", -1, "mlp"): "blocks.2.mlp.hook_expert_weights",
}


@pytest.fixture(scope="module")
def cache(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> ActivationCache:
    with torch.no_grad():
        return model.run_with_cache(tokens)[1]


@pytest.mark.parametrize(("key", "name"), SHORTHAND.items())
def test_shorthand_finds_the_site_that_transformerlens_means_by_it(
    model: HookedGptOss, cache: ActivationCache, key: tuple[str, int | None, str | None], name: str
) -> None:
    assert cache[key] is cache.cache_dict[name]
    if key[1] is None or key[1] >= 0:
        assert get_act_name(*key) == name and name in model.sites


def test_a_whole_cache_holds_every_site_once(model: HookedGptOss, cache: ActivationCache) -> None:
    assert isinstance(cache, ActivationCache) and list(cache.keys()) == list(model.sites)
    assert set(model.hook_dict) == set(model.sites)


def test_filters_may_be_a_name_a_list_a_set_a_tuple_or_a_function(
    model: HookedGptOss, tokens: Int[Tensor, "batch pos"]
) -> None:
    two = ["blocks.0.attn.hook_z", "hook_embed"]
    for given in (two, tuple(two), set(two), lambda name: name in two):
        assert set(model.run_with_cache(tokens, names_filter=given)[1].keys()) == set(two)
    assert list(model.run_with_cache(tokens, names_filter=two[0])[1].keys()) == two[:1]


@pytest.mark.parametrize(
    "given", ["blocks.0.atn.hook_z", ["hook_embed", "blocks.0.atn.hook_z"], {"blocks.0.atn.hook_z"}]
)
def test_a_mistyped_name_is_refused_and_the_nearest_is_named(
    model: HookedGptOss, tokens: Int[Tensor, "batch pos"], given: str | list | set
) -> None:
    message = r"no activation 'blocks\.0\.atn\.hook_z'; closest is 'blocks\.0\.attn\.hook_z'; model\.sites lists all 99"
    with pytest.raises(UnknownSite, match=message):
        model.run_with_cache(tokens, names_filter=given)
    with pytest.raises(UnknownSite, match=message):
        model.add_caching_hooks(given)
    assert issubclass(UnknownSite, KeyError)


@pytest.mark.parametrize("given", [lambda name: "hook_zz" in name, [], set()])
def test_a_filter_that_keeps_nothing_is_refused(
    model: HookedGptOss, tokens: Int[Tensor, "batch pos"], given: object
) -> None:
    with pytest.raises(UnknownSite, match="matches none of the 99 sites"):
        model.run_with_cache(tokens, names_filter=given)


SLICES = [(-1, [13]), ((2, 9), range(2, 9)), ((3,), range(3)), ((1, 12, 4), (1, 5, 9)), ([0, 6, 13], (0, 6, 13))]


def position_axis(dims: tuple[str, ...]) -> int:
    return dims.index("query_pos") if "query_pos" in dims else dims.index("pos")


@pytest.mark.parametrize(("given", "kept"), SLICES, ids=[str(given) for given, _ in SLICES])
def test_a_slice_of_positions_is_taken_along_the_position_axis_of_every_site(
    model: HookedGptOss, tokens: Int[Tensor, "batch pos"], cache: ActivationCache, given: object, kept: Sequence[int]
) -> None:
    sliced = model.run_with_cache(tokens, pos_slice=given)[1]
    for site, meta in model.sites.items():
        expected = cache[site].index_select(position_axis(meta.dims), torch.tensor(list(kept)))
        assert torch.equal(sliced[site], expected), site


def test_a_slice_and_a_removed_batch_axis_go_together(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> None:
    whole = model.run_with_cache(tokens[:1])[1]
    part = model.run_with_cache(tokens[:1], remove_batch_dim=True, pos_slice=(2, 9))[1]
    for site, meta in model.sites.items():
        assert torch.equal(part[site], whole[site].narrow(position_axis(meta.dims), 2, 7)[0]), site
    assert part.has_batch_dim is False


def test_gradients_are_sliced_as_their_sites_are(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> None:
    names = ["blocks.1.mlp.hook_expert_act", "blocks.1.attn.hook_pattern", "blocks.1.attn.hook_sink"]
    whole = model.run_with_cache(tokens, names_filter=names, incl_bwd=True, return_type="loss")[1]
    part = model.run_with_cache(tokens, names_filter=names, incl_bwd=True, return_type="loss", pos_slice=(2, 9))[1]
    for name, axis in zip(names, (1, 2, 1), strict=True):
        assert torch.equal(part[f"{name}_grad"], whole[f"{name}_grad"].narrow(axis, 2, 7))


def test_a_removed_batch_axis_is_refused_for_several_rows(
    model: HookedGptOss, tokens: Int[Tensor, "batch pos"]
) -> None:
    for several in (tokens, tokens.tolist()):
        with pytest.raises(ValueError, match="remove_batch_dim=True needs a single row, and there are 2"):
            model.run_with_cache(several, remove_batch_dim=True)


def test_a_cache_can_be_a_plain_dict(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> None:
    assert type(model.run_with_cache(tokens, return_cache_object=False)[1]) is dict


def test_what_one_run_kept_is_not_changed_by_the_next(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> None:
    # TransformerLens stores without copying, so a site on a buffer that is used again would change under its reader.
    kept = model.run_with_cache(tokens)[1]
    copies = {name: value.clone() for name, value in kept.items()}
    model.run_with_cache(tokens.flip(1))
    assert all(torch.equal(kept[name], copies[name]) for name in model.sites)
