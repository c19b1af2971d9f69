"""A Run holds what went in, what was done and what came out."""

from dataclasses import FrozenInstanceError
from importlib.metadata import version

import numpy as np
import pytest
import torch
from torch import Tensor

from workbench.activations import STANDARD_SITES, Run, run
from workbench.interventions import AblateExpert
from workbench.model import HookedGptOss, UnknownSite
from workbench.model.fingerprint import fingerprint
from workbench.text import Chat


def test_a_run_without_edits_is_the_models_own_forward(model: HookedGptOss, tokens: Tensor) -> None:
    done = run(model, tokens, name="clean")
    assert isinstance(done, Run) and done.model is model
    assert torch.equal(done.tokens, tokens) and torch.equal(done.logits, model(tokens))
    assert done.interventions == () and done.routing == "live" and done.name == "clean"
    assert done.attention_mask is None
    assert done.flipped_routes is None and done.flips_per_layer is None and done.kl is None
    assert repr(done) == "Run('clean': small, tokens (2, 9), 41 sites)"
    with pytest.raises(FrozenInstanceError):
        done.name = "other"


def test_the_kept_sites_hold_what_run_with_cache_gives(model: HookedGptOss, tokens: Tensor) -> None:
    cache = model.run_with_cache(tokens)[1]
    standard = run(model, tokens)
    assert list(standard.cache) == [site for site in model.sites if site.split(".")[-1] in STANDARD_SITES]
    assert not any(site.endswith(("hook_result", "hook_expert_out")) for site in standard.cache)
    for done in (standard, run(model, tokens, sites="all")):
        assert all(torch.equal(done[site], cache[site]) for site in done.cache)
    assert list(run(model, tokens, sites="all").cache) == list(model.sites)


def test_sites_may_be_one_several_or_a_function(model: HookedGptOss, tokens: Tensor) -> None:
    one = "blocks.1.attn.hook_z"
    assert list(run(model, tokens, sites=one).cache) == [one]
    assert set(run(model, tokens, sites=["hook_embed", one]).cache) == {"hook_embed", one}
    assert len(run(model, tokens, sites=lambda site: site.endswith("hook_z")).cache) == 3


def test_a_site_that_does_not_exist_or_was_not_kept_is_named(model: HookedGptOss, tokens: Tensor) -> None:
    with pytest.raises(UnknownSite, match=r"closest is 'blocks\.0\.attn\.hook_z'"):
        run(model, tokens, sites="blocks.0.atn.hook_z")
    done = run(model, tokens, sites="hook_embed")
    with pytest.raises(UnknownSite, match=r"closest is 'blocks\.0\.attn\.hook_z'"):
        done["blocks.0.atn.hook_z"]
    with pytest.raises(KeyError, match=r"did not keep 'blocks\.0\.attn\.hook_z'; run again with sites="):
        done["blocks.0.attn.hook_z"]


def test_text_a_chat_and_ids_all_go_in(reader: HookedGptOss) -> None:
    text = "Mia, 5 cats"
    ids = list(reader.tokenizer.encode(text))
    from_text = run(reader, text)
    assert from_text.tokens.tolist() == [ids]
    for same in (ids, torch.tensor(ids), [ids]):
        assert torch.equal(run(reader, same).logits, from_text.logits)
    chat = run(reader, Chat().user("Hi"))
    assert reader.to_string(chat.tokens[0]).endswith("<|start|>user<|message|>Hi<|end|><|start|>assistant")


def test_a_run_of_a_chat_labels_its_tokens(reader: HookedGptOss) -> None:
    (labels,) = run(reader, Chat().user("Hi")).labels
    assert len(labels) == reader.to_tokens(Chat().user("Hi")).shape[1]
    assert {"system", "user", "assistant"} <= set(labels.role)


def test_texts_of_unequal_length_run_with_their_mask(reader: HookedGptOss) -> None:
    done = run(reader, ["Mia", "Tom and Ana"], [AblateExpert(1, 2)])
    assert done.attention_mask.sum(1).tolist() == [3, 11]
    alone = run(reader, "Mia", [AblateExpert(1, 2)])
    torch.testing.assert_close(done.logits[0, :3], alone.logits[0])
    torch.testing.assert_close(done.kl[0, :3], alone.kl[0])
    assert torch.equal(done.flipped_routes[:, 0, :3], alone.flipped_routes[:, 0])


def test_an_array_has_its_dims_named_its_tokens_beside_it_and_its_origin(reader: HookedGptOss) -> None:
    done = run(reader, "Mia sat", sites="all")
    pattern = done.array("blocks.1.attn.hook_pattern")
    assert pattern.dims == ("head", "query_pos", "key_pos") and pattern.name == "blocks.1.attn.hook_pattern"
    assert pattern.query_token.values.tolist() == pattern.key_token.values.tolist() == done.str_tokens()
    assert float(pattern.sel(head=2, query_pos=6, key_pos=3)) == pytest.approx(
        float(done["blocks.1.attn.hook_pattern"][0, 2, 6, 3])
    )
    weights = done.array("blocks.0.mlp.hook_expert_weights")
    assert weights.dims == ("pos", "slot") and weights.token.values.tolist() == done.str_tokens()
    assert weights.attrs["fingerprint"] == fingerprint(reader) and "softmax" in weights.attrs["meaning"]


def test_every_site_makes_an_array_with_the_dims_it_declares(model: HookedGptOss, tokens: Tensor) -> None:
    done = run(model, tokens, sites="all")
    for site, meta in model.sites.items():
        array = done.array(site, row=1)
        assert array.dims == meta.dims[1:], site
        np.testing.assert_allclose(array.values, done[site][1].numpy(), rtol=1e-6)
        assert np.issubdtype(array.dtype, np.integer) == meta.is_integer


def test_tokens_are_shown_by_their_ids_where_there_is_no_tokenizer(model: HookedGptOss, tokens: Tensor) -> None:
    assert run(model, tokens).str_tokens(1) == [str(token) for token in tokens[1].tolist()]


def test_the_provenance_says_which_weights_and_versions(model: HookedGptOss, tokens: Tensor) -> None:
    said = run(model, tokens).provenance
    assert said["fingerprint"] == fingerprint(model) and said["model"] == "small"
    assert said["torch"] == torch.__version__ and said["transformer_lens"] == version("transformer-lens")
    assert said["time"].endswith("+00:00") and said["machine"]


def test_the_divergence_is_summed_by_hand_over_the_vocabulary(model: HookedGptOss, tokens: Tensor) -> None:
    spec = AblateExpert(layer=1, expert=3)
    done = run(model, tokens, [spec])
    p, q = model(tokens).double().softmax(-1), done.logits.double().softmax(-1)
    by_hand = sum(p[..., i] * (p[..., i] / q[..., i]).log() for i in range(p.shape[-1]))
    torch.testing.assert_close(done.kl.double(), by_hand, rtol=1e-3, atol=2e-6)  # kl is taken in float32
    assert done.kl.shape == tokens.shape and (done.kl >= 0).all()


def test_flipped_routes_are_the_tokens_whose_set_of_experts_changed(model: HookedGptOss, tokens: Tensor) -> None:
    done = run(model, tokens, [AblateExpert(layer=0, expert=2, positions=(4, 5))])
    before, after = (
        [r[f"blocks.{layer}.mlp.hook_expert_indices"].tolist() for layer in range(3)]
        for r in (run(model, tokens), done)
    )
    by_hand = [
        [
            [set(old) != set(new) for old, new in zip(*rows, strict=True)]
            for rows in zip(before[layer], after[layer], strict=True)
        ]
        for layer in range(3)
    ]
    assert done.flipped_routes.tolist() == by_hand
    # At the ablated layer: exactly the named tokens that had the expert.
    had = [[2 in slots and pos in (4, 5) for pos, slots in enumerate(row)] for row in before[0]]
    assert by_hand[0] == had
    assert done.flips_per_layer.dims == ("layer",)
    assert done.flips_per_layer.values.tolist() == pytest.approx([np.mean(layer) for layer in by_hand])


def test_a_change_of_order_within_the_slots_is_no_flip(model: HookedGptOss, tokens: Tensor) -> None:
    # The weakest expert's weight is dropped: the set of experts stays, everywhere at this layer.
    assert not run(model, tokens, [AblateExpert(0, 2, "zero")]).flipped_routes[0].any()


def test_flips_are_counted_among_real_tokens(model: HookedGptOss, tokens: Tensor) -> None:
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, :5] = False
    done = run(model, tokens, [AblateExpert(0, 2)], attention_mask=mask)
    assert torch.equal(done.attention_mask, mask)
    by_hand = [float(layer[mask].double().mean()) for layer in done.flipped_routes]
    assert done.flips_per_layer.values.tolist() == pytest.approx(by_hand)


def test_interventions_may_come_from_a_generator(model: HookedGptOss, tokens: Tensor, as_in_a_notebook: None) -> None:
    specs = [AblateExpert(0, expert) for expert in (1, 2)]
    done = run(model, tokens, (spec for spec in specs))
    assert done.interventions == tuple(specs)
    assert torch.equal(done.logits, run(model, tokens, specs).logits)


def refuse_to_run(model: HookedGptOss, monkeypatch: pytest.MonkeyPatch) -> None:
    def ran(*args: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(model, "_stream", ran)


@pytest.mark.parametrize(
    ("kwargs", "kind", "message"),
    [
        ({"input": []}, ValueError, "at least one token"),
        ({"input": [[270]]}, ValueError, "token id 270 is outside the vocabulary 0 to 269"),
        ({"interventions": ["AblateExpert"]}, TypeError, r"'AblateExpert' is no intervention.*AblateExpert"),
        ({"interventions": [AblateExpert(3, 0)]}, ValueError, "there is no layer 3; .* nearest is 2"),
        ({"sites": "blocks.0.hook_resid"}, UnknownSite, "closest is"),
        ({"routing": "frozen_set"}, ValueError, "routing='frozen_set' needs routing_from="),
        ({"attention_mask": torch.ones(2, 8)}, ValueError, r"attention_mask \(2, 8\) does not fit tokens \(2, 9\)"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_runs(
    model: HookedGptOss,
    tokens: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    kwargs: dict,
    kind: type[Exception],
    message: str,
) -> None:
    refuse_to_run(model, monkeypatch)
    with pytest.raises(kind, match=message):
        run(model, **{"input": tokens} | kwargs)


@pytest.mark.parametrize("given", [None, {"a": 1}, [[1, 2], [3]], [1, None]])
def test_what_is_no_text_and_no_tokens_is_refused_in_words(model, given):
    with pytest.raises(ValueError, match="is no input: expected text, a Chat, several of them, or token ids"):
        run(model, given)
