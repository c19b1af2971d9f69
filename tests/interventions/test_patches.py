"""Patches from another run, and steering, against hooks written out and arithmetic done by hand."""

import pytest
import torch
from torch import Tensor

from workbench.activations import Run, run
from workbench.interventions import Patch, PatchExpert, Steer
from workbench.model import HookedGptOss

LAYER = 1


@pytest.fixture(scope="module")
def corrupt(model: HookedGptOss, tokens: Tensor) -> Tensor:
    return (tokens + 1) % model.config.d_vocab


@pytest.fixture(scope="module")
def clean(model: HookedGptOss, tokens: Tensor) -> Run:
    return run(model, tokens, sites="all", name="clean")


SITES = (
    "hook_embed",
    "blocks.0.hook_resid_mid",
    "blocks.1.attn.hook_rot_k",
    "blocks.1.attn.hook_pattern",
    "blocks.0.mlp.hook_router_logits",
    "blocks.1.mlp.hook_expert_act",
    "blocks.1.mlp.hook_expert_indices",
    "blocks.1.hook_mlp_out",
)


@pytest.mark.parametrize("site", SITES)
def test_a_patch_is_what_a_hook_that_puts_it_there_does(
    model: HookedGptOss, tokens: Tensor, corrupt: Tensor, clean: Run, site: str
):
    def put(x: Tensor, hook: object) -> Tensor:
        x = x.clone()
        if site.endswith("pattern"):
            x[:, :, [2, 4]] = clean[site][:, :, [3, 4]]
        else:
            x[:, [2, 4]] = clean[site][:, [3, 4]]
        return x

    spec = Patch(site, "clean", positions=(2, 4), source_positions=(3, 4))
    done = run(model, corrupt, [spec], sources={"clean": clean})
    assert torch.equal(done.logits, model.run_with_hooks(corrupt, fwd_hooks=[(site, put)]))


@pytest.mark.parametrize("site", SITES)
def test_the_identity_patch_changes_no_bit(model: HookedGptOss, tokens: Tensor, clean: Run, site: str):
    assert torch.equal(run(model, tokens, [Patch(site, "clean")], sources={"clean": clean}).logits, clean.logits)


@pytest.mark.parametrize("layer", [0, 1])
def test_the_whole_stream_patched_with_live_routing_is_the_clean_run(
    model: HookedGptOss, corrupt: Tensor, clean: Run, layer: int
):
    done = run(model, corrupt, [Patch(f"blocks.{layer}.hook_resid_pre", "clean")], sources={"clean": clean})
    assert torch.equal(done.logits, clean.logits)


def test_one_head_can_be_patched_alone(model: HookedGptOss, corrupt: Tensor, clean: Run):
    site = "blocks.1.attn.hook_z"
    done = run(model, corrupt, [Patch(site, "clean", component=2)], sites="all", sources={"clean": clean})
    plain = run(model, corrupt, sites="all")
    assert torch.equal(done[site][:, :, 2], clean[site][:, :, 2])
    assert torch.equal(done[site][:, :, [0, 1, 3]], plain[site][:, :, [0, 1, 3]])


def test_one_row_of_a_source_serves_every_row(model: HookedGptOss, corrupt: Tensor, clean: Run):
    one = run(model, clean.tokens[:1], sites="all")
    site = "blocks.0.hook_resid_post"
    done = run(model, corrupt, [Patch(site, "one", positions=(0,))], sites="all", sources={"one": one})
    assert torch.equal(done[site][:, 0], one[site][:, 0].expand(len(corrupt), -1))


def test_a_patched_expert_writes_what_it_wrote_there_and_the_others_what_they_write_here(
    model: HookedGptOss, corrupt: Tensor, clean: Run
):
    plain, at = run(model, corrupt, sites="all"), f"blocks.{LAYER}.mlp"

    def by_expert(done: Run) -> Tensor:
        written = torch.zeros(*done.tokens.shape, 5, model.config.d_model, dtype=done.logits.dtype)
        for b, p, s in torch.cartesian_prod(*map(torch.arange, done[f"{at}.hook_expert_indices"].shape)).tolist():
            expert = int(done[f"{at}.hook_expert_indices"][b, p, s])
            written[b, p, expert] = done[f"{at}.hook_expert_weights"][b, p, s] * done[f"{at}.hook_expert_out"][b, p, s]
        return written

    expected = by_expert(plain)
    expected[:, [1, 6], 3] = by_expert(clean)[:, [1, 6], 3]
    done = run(model, corrupt, [PatchExpert(LAYER, 3, "clean", (1, 6))], sites="all", sources={"clean": clean})
    torch.testing.assert_close(done[f"blocks.{LAYER}.hook_mlp_out"], expected.sum(2), rtol=0, atol=1e-5)


def test_steering_adds_the_vector_times_the_scale(model: HookedGptOss, tokens: Tensor, clean: Run):
    vector = torch.randn(model.config.d_model, generator=torch.Generator().manual_seed(1))
    spec = Steer("blocks.1.hook_resid_post", "v", -2.0, positions=(0, 7))
    done = run(model, tokens, [spec], sources={"v": vector})
    stream = clean["blocks.1.hook_resid_post"].clone()
    stream[:, [0, 7]] -= 2 * vector
    torch.testing.assert_close(done.logits, model.unembed(model.ln_final(stream)), rtol=0, atol=1e-5)


def test_edits_combine_in_order(model: HookedGptOss, tokens: Tensor, corrupt: Tensor, clean: Run):
    vector = torch.ones(model.config.d_model)
    steer, patch = Steer("hook_embed", "v"), Patch("hook_embed", "clean")
    sources = {"v": vector, "clean": clean}
    last_patch = run(model, corrupt, [steer, patch], sites="hook_embed", sources=sources)["hook_embed"]
    last_steer = run(model, corrupt, [patch, steer], sites="hook_embed", sources=sources)["hook_embed"]
    assert torch.equal(last_patch, clean["hook_embed"]) and torch.equal(last_steer, clean["hook_embed"] + 1)


def test_what_does_not_fit_is_refused_before_anything_runs(
    model: HookedGptOss, corrupt: Tensor, clean: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(model, "_stream", None)
    three, ones = torch.cat((corrupt, corrupt[:1])), torch.ones(model.config.d_model)
    for tokens, spec, message in [
        (corrupt, Patch("hook_embed", "dirty"), "there is no source 'dirty'; the sources are"),
        (corrupt, Patch("hook_embed", "v"), "source 'v' is Tensor: expected a Run"),
        (corrupt, Steer("hook_embed", "clean"), "source 'clean' is Run: expected a vector"),
        (three, Patch("hook_embed", "clean"), "has 2 rows and this run 3: expected as many, or 1"),
        (corrupt, Patch("hook_embed", "clean", (1, 2), (3,)), "one for one; got 1 and 2"),
        (corrupt, Steer("blocks.0.attn.hook_pattern", "v"), "to which no vector can be added"),
        (corrupt, Steer("hook_embed", "nan"), "vector 'nan' holds NaN or infinity"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(model, tokens, [spec], sources={"clean": clean, "v": ones, "nan": ones * float("nan")})
