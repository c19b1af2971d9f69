"""Does an expert belong to a domain? Its routes say so (lift), and its absence must cost that domain (ablation)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.model import HookedGptOss

from .encoding import Encoded, Encoder, mixed, pack
from .evaluate import padded
from .microworld import QUESTIONS

# Domain → the tasks whose held-out questions, with their answers, make its corpus.
DOMAINS: dict[str, tuple[str, ...]] = {
    "story": ("story",),
    "facts": ("facts",),
    "names": ("indirect object",),
    "repeats": ("repeated words",),
    "random repeats": (),
    "passkey": ("passkey far", "passkey near"),
    "code": ("docstring",),
    "brackets": ("brackets",),
    "years": ("greater-than",),
    "sums": ("sums",),
    "dialect north": ("dialect north",),
    "dialect south": ("dialect south",),
    "dialect east": ("dialect east",),
    "chat facts": ("facts in chat",),
    "chat": ("final copies analysis", "low reasoning", "whole reply"),
}


@dataclass(frozen=True)
class Corpus:
    """Held-out documents, the same number of tokens of every domain (lift would else depend on the mixture)."""

    tokens: Int[Tensor, "batch pos"]
    real: Tensor
    domain: Int[Tensor, "batch"]
    names: tuple[str, ...]


def held_out_corpus(encoder: Encoder, seed: int, tokens_each: int) -> Corpus:
    """About ``tokens_each`` tokens of every domain in ``DOMAINS``, from held-out questions and their answers."""
    rows: list[tuple[int, ...]] = []
    domain: list[int] = []
    for number, (name, tasks) in enumerate(DOMAINS.items()):
        rng, left = random.Random(f"corpus {seed} {name}"), tokens_each
        while left > 0:
            if tasks:
                question = QUESTIONS[rng.choice(tasks)](rng)
                ids = encoder.tokenizer.encode(question.prompt + question.answer).ids
            else:
                ids = encoder.random_repeats(rng, 60).ids
            rows.append(tuple(ids)[:left])
            domain.append(number)
            left -= len(ids)
    tokens = padded(rows)
    lengths = torch.tensor([len(row) for row in rows])
    return Corpus(tokens, torch.arange(tokens.shape[1])[None] < lengths[:, None], torch.tensor(domain), tuple(DOMAINS))


@torch.no_grad()
def domain_losses(
    model: HookedGptOss, corpus: Corpus, hooks: Sequence = (), batch: int = 64
) -> Float[Tensor, "domain"]:
    """Mean next-token loss of each domain, nats."""
    total, count = torch.zeros(len(corpus.names)), torch.zeros(len(corpus.names))
    for rows in _by_length(corpus, batch):
        tokens, real = _trimmed(corpus, rows)
        losses = _token_losses(model.run_with_hooks(tokens, fwd_hooks=list(hooks)), tokens)
        counted = real[:, 1:].float()
        total.index_add_(0, corpus.domain[rows], (losses * counted).sum(1))
        count.index_add_(0, corpus.domain[rows], counted.sum(1))
    return total / count


def _token_losses(logits: Tensor, tokens: Tensor) -> Float[Tensor, "batch pos_minus_1"]:
    return -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)


def _by_length(corpus: Corpus, batch: int) -> list[Tensor]:
    return list(corpus.real.sum(1).argsort(stable=True).split(batch))


def _trimmed(corpus: Corpus, rows: Tensor) -> tuple[Tensor, Tensor]:
    longest = int(corpus.real[rows].sum(1).max())
    return corpus.tokens[rows, :longest], corpus.real[rows, :longest]


@torch.no_grad()
def routes(model: HookedGptOss, corpus: Corpus, batch: int = 64) -> Float[Tensor, "layer expert domain"]:
    """How many routes (token, slot) of each domain every expert gets."""
    config = model.config
    counts = torch.zeros(config.n_layers, config.n_experts, len(corpus.names))
    for rows in _by_length(corpus, batch):
        tokens, real = _trimmed(corpus, rows)
        _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_expert_indices"))
        domain = corpus.domain[rows][:, None].expand_as(real)[real]
        for layer in range(config.n_layers):
            chosen = cache[f"blocks.{layer}.mlp.hook_expert_indices"][real]
            for slot in chosen.T:
                counts[layer].index_put_((slot, domain), torch.ones(len(slot)), accumulate=True)
    return counts


def lift(counts: Float[Tensor, "layer expert domain"]) -> Float[Tensor, "layer expert domain"]:
    """P(domain | expert) / P(domain), over routes."""
    given_expert = counts / counts.sum(-1, keepdim=True).clamp(min=1)
    return given_expert / (counts.sum(1, keepdim=True) / counts.sum((1, 2), keepdim=True))


def without(layer: int, expert: int) -> list:
    """Hooks that ablate one expert: its router logit becomes −∞, so that its tokens are routed anew."""

    def mask(logits: Tensor, hook: object) -> Tensor:
        return logits.index_fill(-1, torch.tensor([expert]), float("-inf"))

    return [(f"blocks.{layer}.mlp.hook_router_logits", mask)]


@dataclass(frozen=True)
class Specialist:
    """One expert, the domain it belongs to, and the expert of its layer whose load is closest."""

    layer: int
    expert: int
    domain: int
    control: int


def candidates(counts: Float[Tensor, "layer expert domain"], at_least: float = 3.0) -> list[Specialist]:
    """Experts whose lift for a domain reaches ``at_least``, the ones with most of that domain's routes first."""
    found, load = [], counts.sum(-1)
    for layer, expert, domain in (lift(counts) >= at_least).nonzero().tolist():
        gap = (load[layer] - load[layer, expert]).abs()
        gap[expert] = float("inf")
        share = float(counts[layer, expert, domain] / counts[layer, :, domain].sum())
        found.append((share, Specialist(layer, expert, domain, int(gap.argmin()))))
    return [specialist for _, specialist in sorted(found, key=lambda pair: -pair[0])]


@dataclass(frozen=True)
class Selectivity:
    """What ablating a specialist costs, in nats a token: its own domain, the others on average, the most hurt other;
    and what ablating the load-matched expert costs the specialist's domain."""

    lift: float
    own: float
    others: float
    worst_other: float
    control: float

    @property
    def worth(self) -> float:
        """How far the own domain's cost exceeds each of the things it is compared with."""
        return self.own - max(self.worst_other, self.control)


def selectivity(
    model: HookedGptOss, corpus: Corpus, specialist: Specialist, before: Float[Tensor, "domain"]
) -> Selectivity:
    """Measured on a corpus; ``before``: the losses of the whole model on it."""
    s = specialist
    cost = domain_losses(model, corpus, without(s.layer, s.expert)) - before
    control = domain_losses(model, corpus, without(s.layer, s.control)) - before
    rest = torch.cat((cost[: s.domain], cost[s.domain + 1 :]))
    found = float(lift(routes(model, corpus))[s.layer, s.expert, s.domain])
    return Selectivity(found, float(cost[s.domain]), float(rest.mean()), float(rest.max()), float(control[s.domain]))


def most_selective(model: HookedGptOss, corpus: Corpus, tries: int = 12) -> Specialist | None:
    """The candidate whose ablation is the most selective on this corpus (to be confirmed on others), if any."""
    before = domain_losses(model, corpus)
    tried = candidates(routes(model, corpus))[:tries]
    return max(tried, key=lambda s: selectivity(model, corpus, s, before).worth, default=None)


@dataclass(frozen=True)
class Loads:
    """Per layer: load CV (standard deviation / mean of the experts' shares of the routes), the load's entropy, and the
    mean entropy of a token's router probabilities (softmax over all experts); both divided by log n_experts."""

    cv: Float[Tensor, "layer"]
    load_entropy: Float[Tensor, "layer"]
    token_entropy: Float[Tensor, "layer"]


@torch.no_grad()
def loads(model: HookedGptOss, encoder: Encoder, seed: int, n_tokens: int = 16_000) -> Loads:
    """Measured on documents in the training mixture, of a seed that training did not use."""
    documents: list[Encoded] = mixed(encoder, random.Random(f"loads {seed}"), n_tokens, 256)
    packed = pack(documents, -(-n_tokens // 256), 256)
    alone = [
        row[owner == number]
        for row, owner in zip(packed.tokens, packed.document, strict=True)
        for number in range(int(owner.max()) + 1)
    ]
    rows = sorted((tuple(document.tolist()) for document in alone), key=len)
    probabilities = torch.cat([_router_probabilities(model, rows[i : i + 64]) for i in range(0, len(rows), 64)], 1)
    chosen = probabilities.topk(model.config.experts_per_token, -1).indices
    n = model.config.n_experts
    share = torch.stack([torch.bincount(layer.flatten(), minlength=n) / layer.numel() for layer in chosen])
    top = torch.tensor(float(n)).log()
    return Loads(share.std(-1, correction=0) * n, _entropy(share) / top, _entropy(probabilities).mean(-1) / top)


def _router_probabilities(model: HookedGptOss, rows: Sequence[Sequence[int]]) -> Float[Tensor, "layer token expert"]:
    tokens = padded(rows)
    real = torch.tensor([[i < len(row) for i in range(tokens.shape[1])] for row in rows])
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_router_logits"))
    return torch.stack(
        [cache[f"blocks.{i}.mlp.hook_router_logits"][real].softmax(-1) for i in range(model.config.n_layers)]
    )


def _entropy(p: Float[Tensor, "*lead expert"]) -> Float[Tensor, "*lead"]:
    return -torch.special.xlogy(p, p).sum(-1)
