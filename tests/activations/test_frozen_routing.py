"""A run may take its routing from another one: the set of experts, or the set and the weights."""

import pytest
import torch
from torch import Tensor

from workbench.activations import Run, run
from workbench.interventions import AblateExpert, edits
from workbench.model import HookedGptOss, random_weights

MODES = ("frozen_set", "frozen_set_and_weights")


class DoubleStream:
    """An edit upstream of every route: the embedding of one position is doubled."""


@edits.register
def _(spec: DoubleStream) -> list:
    def double(value: Tensor, hook: object) -> None:
        value[:, 3] *= 2

    return [("hook_embed", double)]


@pytest.fixture(scope="module")
def clean(model: HookedGptOss, tokens: Tensor) -> Run:
    return run(model, tokens, sites="all")


def by_hand(model: HookedGptOss, tokens: Tensor, source: Run, mode: str) -> Tensor:
    """The edited input, each layer's expert numbers put back, and their weights put back or taken anew."""
    n = tokens.shape[1]
    logits: dict[int, Tensor] = {}
    hooks = list(edits(DoubleStream()))
    for layer in range(3):
        at = f"blocks.{layer}.mlp"
        taken = source[f"{at}.hook_expert_indices"][:, :n]
        hooks.append((f"{at}.hook_router_logits", lambda x, hook, i=layer: logits.update({i: x})))
        hooks.append((f"{at}.hook_expert_indices", lambda x, hook, taken=taken: taken))

        def weigh(x: Tensor, hook: object, i: int = layer, taken: Tensor = taken) -> Tensor:
            if mode == "frozen_set_and_weights":
                return source[f"blocks.{i}.mlp.hook_expert_weights"][:, :n]
            chosen = logits[i].gather(-1, taken).exp()
            return chosen / chosen.sum(-1, keepdim=True)

        hooks.append((f"{at}.hook_expert_weights", weigh))
    return model.run_with_hooks(tokens, fwd_hooks=hooks)


@pytest.mark.parametrize("mode", MODES)
def test_a_frozen_routing_is_what_hooks_by_hand_make_it(
    model: HookedGptOss, tokens: Tensor, clean: Run, mode: str
) -> None:
    frozen = run(model, tokens, [DoubleStream()], routing=mode, routing_from=clean, sites="all")
    torch.testing.assert_close(frozen.logits, by_hand(model, tokens, clean, mode))
    assert frozen.routing == mode
    assert not frozen.flipped_routes.any() and not frozen.flips_per_layer.any()
    for layer in range(3):
        at = f"blocks.{layer}.mlp"
        assert torch.equal(frozen[f"{at}.hook_expert_indices"], clean[f"{at}.hook_expert_indices"])
        same = torch.equal(frozen[f"{at}.hook_expert_weights"], clean[f"{at}.hook_expert_weights"])
        assert same == (mode == "frozen_set_and_weights")


def test_live_and_frozen_routing_differ_where_an_edit_moves_routes(
    model: HookedGptOss, tokens: Tensor, clean: Run
) -> None:
    live = run(model, tokens, [DoubleStream()])
    logits = [run(model, tokens, [DoubleStream()], routing=mode, routing_from=clean).logits for mode in MODES]
    assert not torch.allclose(logits[0], logits[1]) and not torch.allclose(live.logits, logits[1])
    assert torch.equal(live.logits, model.run_with_hooks(tokens, fwd_hooks=edits(DoubleStream())))


@pytest.mark.parametrize("mode", MODES)
def test_a_run_frozen_to_itself_is_itself(model: HookedGptOss, tokens: Tensor, clean: Run, mode: str) -> None:
    frozen = run(model, tokens, routing=mode, routing_from=clean)
    torch.testing.assert_close(frozen.logits, clean.logits)
    assert not frozen.flipped_routes.any() and frozen.kl.max() < 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_a_shorter_run_takes_the_beginning_of_a_longer_ones_routing(
    model: HookedGptOss, tokens: Tensor, clean: Run, mode: str
) -> None:
    short = tokens[:, :5]
    frozen = run(model, short, [DoubleStream()], routing=mode, routing_from=clean)
    torch.testing.assert_close(frozen.logits, by_hand(model, short, clean, mode))


@pytest.mark.parametrize("mode", MODES)
def test_a_dropped_expert_is_dropped_from_the_frozen_routes(
    model: HookedGptOss, tokens: Tensor, clean: Run, mode: str
) -> None:
    expert = int(clean["blocks.1.mlp.hook_expert_indices"][0, 4, 0])
    done = run(model, tokens, [AblateExpert(1, expert, "zero")], sites="all", routing=mode, routing_from=clean)
    indices = clean["blocks.1.mlp.hook_expert_indices"]
    expected = clean["blocks.1.mlp.hook_expert_weights"].masked_fill(indices == expert, 0.0)
    torch.testing.assert_close(done["blocks.1.mlp.hook_expert_weights"], expected)
    assert done.kl.max() > 0 and not done.flipped_routes.any()


@pytest.mark.parametrize("mode", MODES)
def test_re_routing_a_frozen_run_is_refused_since_it_would_do_nothing(
    model: HookedGptOss, tokens: Tensor, clean: Run, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "_stream", None)  # nothing may run
    with pytest.raises(
        ValueError,
        match=rf"AblateExpert\(layer=1, expert=2\) re-routes .* routing='{mode}' takes .* use policy 'zero'",
    ):
        run(model, tokens, [AblateExpert(0, 1, "zero"), AblateExpert(1, 2)], routing=mode, routing_from=clean)


def test_routing_that_cannot_be_taken_is_refused(
    model: HookedGptOss, tokens: Tensor, clean: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = torch.cat((tokens, tokens[:, :1]), 1)
    unkept = run(model, tokens, sites="hook_embed")
    shapes = r"routing_from has tokens \(2, 9\) and this run \({}\): expected as many rows, and at least as many"
    other = random_weights(HookedGptOss(model.config.with_(n_experts=5)), 0)
    elsewhere = run(other, tokens)
    monkeypatch.setattr(model, "_stream", None)  # nothing may run
    for given, kwargs, message in [
        (longer, {"routing": "frozen_set", "routing_from": clean}, shapes.format("2, 10")),
        (tokens[:1], {"routing": "frozen_set", "routing_from": clean}, shapes.format("1, 9")),
        (tokens, {"routing": "frozen_set"}, "needs routing_from="),
        (tokens, {"routing_from": clean}, "routing_from was given with routing='live'"),
        (tokens, {"routing": "frozen_set", "routing_from": elsewhere}, "a model with n_experts=5, and this one has 6"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(model, given, **kwargs)
    with pytest.raises(KeyError, match=r"did not keep 'blocks\.0\.mlp\.hook_expert_indices'"):
        run(model, tokens, routing="frozen_set", routing_from=unkept)


def test_an_unknown_routing_is_refused_with_the_known_ones(
    model: HookedGptOss, tokens: Tensor, as_in_a_notebook: None
) -> None:
    with pytest.raises(ValueError, match=r"routing='frozen': expected one of \('live', 'frozen_set', "):
        run(model, tokens, routing="frozen")
