"""Gradients: of every parameter against both references, of every site against finite differences.

Packed matrices are constants, without a gradient: there all the other parameters are compared.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.forms import DENSE, EAGER, MATRICES, each, held, held_as, through
from tests.golden.distances import largest
from tests.golden.measured import Measured
from tests.golden.references import openai_model, openai_names, transformers_model, transformers_name
from tests.golden.routes import Implementation, sets
from tests.golden.shapes import model_in, normal, random_model, random_shape, random_tokens
from workbench.model import HookedGptOss

N_SHAPES, N_PACKED_SHAPES = 4, 2
# Of the float32 gradient's own size. What several thousand products in another order leave.
RELATIVE = 1e-4
PACKED_THERE = ("experts.gate_up_proj", "experts.down_proj")  # transformers' names of the matrices


class Gradients:
    """The loss on one text and its gradient for every parameter, by all three, on equal routes."""

    def __init__(self, seed: int, form: str) -> None:
        config = random_shape(seed, form)
        exact, self.form = random_model(config, seed, form), form
        self.model = held(exact, form)
        self.tokens = random_tokens(config, seed, 2 * config.sliding_window + 30)
        routes = sets(Implementation(self.model).run(self.tokens)[1], config.experts_per_token)
        self.transformers, self.openai = transformers_model(exact), openai_model(exact)
        with Implementation(self.model).taking(routes):
            self.loss = self.model(self.tokens, return_type="loss")
        with Implementation(self.transformers).taking(routes):
            self.transformers_loss = self.transformers(self.tokens[None], labels=self.tokens[None]).loss
        with Implementation(self.openai).taking(routes):
            self.openai_loss = F.cross_entropy(self.openai(self.tokens)[:-1], self.tokens[1:])
        for loss in (self.loss, self.transformers_loss, self.openai_loss):
            loss.backward()

    def __str__(self) -> str:
        return f"{self.form}, {self.model.config}"

    def pairs(self) -> Iterator[tuple[str, Tensor, str, Tensor]]:
        """(our name, our gradient, reference, its gradient) for every parameter and reference."""
        ours = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        theirs = {name: parameter.grad for name, parameter in self.transformers.named_parameters()}
        for name, gradient in ours.items():
            their_name, swapped = transformers_name(name)
            other = theirs.pop(their_name)
            yield name, gradient, "transformers", other.transpose(-1, -2) if swapped else other
        constants = set() if self.form == DENSE else {name for name in theirs if name.endswith(PACKED_THERE)}
        assert theirs.keys() == constants, f"gradients that nothing of ours answers to: {sorted(theirs)}"
        openai = dict(self.openai.named_parameters())
        for their_name, parts in openai_names(self.model.config).items():
            if self.form != DENSE and parts[0].endswith(MATRICES):
                continue
            sizes = [ours[part].shape[0] for part in parts]
            for name, other in zip(parts, openai[their_name].grad.split(sizes), strict=True):
                yield name, ours[name], "openai", other


@pytest.fixture(scope="module", params=each(dense=N_SHAPES, packed=N_PACKED_SHAPES))
def gradients(request: pytest.FixtureRequest, seed: int) -> Iterator[Gradients]:
    form, number = request.param
    with through(form):
        yield Gradients(seed + number, form)


def test_the_loss_is_that_of_both_references(gradients: Gradients):
    assert abs(gradients.loss - gradients.transformers_loss) <= 1e-5, str(gradients)
    assert abs(gradients.loss - gradients.openai_loss) <= 1e-5, str(gradients)


def test_every_parameter_has_the_gradient_it_has_in_both_references(gradients: Gradients, measured: Measured):
    for (kind, reference), relative in by_kind(gradients).items():
        measured.record_in(gradients.form, "float32 gradients, largest ‖Δ‖/‖g‖ of a parameter", reference, relative)
        assert relative <= RELATIVE, f"{kind} against {reference}: {relative:.1e}, {gradients}"


def by_kind(gradients: Gradients) -> dict[tuple[str, str], float]:
    """(kind, reference) → ‖Δ‖/‖g‖. A kind is one parameter in all layers together: in a single layer a gradient of
    few numbers (a sink of each head) can happen to cancel, and then nothing but rounding is left of it."""
    found = defaultdict(list)
    for name, gradient, reference, other in gradients.pairs():
        kind = name.split(".", 2)[2] if name.startswith("blocks") else name
        found[kind, reference].append((gradient - other, other))
    # At least 1e-9, for the routers where one expert is chosen: its weight is always 1, the gradient 0 or rounding.
    return {key: norm(apart for apart, _ in of) / max(norm(g for _, g in of), 1e-9) for key, of in found.items()}


def norm(parts: Iterable[Tensor]) -> float:
    """Euclidean, of all the numbers together."""
    return math.sqrt(sum(part.double().pow(2).sum().item() for part in parts))


def test_unrouted_experts_have_no_gradient(gradients: Gradients):
    config, model = gradients.model.config, gradients.model
    routes = sets(Implementation(model).run(gradients.tokens)[1], config.experts_per_token)
    for layer, chosen in enumerate(routes):
        idle = sorted(set(range(config.n_experts)) - set(chosen.flatten().tolist()))
        for name, parameter in model.blocks[layer].mlp.experts.named_parameters():
            assert largest(parameter.grad[idle]) == 0.0, name


# ----------------------------------------------------------------------------------------------- at the sites
STEP = 1e-6
BOUNDARY = 1e-3  # router logits that are nearer than this to another choice of experts are not differentiated


form = held_as(DENSE, EAGER)  # the native engine takes no float64


@pytest.fixture(scope="module")
def smooth(form: str, seed: int) -> tuple[HookedGptOss, Tensor]:
    return away_from_boundaries(seed, form)


def away_from_boundaries(seed: int, form: str) -> tuple[HookedGptOss, Tensor]:
    """A float64 model and a text whose routes stay put when an activation moves by STEP."""
    sizes = {"n_layers": 2, "sliding_window": 4, "experts_per_token": 2, "n_experts": 4, "d_vocab": 60}
    config = random_shape(seed, form, d_mlp=24 if form == DENSE else 64, **sizes)
    model = held(model_in(random_model(config, seed, form), torch.float64), form)
    for attempt in range(100):
        tokens = random_tokens(config, seed + attempt, 1, 9)
        logits = torch.cat(list(router_logits(model, tokens).values()))
        best = logits.topk(3, dim=-1).values
        if (best[..., 1] - best[..., 2]).min() > BOUNDARY:
            return model, tokens
    raise AssertionError(f"no text away from the boundaries, seed {seed}")


def router_logits(model: HookedGptOss, tokens: Tensor) -> dict[str, Tensor]:
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("router_logits"))
    return dict(cache)


def test_the_gradient_at_every_site_is_the_finite_difference(smooth, seed: int):
    model, tokens = smooth
    sites = [site for site in model.sites.values() if not site.is_integer]
    gradients = model.run_with_cache(tokens, return_type="loss", incl_bwd=True)[1]
    for number, site in enumerate(sites):
        value, gradient = gradients[site.name], gradients[site.name + "_grad"]
        assert value.dtype == gradient.dtype and value.shape == gradient.shape, site.name
        # −inf (a key that is not visible) has no derivative; one direction at once for all other numbers of the site
        direction = torch.where(value.isfinite(), normal(seed + number, *value.shape).to(value.dtype), 0.0)
        expected = (gradient * direction).sum().item()
        found = difference(model, tokens, site.name, direction)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-8), f"{site.name}, seed {seed}"


def difference(model: HookedGptOss, tokens: Tensor, site: str, direction: Tensor) -> float:
    """Slope of the loss along the direction, by central difference."""
    with torch.no_grad():
        ahead, behind = (
            model.run_with_hooks(
                tokens, return_type="loss", fwd_hooks=[(site, lambda x, hook, by=by: x + by * direction)]
            )
            for by in (STEP, -STEP)
        )
    return ((ahead - behind) / (2 * STEP)).item()


def test_every_site_moves_the_loss(smooth):
    """Or the comparison above would hold where nothing is connected."""
    model, tokens = smooth
    _, cache = model.run_with_cache(tokens, return_type="loss", incl_bwd=True)
    for site in model.sites.values():
        if not site.is_integer:
            assert largest(cache[site.name + "_grad"]) > 0, site.name


def test_float64_gradients_of_the_parameters_are_finite_differences(smooth, seed: int):
    model, tokens = smooth
    model.zero_grad()
    model(tokens, return_type="loss").backward()
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if parameter.dtype != torch.float64:
            continue  # the norms' gains stay float32, too coarse for a difference; their gradient is compared above
        direction = normal(seed + number, *parameter.shape).double()
        found = []
        for by in (STEP, -STEP):
            with torch.no_grad():
                parameter.add_(direction, alpha=by)
                found.append(model(tokens, return_type="loss").item())
                parameter.sub_(direction, alpha=by)
        expected = (parameter.grad * direction).sum().item()
        assert (found[0] - found[1]) / (2 * STEP) == pytest.approx(expected, rel=1e-5, abs=1e-8), name
