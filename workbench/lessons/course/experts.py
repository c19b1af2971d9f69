"""Lesson 7: experts. What its exercises must do, and what students get wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import stats
from scipy.special import softmax
from torch import Tensor

from workbench.lessons.exercise import Case, Exercise, Mistake, close, equal
from workbench.lessons.outline import Outline

Routes = tuple[Tensor, Tensor]

# ----------------------------------------------------------------------------------------------------------- route


def _logits(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, experts, k in ((4, 8, 2), (3, 32, 4), (1, 6, 1), (5, 4, 3)):
        logits = torch.tensor(2 * rng.normal(size=(tokens, experts)), dtype=torch.float32)
        yield Case((logits, k), about=f"{tokens} token{'s' * (tokens > 1)}, {experts} experts, top-{k}")


def _by_sorting(router_logits: Tensor, k: int) -> Routes:
    """Row by row, in numpy."""
    rows = router_logits.double().numpy()
    chosen = np.stack([sorted(range(len(row)), key=lambda e, row=row: -row[e])[:k] for row in rows])
    weights = softmax(np.take_along_axis(rows, chosen, axis=-1), axis=-1)
    return torch.tensor(chosen), torch.tensor(weights).float()


def _softmax_first(router_logits: Tensor, k: int) -> Routes:
    weights, chosen = router_logits.softmax(-1).topk(k, dim=-1)
    return chosen, weights


def _in_order_of_number(router_logits: Tensor, k: int) -> Routes:
    chosen = router_logits.topk(k, dim=-1).indices.sort(-1).values
    return chosen, router_logits.gather(-1, chosen).softmax(-1)


def _smallest(router_logits: Tensor, k: int) -> Routes:
    values, chosen = router_logits.topk(k, dim=-1, largest=False)
    return chosen, values.softmax(-1)


def _over_tokens(router_logits: Tensor, k: int) -> Routes:
    values, chosen = router_logits.topk(k, dim=-1)
    return chosen, values.softmax(0)


def _raw(router_logits: Tensor, k: int) -> Routes:
    values, chosen = router_logits.topk(k, dim=-1)
    return chosen, values


ROUTE = Exercise(
    name="route",
    task="The experts that a token goes to, and their weights, from the router's logits",
    cases=_logits,
    truth=_by_sorting,
    mistakes=(
        Mistake(
            "softmax before top-k",
            _softmax_first,
            "Your weights are those of a softmax over all experts, so the k that are left do not sum to 1. gpt-oss "
            "takes top-k first, and the softmax over the k chosen logits alone.",
        ),
        Mistake(
            "ordered by number",
            _in_order_of_number,
            "The right experts, but in the order of their numbers. Slots are in rank order: slot 0 is the strongest.",
        ),
        Mistake(
            "weakest experts",
            _smallest,
            "You chose the k smallest logits. The router's logit says how much the expert is wanted: take the largest.",
        ),
        Mistake(
            "softmax over tokens",
            _over_tokens,
            "The softmax runs over the tokens. It belongs to each token by itself, over its k slots: the last axis.",
        ),
        Mistake(
            "logits for weights",
            _raw,
            "Those are the logits of the chosen experts. Weights are their softmax: positive, and 1 in sum.",
        ),
    ),
    hints=(
        "Two steps: which experts, then how much of each. Which comes first in gpt-oss?",
        "`topk` gives values and indices, the largest first; the softmax is taken over the k values.",
        "`values, chosen = router_logits.topk(k, dim=-1)`; `return chosen, values.softmax(-1)`",
    ),
)

# ------------------------------------------------------------------------------------------------- load_statistics

Statistics = tuple[Tensor, float, float]


def _draw(rng: np.random.Generator, tokens: int, experts: int, k: int) -> Tensor:
    taste = rng.normal(size=experts)
    return torch.tensor(np.stack([np.argsort(-(taste + rng.gumbel(size=experts)))[:k] for _ in range(tokens)]))


def _corpora(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, experts, k in ((40, 8, 2), (60, 6, 3), (30, 5, 1)):
        yield Case((_draw(rng, tokens, experts, k), experts), about=f"{tokens} tokens, {experts} experts, top-{k}")
    yield Case((_draw(rng, 20, 4, 2), 6), about="two experts that no token goes to")


def _statistics(chosen: Tensor, n_experts: int) -> Statistics:
    served = Counter(chosen.flatten().tolist())
    load = np.array([served[expert] / len(chosen) for expert in range(n_experts)])
    return torch.tensor(load).float(), float(stats.variation(load)), float(stats.entropy(load, base=n_experts))


def _stated(load: Tensor, ddof: int = 0, base: float | None = None, p: Tensor | None = None) -> Statistics:
    p = load / load.sum() if p is None else p
    entropy = -torch.xlogy(p, p).sum() / np.log(base or len(load))
    return load, float(load.std(correction=ddof) / load.mean()), float(entropy)


def _load(chosen: Tensor, n_experts: int) -> Tensor:
    return _statistics(chosen, n_experts)[0]


def _zero_log_zero(chosen: Tensor, n_experts: int) -> Statistics:
    load, cv, _ = _statistics(chosen, n_experts)
    p = load / load.sum()
    return load, cv, float(-(p * p.log()).sum() / np.log(n_experts))


LOAD_STATISTICS = Exercise(
    name="load_statistics",
    task="How a corpus is spread over the experts: the loads, their coefficient of variation, their entropy",
    cases=_corpora,
    truth=_statistics,
    points=2,
    mistakes=(
        Mistake(
            "share of routes",
            lambda chosen, n: _stated(_load(chosen, n) / chosen.shape[1]),
            "Your loads sum to 1: they are shares of the routes. A token takes k routes; the load is the share of "
            "*tokens* that go to the expert, so divide by the number of tokens.",
        ),
        Mistake(
            "sample deviation",
            lambda chosen, n: _stated(_load(chosen, n), ddof=1),
            "The standard deviation is over all experts there are, not over a sample: divide by E, not E − 1 "
            "(`correction=0` in torch, whose default is 1).",
        ),
        Mistake(
            "0 · log 0",
            _zero_log_zero,
            "An expert without tokens makes your entropy NaN. 0 · log 0 counts as 0: `torch.xlogy(p, p)`, or leave "
            "such experts out.",
        ),
        Mistake(
            "in nats",
            lambda chosen, n: _stated(_load(chosen, n), base=np.e),
            "The entropy is not divided by log E, so it is in nats and not between 0 and 1.",
        ),
        Mistake(
            "load for p",
            lambda chosen, n: _stated(_load(chosen, n), p=_load(chosen, n)),
            "The entropy is of shares that sum to 1. The loads sum to k: divide them by their sum first.",
        ),
    ),
    hints=(
        "Count how often each expert stands in `chosen`; everything else follows from the counts.",
        "load = counts / number of tokens; CV = standard deviation / mean of the loads; p = load / load.sum(), "
        "entropy = −Σ p log p / log E.",
        "`load = torch.bincount(chosen.flatten(), minlength=n_experts) / len(chosen)`; "
        "`cv = load.std(correction=0) / load.mean()`; `-torch.xlogy(p, p).sum() / math.log(n_experts)`",
    ),
)

# ------------------------------------------------------------------------------------------------------------ lift


def _domains(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, experts, k, domains in ((80, 5, 2, 3), (120, 4, 1, 4), (90, 6, 3, 2)):
        # Domains of different sizes, each with experts of its own liking.
        domain = torch.tensor(np.r_[np.arange(domains), rng.choice(domains, size=tokens - domains, p=_uneven(domains))])
        taste = 1.5 * rng.normal(size=(domains, experts))
        scores = taste[domain.numpy()] + rng.gumbel(size=(tokens, experts))
        chosen = np.argsort(-scores, axis=-1)[:, :k]
        chosen[:experts, 0] = np.arange(experts)  # nobody is idle
        for row in range(experts):
            others = [e for e in range(experts) if e != chosen[row, 0]]
            chosen[row, 1:] = rng.permutation(others)[: k - 1]
        yield Case((torch.tensor(chosen), domain, experts, domains), about=f"{domains} domains of different sizes")


def _uneven(n: int) -> np.ndarray:
    return np.arange(1, n + 1) / np.arange(1, n + 1).sum()


def _lift_by_counting(chosen: Tensor, domain: Tensor, n_experts: int, n_domains: int) -> Tensor:
    made = np.zeros((n_experts, n_domains))
    total = Counter(domain.tolist())
    for expert in range(n_experts):
        own = [d for d, row in zip(domain.tolist(), chosen.tolist(), strict=True) if expert in row]
        for d in range(n_domains):
            made[expert, d] = (own.count(d) / len(own)) / (total[d] / len(domain))
    return torch.tensor(made).float()


def _counts(chosen: Tensor, domain: Tensor, n_experts: int, n_domains: int) -> Tensor:
    made = torch.zeros(n_experts, n_domains)
    for slot in chosen.T:
        made.index_put_((slot, domain), torch.ones(len(domain)), accumulate=True)
    return made


LIFT = Exercise(
    name="lift",
    task="How much more often a token of an expert is of a domain than any token is",
    cases=_domains,
    truth=_lift_by_counting,
    points=2,
    mistakes=(
        Mistake(
            "no base rate",
            lambda *a: (n := _counts(*a)) / n.sum(1, keepdim=True),
            "That is P(domain | expert) alone. A domain of half of the corpus has half of everybody's tokens: "
            "divide by "
            "P(domain).",
        ),
        Mistake(
            "the other condition",
            lambda *a: (n := _counts(*a)) / n.sum(0, keepdim=True),
            "You divided by the domain's total: that is P(expert | domain). The lift starts from P(domain | expert): "
            "divide each expert's row by the row's sum.",
        ),
        Mistake(
            "even domains",
            lambda *a: (n := _counts(*a)) / n.sum(1, keepdim=True) * a[3],
            "You took every domain for equally large. P(domain) is the domain's share of the tokens; count it.",
        ),
        Mistake(
            "domain first",
            lambda *a: _lift_by_counting(*a).T,
            "The numbers are right, but the first axis must be the expert and the second the domain.",
        ),
        Mistake(
            "logarithm",
            lambda *a: _lift_by_counting(*a).log(),
            "That is the logarithm of the lift. Wanted is the ratio itself: 1 where the expert has no liking.",
        ),
    ),
    hints=(
        "Make a table of counts [expert, domain] first: how many tokens of the domain go to the expert.",
        "P(domain | expert) is a row divided by its sum; P(domain) is the share of tokens of that domain. The lift "
        "is "
        "their ratio.",
        "`one_hot(chosen, n_experts).sum(1)` is [token, expert]; its product with `one_hot(domain, n_domains)` "
        "gives the "
        "counts: `einsum(took, of, 'token expert, token domain -> expert domain')`",
    ),
)

# ------------------------------------------------------------------------------------------------------------ vote


def _ballots(rng: np.random.Generator) -> Iterator[Case]:
    for kinds, experts in ((5, 4), (8, 6), (3, 8)):
        rows = []
        winners = 1 + rng.permutation(experts - 1)  # never expert 0, so that a default of 0 shows
        for token in range(kinds):
            best, second = winners[token % (experts - 1)], int(rng.integers(experts))
            rows += [(token, best)] * 3 + [(token, second)]
        rows += [(kinds, winners[0])] * 7  # the most frequent expert of all
        order = rng.permutation(len(rows))
        # A minority vote comes last: who remembers the latest one is wrong.
        rows = [rows[i] for i in order] + [(0, 0)]
        tokens, experts_of = (torch.tensor(np.array(column)) for column in zip(*rows, strict=True))
        asked = torch.tensor([*range(kinds + 1), kinds + 3, kinds + 9])
        yield Case((tokens, experts_of, asked, experts), about=f"{kinds + 1} tokens known, two unknown ones")


def _by_counters(train_tokens: Tensor, train_experts: Tensor, test_tokens: Tensor, n_experts: int) -> Tensor:
    votes: dict[int, Counter[int]] = {}
    for token, expert in zip(train_tokens.tolist(), train_experts.tolist(), strict=True):
        votes.setdefault(token, Counter())[expert] += 1
    overall = Counter(train_experts.tolist())
    return torch.tensor([_winner(votes.get(token, overall), n_experts) for token in test_tokens.tolist()])


def _winner(votes: Counter[int], n_experts: int) -> int:
    return max(range(n_experts), key=lambda expert: votes[expert])


def _overall(train_tokens: Tensor, train_experts: Tensor, test_tokens: Tensor, n_experts: int) -> Tensor:
    return torch.full_like(test_tokens, _winner(Counter(train_experts.tolist()), n_experts))


def _unknown_zero(train_tokens: Tensor, train_experts: Tensor, test_tokens: Tensor, n_experts: int) -> Tensor:
    right = _by_counters(train_tokens, train_experts, test_tokens, n_experts)
    return torch.where(torch.isin(test_tokens, train_tokens), right, 0)


def _latest(train_tokens: Tensor, train_experts: Tensor, test_tokens: Tensor, n_experts: int) -> Tensor:
    last = dict(zip(train_tokens.tolist(), train_experts.tolist(), strict=True))
    overall = _winner(Counter(train_experts.tolist()), n_experts)
    return torch.tensor([last.get(token, overall) for token in test_tokens.tolist()])


VOTE = Exercise(
    name="vote",
    task="Guess a token's expert from its id alone, by majority of what was seen elsewhere",
    cases=_ballots,
    truth=_by_counters,
    compare=equal(),
    mistakes=(
        Mistake(
            "token ignored",
            _overall,
            "You give the most frequent expert of all to every token. Vote token by token: a table [token, expert] "
            "of "
            "counts, and the largest of each row.",
        ),
        Mistake(
            "unknown tokens to expert 0",
            _unknown_zero,
            "Tokens that were never seen go to expert 0 in yours (the argmax of a row of zeros). Give them the most "
            "frequent expert overall.",
        ),
        Mistake(
            "latest instead of most",
            _latest,
            "You remember the latest expert of each token, and overwrite what was seen before. Count, then take "
            "the majority.",
        ),
    ),
    hints=(
        "Count in a table: how often did each token go to each expert?",
        "The guess for a token is the argmax of its row; where the row is empty, the argmax of the table's sum "
        "over tokens.",
        "`table = torch.zeros(size, n_experts).index_put_((train_tokens, train_experts), "
        "torch.ones(len(train_tokens)), "
        "accumulate=True)`, with room for the largest id of both; `torch.where(table.sum(1) > 0, table.argmax(1), "
        "table.sum(0).argmax())[test_tokens]`",
    ),
)

# ----------------------------------------------------------------------------------------------------- expert_says


def _outputs(rng: np.random.Generator) -> Iterator[Case]:
    for slots, d_model, d_vocab in ((2, 6, 9), (4, 8, 5), (1, 3, 7)):
        y, weight = rng.normal(size=(slots, d_model)), softmax(rng.normal(size=slots))
        if slots == 1:
            weight = np.array([0.6])  # as if another expert had been taken out
        gain, unembed = rng.uniform(0.5, 2, size=d_model), rng.normal(size=(d_vocab, d_model))
        given = [torch.tensor(each, dtype=torch.float32) for each in (y, weight, gain, unembed)]
        yield Case((*given, float(rng.uniform(2, 6))), about=f"{slots} slot{'s' * (slots > 1)}")


def _slot_by_slot(y: Tensor, weight: Tensor, gain: Tensor, unembed: Tensor, rms: float) -> Tensor:
    made = np.zeros((len(y), len(unembed)))
    for slot, token in np.ndindex(*made.shape):
        stream = weight[slot].item() * y[slot].double().numpy() / rms
        made[slot, token] = float(np.sum(stream * gain.double().numpy() * unembed[token].double().numpy()))
    return torch.tensor(made).float()


def _says(y: Tensor, weight: Tensor | None, gain: Tensor | None, unembed: Tensor, rms: float) -> Tensor:
    scaled = y / rms * (1.0 if weight is None else weight[:, None])
    return (scaled if gain is None else scaled * gain) @ unembed.T


EXPERT_SAYS = Exercise(
    name="expert_says",
    task="What each expert of a token adds to the logits directly",
    cases=_outputs,
    truth=_slot_by_slot,
    compare=close(rtol=1e-3, atol=1e-4),
    mistakes=(
        Mistake(
            "no routing weight",
            lambda y, w, g, u, rms: _says(y, None, g, u, rms),
            "The routing weight is missing. The stream receives w · y, so what the expert adds to a logit shrinks "
            "with w.",
        ),
        Mistake(
            "no gain",
            lambda y, w, g, u, rms: _says(y, w, None, u, rms),
            "The gain of the final norm is missing: each of the d_model numbers is multiplied by it before the "
            "unembedding.",
        ),
        Mistake(
            "its own norm",
            lambda y, w, g, u, rms: _says(y / y.pow(2).mean(-1, keepdim=True).sqrt(), None, g, u, 1.0),
            "You normed the expert's output by itself. That gives its direction, and the weight cancels; but the "
            "model divides by the "
            "rms of the whole final stream, which is given.",
        ),
        Mistake(
            "not divided",
            lambda y, w, g, u, rms: _says(y, w, g, u, 1.0),
            "You did not divide by `rms`: the final norm scales the whole stream, and this part of it too.",
        ),
        Mistake(
            "slots summed",
            lambda y, w, g, u, rms: _says(y, w, g, u, rms).sum(0),
            "You added the slots together. Keep them apart: [slot, d_vocab].",
        ),
    ),
    hints=(
        "Follow y on its way: times the routing weight into the stream, through the final norm, through the "
        "unembedding.",
        "The final norm divides by the rms of the whole stream (given) and multiplies by the gain. All of it is "
        "linear.",
        "`return (weight[:, None] * y * gain / rms) @ unembed.T`",
    ),
)

# -------------------------------------------------------------------------------------------------- without_expert


def _to_ablate(rng: np.random.Generator) -> Iterator[Case]:
    for policy in ("zero", "renormalise", "reroute"):
        for tokens, experts, k in ((12, 5, 2), (10, 6, 3), (8, 4, 1)):
            logits = torch.tensor(2 * rng.normal(size=(tokens, experts)), dtype=torch.float32)
            out = int(_by_sorting(logits, k)[0][0, 0])  # an expert that some token goes to
            yield Case((logits, k, out, policy), about=f"policy {policy!r}, top-{k}")


def _out(router_logits: Tensor, k: int, expert: int, policy: str) -> Routes:
    """Token by token."""
    chosen, weights = [], []
    for row in router_logits.double().numpy():
        order = sorted(range(len(row)), key=lambda e, row=row: -row[e])
        if policy == "reroute":
            order.remove(expert)
        here = order[:k]
        w = softmax(row[here])
        if policy != "reroute":
            w = np.where(np.array(here) == expert, 0.0, w)
        if policy == "renormalise" and w.sum() > 0:
            w = w / w.sum()
        chosen.append(here)
        weights.append(w)
    return torch.tensor(np.array(chosen)), torch.tensor(np.array(weights)).float()


def _as_if(asked: str, done: str) -> Callable[[Tensor, int, int, str], Routes]:
    """One policy taken for another."""

    def taken(router_logits: Tensor, k: int, expert: int, policy: str) -> Routes:
        return _out(router_logits, k, expert, done if policy == asked else policy)

    return taken


def _divides_by_zero(router_logits: Tensor, k: int, expert: int, policy: str) -> Routes:
    chosen, weights = _out(router_logits, k, expert, policy)
    return chosen, weights / weights.sum(-1, keepdim=True) if policy == "renormalise" else weights


def _logit_zero(router_logits: Tensor, k: int, expert: int, policy: str) -> Routes:
    if policy != "reroute":
        return _out(router_logits, k, expert, policy)
    router_logits[:, expert] = 0
    return _by_sorting(router_logits, k)


WITHOUT_EXPERT = Exercise(
    name="without_expert",
    task="The routes when an expert is taken out, by three policies",
    cases=_to_ablate,
    truth=_out,
    points=2,
    mistakes=(
        Mistake(
            "zero that renormalises",
            _as_if("zero", "renormalise"),
            "With policy 'zero' the other experts keep the weights that they had. You scaled them up: that is "
            "'renormalise'.",
        ),
        Mistake(
            "reroute without a successor",
            _as_if("reroute", "zero"),
            "With policy 'reroute' nobody steps in for the expert in yours. Mask its logit *before* top-k, so that "
            "the next "
            "best expert is chosen and the weights are the softmax over the new set.",
        ),
        Mistake(
            "renormalise by rerouting",
            _as_if("renormalise", "reroute"),
            "'renormalise' calls nobody new: the survivors of the *old* choice are scaled to sum to 1. You re-routed.",
        ),
        Mistake(
            "0 / 0",
            _divides_by_zero,
            "NaN: where the only expert of a token is taken out, nothing is left to scale. Then the weights stay 0 "
            "and the layer "
            "writes nothing.",
        ),
        Mistake(
            "logit 0",
            _logit_zero,
            "A router logit of 0 does not forbid an expert: where the others are negative it still wins. Mask with −∞.",
        ),
    ),
    hints=(
        "Two of the policies change the weights after routing; one changes the logits before it. `route` is there "
        "to be used.",
        "zero: weights.masked_fill(chosen == expert, 0). renormalise: the same, then divided by the sum (where "
        "that is not 0). "
        "reroute: −∞ into the expert's column, then route.",
        "`if policy == 'reroute': masked = router_logits.clone(); masked[:, expert] = -torch.inf; return "
        "route(masked, k)`; for the "
        "other two `total = kept.sum(-1, keepdim=True)`, `kept / total.clamp(min=1e-30)`",
    ),
)

# ---------------------------------------------------------------------------------------------------- load_matched


def _loads(rng: np.random.Generator) -> Iterator[Case]:
    for experts in (8, 6, 12):
        load = rng.permutation(np.linspace(0.05, 0.5, experts)) + 0.004 * rng.random(experts)
        # Not the first nor the last in rank: it has a neighbour on both sides, a near one above.
        order = np.argsort(load)
        middle = int(order[experts // 2])
        load[order[experts // 2 + 1]] = load[middle] + 0.005
        yield Case((torch.tensor(load, dtype=torch.float32), middle), about=f"{experts} experts")


def _closest(load: Tensor, expert: int) -> int:
    values = load.tolist()
    others = [(abs(value - values[expert]), i) for i, value in enumerate(values) if i != expert]
    return min(others)[1]


LOAD_MATCHED = Exercise(
    name="load_matched",
    task="The control of an expert: another one of its layer whose load is closest",
    cases=_loads,
    truth=_closest,
    compare=equal(),
    mistakes=(
        Mistake(
            "itself",
            lambda load, expert: expert,
            "That is the expert itself, whose load is closest of all. Take it out of the running first.",
        ),
        Mistake(
            "sign forgotten",
            lambda load, expert: int((load - load[expert]).argmin()),
            "You took the expert with the smallest load. Closest means the smallest *absolute* difference.",
        ),
        Mistake(
            "neighbour by number",
            lambda load, expert: (expert + 1) % len(load),
            "Expert numbers mean nothing: the one with the next number need not have a similar load. Compare loads.",
        ),
        Mistake(
            "next below",
            lambda load, expert: int(torch.where(load < load[expert], load, -1).argmax()),
            "You looked below only. The closest one may have more load than the expert.",
        ),
    ),
    hints=(
        "Distances of all loads to this one's; which is the smallest, not counting its own 0?",
        "Set its own distance to infinity, then argmin.",
        "`gap = (load - load[expert]).abs()`; `gap[expert] = torch.inf`; `return int(gap.argmin())`",
    ),
)

# ------------------------------------------------------------------------------------------------ rank_correlation


def _pairs(rng: np.random.Generator) -> Iterator[Case]:
    for n, slope in ((10, 1.0), (32, -0.6), (15, 0.2)):
        a = rng.normal(size=n)
        b = np.exp(2 * (slope * a + rng.normal(size=n)))  # an outlier or two, as damage has them
        yield Case((torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)), about=f"{n} pairs")


def _spearman(a: Tensor, b: Tensor) -> float:
    ranks = [stats.rankdata(values.numpy()) for values in (a, b)]
    return float(np.corrcoef(ranks)[0, 1])


def _pearson(a: Tensor, b: Tensor) -> float:
    return float(np.corrcoef(a.double().numpy(), b.double().numpy())[0, 1])


def _ranks(values: Tensor, descending: bool = False) -> Tensor:
    return values.argsort(descending=descending).argsort().float()


RANK_CORRELATION = Exercise(
    name="rank_correlation",
    task="Spearman's correlation: do two measures order the same things alike?",
    cases=_pairs,
    truth=_spearman,
    compare=close(rtol=1e-3, atol=1e-4),
    mistakes=(
        Mistake(
            "values, not ranks",
            _pearson,
            "That is the correlation of the values (Pearson's): one expert with huge damage decides it. Replace "
            "the values by "
            "their ranks first.",
        ),
        Mistake(
            "argsort once",
            lambda a, b: _pearson(a.argsort().float(), b.argsort().float()),
            "argsort says *which* element is smallest, not which rank an element has. The rank is the argsort of "
            "the argsort.",
        ),
        Mistake(
            "one of them descending",
            lambda a, b: _pearson(_ranks(a), _ranks(b, descending=True)),
            "The sign is wrong: rank both in the same direction, smallest first.",
        ),
        Mistake(
            "covariance",
            lambda a, b: float(np.cov(_ranks(a).numpy(), _ranks(b).numpy())[0, 1]),
            "That is the covariance of the ranks. Divide by both standard deviations, so that it lies between −1 "
            "and 1.",
        ),
    ),
    hints=(
        "Turn both into ranks, 0 for the smallest, and take the ordinary correlation of the ranks.",
        "`values.argsort().argsort()` gives ranks. A correlation is the mean product of both after subtracting "
        "means and dividing by deviations.",
        "`ra, rb = (x.argsort().argsort().float() for x in (a, b))`; `torch.corrcoef(torch.stack([ra, rb]))[0, 1]`",
    ),
)

LESSON = Outline(
    name="07_experts",
    title="Experts: who works, and who matters",
    minutes=(70, 90),
    able_to=(
        "route a token by hand: top-k, then softmax, and say what the order changes",
        "measure load, balance and the lift of experts for domains, and say on which mixture they depend",
        "separate what routing takes from the token's id from what it takes from context, with held-out text and "
        "shuffled controls",
        "read what an expert writes into the logits, and what one that was not chosen would have written",
        "take an expert out by four policies, with a load-matched control, and say what each question means",
        "explain why specialisation and the effect of an ablation disagree",
    ),
    exercises=(
        ROUTE,
        LOAD_STATISTICS,
        LIFT,
        VOTE,
        EXPERT_SAYS,
        WITHOUT_EXPERT,
        LOAD_MATCHED,
        RANK_CORRELATION,
    ),
    predictions=("softmax first", "balance", "token alone", "policy", "code", "rank"),
    builds_on=("01_build_gpt_oss", "03_residual_stream"),
)
