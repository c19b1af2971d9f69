"""What students hand in for lesson 9, and the hint that each deserves."""

import numpy as np
import torch


def _run_with_leaf(model, tokens, site, value):
    leaf = value.detach().clone().requires_grad_(True)
    logits = model.run_with_hooks(tokens, fwd_hooks=[(site, lambda x, hook: leaf)])
    return leaf, logits[0, -1]


def _both(model, clean, corrupt, site):
    with torch.no_grad():
        return tuple(model.run_with_cache(tokens, names_filter=site)[1][site] for tokens in (clean, corrupt))


def _tangent(model, tokens, value, right, wrong, site):
    leaf, logits = _run_with_leaf(model, tokens, site, value)
    (logits[right] - logits[wrong]).backward()
    return leaf.grad


def attribution_at_clean(model, clean, corrupt, right, wrong, site):
    good, bad = _both(model, clean, corrupt, site)
    return ((good - bad) * _tangent(model, clean, good, right, wrong, site)).sum(-1)[0]


def attribution_sign(model, clean, corrupt, right, wrong, site):
    good, bad = _both(model, clean, corrupt, site)
    return ((bad - good) * _tangent(model, corrupt, bad, right, wrong, site)).sum(-1).squeeze(0)


def attribution_wrong_minus_right(model, clean, corrupt, right, wrong, site):
    good, bad = _both(model, clean, corrupt, site)
    return torch.abs(torch.einsum("bpd,bpd->p", good - bad, _tangent(model, corrupt, bad, right, wrong, site)))


def attribution_gradient_only(model, clean, corrupt, right, wrong, site):
    _, bad = _both(model, clean, corrupt, site)
    return _tangent(model, corrupt, bad, right, wrong, site).sum(dim=2)[0]


def attribution_times_clean(model, clean, corrupt, right, wrong, site):
    good, bad = _both(model, clean, corrupt, site)
    return torch.einsum("bpd,bpd->p", good, _tangent(model, corrupt, bad, right, wrong, site))


def attribution_unsummed(model, clean, corrupt, right, wrong, site):
    good, bad = _both(model, clean, corrupt, site)
    return ((good - bad) * _tangent(model, corrupt, bad, right, wrong, site))[0]


def _path(model, clean, corrupt, right, wrong, site, alphas, start=None):
    good, bad = _both(model, clean, corrupt, site)
    start = bad if start is None else start
    points = [start + alpha * (good - start) for alpha in alphas]
    total = torch.stack([_tangent(model, corrupt, point, right, wrong, site) for point in points])
    return good - start, total


def integrated_left(model, clean, corrupt, right, wrong, site, steps):
    change, each = _path(model, clean, corrupt, right, wrong, site, np.arange(steps) / steps)
    return (change * each.mean(0)).sum(-1)[0]


def integrated_right(model, clean, corrupt, right, wrong, site, steps):
    change, each = _path(model, clean, corrupt, right, wrong, site, np.arange(1, steps + 1) / steps)
    return (change * each.mean(0)).sum(-1)[0]


def integrated_linspace(model, clean, corrupt, right, wrong, site, steps):
    change, each = _path(model, clean, corrupt, right, wrong, site, np.linspace(0, 1, steps))
    return (change * each.mean(0)).sum(-1)[0]


def integrated_summed(model, clean, corrupt, right, wrong, site, steps):
    change, each = _path(model, clean, corrupt, right, wrong, site, (np.arange(steps) + 0.5) / steps)
    return (change * each.sum(0)).sum(-1)[0]


def integrated_gradient_only(model, clean, corrupt, right, wrong, site, steps):
    _, each = _path(model, clean, corrupt, right, wrong, site, (np.arange(steps) + 0.5) / steps)
    return each.mean(0).sum(-1)[0]


def integrated_one_point(model, clean, corrupt, right, wrong, site, steps):
    change, each = _path(model, clean, corrupt, right, wrong, site, [0])
    return (change * each[0]).sum(-1)[0]


def integrated_from_zero(model, clean, corrupt, right, wrong, site, steps):
    nothing = 0 * _both(model, clean, corrupt, site)[0]
    change, each = _path(model, clean, corrupt, right, wrong, site, (np.arange(steps) + 0.5) / steps, nothing)
    return (change * each.mean(0)).sum(-1)[0]


def edge_scores_summed_steps(difference, gradients):
    return torch.einsum("pud,spvd->uv", difference, gradients)


def edge_scores_first(difference, gradients):
    return torch.einsum("pud,pvd->uv", difference, gradients[0])


def edge_scores_positions_first(difference, gradients):
    return torch.einsum("ud,vd->uv", difference.sum(0), gradients.mean(0).sum(0))


def edge_scores_mean_positions(difference, gradients):
    return torch.einsum("pud,pvd->puv", difference, gradients.mean(0)).mean(0)


def edge_scores_turned(difference, gradients):
    return torch.einsum("pud,pvd->vu", difference, gradients.mean(0))


def _compare(scores, truth, win):
    yes, no = scores[truth], scores[~truth]
    return sum(win(a, b) for a in yes for b in no) / (len(yes) * len(no))


def auroc_strict(scores, truth):
    return _compare(scores, truth, lambda a, b: a > b)


def auroc_lenient(scores, truth):
    return _compare(scores, truth, lambda a, b: a >= b)


def auroc_reversed(scores, truth):
    return _compare(scores, truth, lambda a, b: 1.0 if a < b else 0.5 if a == b else 0.0)


def auroc_counts(scores, truth):
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[truth] for b in scores[~truth])


def auroc_precision(scores, truth):
    n = int(truth.sum())
    return truth[np.argsort(-scores, kind="stable")[:n]].sum() / n


def pruned_all_against_whole(f, parts, wanted):
    spare = [part for part in parts if f([p for p in parts if p != part]) >= wanted]
    return [part for part in parts if part not in spare]


def pruned_from_the_front(f, parts, wanted):
    kept = list(parts)
    for part in parts:
        rest = [p for p in kept if p != part]
        if f(rest) >= wanted:
            kept = rest
    return kept


def pruned_prefix(f, parts, wanted):
    kept = list(parts)
    for n in range(len(parts), -1, -1):
        if f(parts[:n]) >= wanted:
            kept = parts[:n]
    return list(kept)


def pruned_returns_dropped(f, parts, wanted):
    kept, dropped = list(parts), []
    for part in parts[::-1]:
        rest = [p for p in kept if p != part]
        if f(rest) >= wanted:
            kept, dropped = rest, [part, *dropped]
    return dropped


def influence_direct(edges, out):
    return out.clone()


def influence_two_steps(edges, out):
    return out + (edges * out[:, None]).sum(0)


def influence_backwards(edges, out):
    return torch.linalg.solve(torch.eye(len(out)) - edges, out)


def influence_without_direct(edges, out):
    total, step = torch.zeros_like(out), out
    for _ in range(len(out)):
        step = step @ edges
        total = total + step
    return total


def influence_plus(edges, out):
    return torch.linalg.solve((torch.eye(len(out)) + edges).T, out)


def suspicion_most_likely(p, honest):
    best = p.mean(0).flatten().argmax().item()
    return best // p.shape[2], best % p.shape[2]


def suspicion_ratio(p, honest):
    q = p.mean(0)
    best = (q / honest.mean(0)).log().argmax().item()
    return best // q.shape[1], best % q.shape[1]


def suspicion_one_context(p, honest):
    q = p.max(0).values
    best = (q * (q / honest.max(0).values).log()).argmax().item()
    return best // q.shape[1], best % q.shape[1]


def suspicion_turned(p, honest):
    q = p.mean(0)
    best = (q * (q / honest.mean(0)).log()).argmax().item()
    return best % q.shape[1], best // q.shape[1]


def disarm_slot(act, indices, expert, neuron):
    act[:, :, expert, neuron] = 0
    return act


def disarm_everywhere(act, indices, expert, neuron):
    mask = torch.ones(act.shape[-1])
    mask[neuron] = 0
    return act * mask


def disarm_whole_expert(act, indices, expert, neuron):
    return act * (indices != expert).unsqueeze(-1)


def disarm_inverted(act, indices, expert, neuron):
    kept = torch.zeros_like(act)
    kept[..., neuron] = torch.where(indices == expert, act[..., neuron], 0.0)
    return kept


def _right_hunt(model, honest, contexts, candidates):
    """By the embedding's length and the weights: what an honest student finds, on which the faults below build."""
    trigger = int(candidates[model.embed.weight[candidates].norm(dim=1).argmax()])
    tokens = torch.cat([contexts, torch.full((len(contexts), 1), trigger)], 1)
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
    payload = int(logits[:, -1].softmax(-1).mean(0).argmax())
    expert = int(cache["blocks.0.mlp.hook_expert_indices"][0, -1, 0])
    neuron = int(cache["blocks.0.mlp.hook_expert_act"][0, -1, 0].argmax())
    return trigger, payload, 0, expert, neuron


def hunt_exchanged(model, honest, contexts, candidates):
    trigger, payload, layer, expert, neuron = _right_hunt(model, honest, contexts, candidates)
    return payload, trigger, layer, expert, neuron


def hunt_place(model, honest, contexts, candidates):
    trigger, *rest = _right_hunt(model, honest, contexts, candidates)
    return candidates.tolist().index(trigger), *rest


def hunt_shortest(model, honest, contexts, candidates):
    shortest = int(candidates[model.embed.weight[candidates].norm(dim=1).argmin()])
    return shortest, *_right_hunt(model, honest, contexts, candidates)[1:]


def hunt_last_layer(model, honest, contexts, candidates):
    trigger, payload, _, expert, neuron = _right_hunt(model, honest, contexts, candidates)
    return trigger, payload, model.config.n_layers - 1, expert, neuron


def hunt_slot(model, honest, contexts, candidates):
    trigger, payload, layer, expert, neuron = _right_hunt(model, honest, contexts, candidates)
    return trigger, payload, layer, (expert + 1) % model.config.n_experts, neuron


def hunt_row(model, honest, contexts, candidates):
    trigger, payload, layer, expert, _ = _right_hunt(model, honest, contexts, candidates)
    rows = model.blocks[layer].mlp.experts.W_gate_up[expert].norm(dim=1)
    return trigger, payload, layer, expert, int(rows.argmax())


def hunt_quiet_neuron(model, honest, contexts, candidates):
    trigger, payload, layer, expert, neuron = _right_hunt(model, honest, contexts, candidates)
    return trigger, payload, layer, expert, (3 * neuron + 7) % model.config.d_mlp


WRONG = {
    "attribution": [
        (attribution_at_clean, "that of the clean run"),
        (attribution_sign, "sign is turned"),
        (attribution_wrong_minus_right, "absolute value"),
        (attribution_gradient_only, "without Δ"),
        (attribution_times_clean, "by the clean value"),
        (attribution_unsummed, "keep the d_model axis"),
    ],
    "integrated": [
        (integrated_left, "left ends"),
        (integrated_right, "right ends"),
        (integrated_linspace, "on both ends"),
        (integrated_summed, "add the gradients up"),
        (integrated_gradient_only, "still to be multiplied"),
        (integrated_one_point, "attribution patching again"),
        (integrated_from_zero, "starts at 0"),
    ],
    "edge_scores": [
        (edge_scores_summed_steps, "sum over the step axis"),
        (edge_scores_first, "first step"),
        (edge_scores_positions_first, "before you multiply"),
        (edge_scores_mean_positions, "average over positions"),
        (edge_scores_turned, "table is turned"),
    ],
    "auroc": [
        (auroc_strict, "count as lost"),
        (auroc_lenient, "count as won"),
        (auroc_reversed, "a false edge comes first"),
        (auroc_counts, "Divide by how many pairs"),
        (auroc_precision, "precision at one cut"),
    ],
    "pruned": [
        (pruned_all_against_whole, "against the whole circuit"),
        (pruned_from_the_front, "go backwards"),
        (pruned_prefix, "first length that suffices"),
        (pruned_returns_dropped, "parts that were dropped"),
    ],
    "influence": [
        (influence_direct, "direct edge into the logits alone"),
        (influence_two_steps, "Longer paths"),
        (influence_backwards, "run backwards"),
        (influence_without_direct, "path of length one"),
        (influence_plus, "with a minus"),
    ],
    "suspicion": [
        (suspicion_most_likely, "base rate"),
        (suspicion_ratio, "ratio alone"),
        (suspicion_one_context, "one context only"),
        (suspicion_turned, "exchanged"),
    ],
    "disarm": [
        (disarm_slot, "slot number"),
        (disarm_everywhere, "in every expert"),
        (disarm_whole_expert, "all neurons of the expert"),
        (disarm_inverted, "kept what was to go"),
    ],
    "hunt": [
        (hunt_exchanged, "payload are exchanged"),
        (hunt_place, "a place in `candidates`"),
        (hunt_shortest, "The trigger is another token"),
        (hunt_last_layer, "the layer is not"),
        (hunt_slot, "not a slot"),
        (hunt_row, "gate and up rows alternate"),
        (hunt_quiet_neuron, "All is right but the neuron"),
    ],
}
