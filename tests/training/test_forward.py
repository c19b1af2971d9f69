"""The training forward is the model: same logits, same gradients, and packed documents do not see each other."""

import torch
import torch.nn.functional as F

from tests.training.small import SMALL, random_model
from workbench.training.encoding import Encoded, pack
from workbench.training.forward import ClampedSwiGLU, forward


def logits(model, tokens, document):
    parameters = dict(model.named_parameters())
    stream, routings = forward(parameters, model.config, tokens, document)
    return F.linear(stream, parameters["unembed.weight"]), routings


def random_tokens(seed, *shape):
    return torch.randint(0, SMALL.d_vocab, shape, generator=torch.Generator().manual_seed(seed))


def test_it_gives_the_models_logits_and_routes(seed):
    model, tokens = random_model(seed), random_tokens(seed, 3, 64)
    ours, routings = logits(model, tokens, torch.zeros_like(tokens))
    theirs, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)
    for layer, routing in enumerate(routings):
        expected = cache[f"blocks.{layer}.mlp.hook_expert_indices"].flatten(0, 1)
        assert (routing.chosen.sort(-1).values == expected.sort(-1).values).all()


def test_it_gives_the_models_gradients_for_every_parameter(seed):
    model, tokens = random_model(seed), random_tokens(seed, 2, 48)
    weights = torch.randn(2, 48, SMALL.d_vocab, generator=torch.Generator().manual_seed(seed))
    gradients = []
    for run in (model, lambda t: logits(model, t, torch.zeros_like(t))[0]):
        model.zero_grad()
        (run(tokens) * weights).mean().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, theirs in gradients[0].items():
        assert theirs.abs().max() > 0, name
        torch.testing.assert_close(
            gradients[1][name], theirs, atol=1e-3 * float(theirs.abs().max()), rtol=1e-3, msg=name
        )


def test_packed_documents_have_the_logits_they_have_alone(seed):
    model = random_model(seed)
    lengths = (40, 33, 23, 17, 9)
    documents = [Encoded(tuple(random_tokens(seed + i, n).tolist()), (1.0,) * n, "any") for i, n in enumerate(lengths)]
    batch = pack(documents, 1, 128)
    packed, _ = logits(model, batch.tokens, batch.document)
    for number, document in enumerate(documents):
        here = packed[0, batch.document[0] == number]
        alone = model(torch.tensor([document.ids]))[0]
        torch.testing.assert_close(here, alone, atol=2e-4, rtol=1e-4)


def test_the_activation_has_the_gradient_that_autograd_finds(seed):
    generator = torch.Generator().manual_seed(seed)
    both = (4 * torch.randn(50, 12, generator=generator, dtype=torch.float64)).requires_grad_()

    def plain(x):
        gate, up = x.chunk(2, dim=-1)
        gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
        return (up + 1) * gate * torch.sigmoid(1.702 * gate)

    weights = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad((plain(both) * weights).sum(), both)
    (found,) = torch.autograd.grad((ClampedSwiGLU.apply(both, 1.702, 7.0) * weights).sum(), both)
    torch.testing.assert_close(ClampedSwiGLU.apply(both, 1.702, 7.0), plain(both))
    torch.testing.assert_close(found, expected)
