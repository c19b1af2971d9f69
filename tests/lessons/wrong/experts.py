"""What students hand in for lesson 7, and the hint that each deserves."""

import math

import torch
from torch.nn.functional import one_hot


def route_softmax_first(router_logits, k):
    p = torch.softmax(router_logits, dim=-1)
    top = torch.topk(p, k)
    return top.indices, top.values


def route_ascending(router_logits, k):
    chosen = router_logits.argsort(-1)[:, :k]
    return chosen, router_logits.gather(1, chosen).softmax(1)


def route_wrong_axis(router_logits, k):
    values, chosen = router_logits.topk(k)
    e = values.exp()
    return chosen, e / e.sum(0, keepdim=True)


def route_without_softmax(router_logits, k):
    chosen = router_logits.argsort(-1, descending=True)[:, :k]
    return chosen, router_logits.gather(-1, chosen)


def _load(chosen, n_experts):
    return torch.bincount(chosen.reshape(-1), minlength=n_experts) / len(chosen)


def _entropy(p):
    p = p[p > 0]
    return float(-(p * p.log()).sum())


def load_of_routes(chosen, n_experts):
    p = torch.bincount(chosen.reshape(-1), minlength=n_experts) / chosen.numel()
    return p, float(p.std(unbiased=False) / p.mean()), _entropy(p) / math.log(n_experts)


def load_with_default_std(chosen, n_experts):
    load = _load(chosen, n_experts)
    return load, float(load.std() / load.mean()), _entropy(load / load.sum()) / math.log(n_experts)


def load_in_nats(chosen, n_experts):
    load = _load(chosen, n_experts)
    return load, float(load.std(unbiased=False) / load.mean()), _entropy(load / load.sum())


def load_with_nan(chosen, n_experts):
    load = _load(chosen, n_experts)
    p = load / load.sum()
    return load, float(load.std(unbiased=False) / load.mean()), float(-(p * torch.log(p)).sum()) / math.log(n_experts)


def _table(chosen, domain, n_experts, n_domains):
    return one_hot(chosen, n_experts).sum(1).float().T @ one_hot(domain, n_domains).float()


def lift_without_base(chosen, domain, n_experts, n_domains):
    counts = _table(chosen, domain, n_experts, n_domains)
    return counts / counts.sum(-1, keepdim=True)


def lift_other_way(chosen, domain, n_experts, n_domains):
    counts = _table(chosen, domain, n_experts, n_domains)
    return counts / counts.sum(0)


def lift_even(chosen, domain, n_experts, n_domains):
    counts = _table(chosen, domain, n_experts, n_domains)
    return counts / counts.sum(-1, keepdim=True) / (1 / n_domains)


def lift_turned(chosen, domain, n_experts, n_domains):
    counts = _table(chosen, domain, n_experts, n_domains)
    share = torch.bincount(domain, minlength=n_domains) / len(domain)
    return (counts / counts.sum(-1, keepdim=True) / share).T


def vote_overall(train_tokens, train_experts, test_tokens, n_experts):
    return torch.full((len(test_tokens),), int(torch.bincount(train_experts).argmax()))


def vote_argmax(train_tokens, train_experts, test_tokens, n_experts):
    table = torch.zeros(100, n_experts)
    for token, expert in zip(train_tokens, train_experts, strict=True):
        table[token, expert] += 1
    return table.argmax(1)[test_tokens]


def vote_latest(train_tokens, train_experts, test_tokens, n_experts):
    seen = dict(zip(train_tokens.tolist(), train_experts.tolist(), strict=True))
    default = int(torch.bincount(train_experts, minlength=n_experts).argmax())
    return torch.tensor([seen.get(token, default) for token in test_tokens.tolist()])


def says_unweighted(y, weight, gain, unembed, rms):
    return torch.einsum("sd,d,vd->sv", y, gain, unembed) / rms


def says_without_gain(y, weight, gain, unembed, rms):
    return torch.einsum("s,sd,vd->sv", weight, y, unembed) / rms


def says_normed_alone(y, weight, gain, unembed, rms):
    stream = weight[:, None] * y
    return (stream / stream.square().mean(-1, keepdim=True).sqrt() * gain) @ unembed.T


def says_undivided(y, weight, gain, unembed, rms):
    return torch.einsum("s,sd,d,vd->sv", weight, y, gain, unembed)


def _route(router_logits, k):
    values, chosen = router_logits.topk(k)
    return chosen, values.softmax(-1)


def _scaled(w):
    total = w.sum(-1, keepdim=True)
    return torch.where(total > 0, w / total, w)


def without_always_scaled(router_logits, k, expert, policy):
    if policy == "reroute":
        router_logits[:, expert] = -1e9
        return _route(router_logits, k)
    chosen, w = _route(router_logits, k)
    return chosen, _scaled(w.masked_fill(chosen == expert, 0))


def without_successor(router_logits, k, expert, policy):
    chosen, w = _route(router_logits, k)
    w = w * (chosen != expert)
    return chosen, _scaled(w) if policy == "renormalise" else w


def without_nan_guard(router_logits, k, expert, policy):
    if policy == "reroute":
        return _route(router_logits.index_fill(1, torch.tensor([expert]), -torch.inf), k)
    chosen, w = _route(router_logits, k)
    w = w * (chosen != expert)
    return chosen, w / w.sum(-1, keepdim=True) if policy == "renormalise" else w


def without_by_zero_logit(router_logits, k, expert, policy):
    if policy == "reroute":
        return _route(router_logits.index_fill(1, torch.tensor([expert]), 0.0), k)
    chosen, w = _route(router_logits, k)
    w = w * (chosen != expert)
    return chosen, _scaled(w) if policy == "renormalise" else w


def matched_itself(load, expert):
    return int(torch.argmin((load - load[expert]).abs()))


def matched_signed(load, expert):
    gap = load - load[expert]
    gap[expert] = torch.inf
    return int(gap.argmin())


def matched_next(load, expert):
    return expert + 1 if expert + 1 < len(load) else 0


def correlation_of_values(a, b):
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / a.norm() / b.norm())


def _pearson(a, b):
    return correlation_of_values(a.float(), b.float())


def correlation_of_argsorts(a, b):
    return _pearson(torch.argsort(a), torch.argsort(b))


def correlation_reversed(a, b):
    return _pearson(a.argsort(descending=True).argsort(), b.argsort().argsort())


WRONG = {
    "route": [
        (route_softmax_first, "do not sum to 1"),
        (route_ascending, "k smallest"),
        (route_wrong_axis, "over the tokens"),
        (route_without_softmax, "logits of the chosen"),
    ],
    "load_statistics": [
        (load_of_routes, "shares of the routes"),
        (load_with_default_std, "E − 1"),
        (load_in_nats, "not divided by log E"),
        (load_with_nan, "0 · log 0"),
    ],
    "lift": [
        (lift_without_base, "divide by P(domain)"),
        (lift_other_way, "P(expert | domain)"),
        (lift_even, "equally large"),
        (lift_turned, "first axis"),
    ],
    "vote": [
        (vote_overall, "token by token"),
        (vote_argmax, "row of zeros"),
        (vote_latest, "latest expert"),
    ],
    "expert_says": [
        (says_unweighted, "routing weight is missing"),
        (says_without_gain, "gain of the final norm is missing"),
        (says_normed_alone, "by itself"),
        (says_undivided, "did not divide"),
    ],
    "without_expert": [
        (without_always_scaled, "You scaled them up"),
        (without_successor, "nobody steps in"),
        (without_nan_guard, "nothing is left to scale"),
        (without_by_zero_logit, "does not forbid"),
    ],
    "load_matched": [
        (matched_itself, "the expert itself"),
        (matched_signed, "smallest load"),
        (matched_next, "numbers mean nothing"),
    ],
    "rank_correlation": [
        (correlation_of_values, "Pearson"),
        (correlation_of_argsorts, "argsort of the argsort"),
        (correlation_reversed, "same direction"),
    ],
}
