"""What students hand in for lesson 6, and the hint that each deserves."""

import numpy as np
import torch


def logit_difference_sign(logits, right, wrong):
    last, rows = logits[:, -1], torch.arange(len(logits))
    return last[rows, wrong] - last[rows, right]


def logit_difference_of_first(logits, right, wrong):
    first, rows = logits[:, 0], torch.arange(len(logits))
    return first[rows, right] - first[rows, wrong]


def logit_difference_of_probabilities(logits, right, wrong):
    p, rows = torch.softmax(logits[:, -1], dim=-1), torch.arange(len(logits))
    return p[rows, right] - p[rows, wrong]


def logit_difference_squared(logits, right, wrong):
    last = logits[:, -1, :]
    return last[:, right] - last[:, wrong]


def logit_difference_averaged(logits, right, wrong):
    rows = torch.arange(len(logits))
    return logits[rows, :, right].mean(-1) - logits[rows, :, wrong].mean(-1)


def recovered_mean_of_ratios(patched, clean, corrupt):
    shares = (patched - corrupt) / (clean - corrupt)
    return shares.sum() / len(shares)


def recovered_as_lost(patched, clean, corrupt):
    return ((clean - patched).sum() / (clean - corrupt).sum()).item()


def recovered_from_zero(patched, clean, corrupt):
    return patched.sum() / clean.sum()


def recovered_each(patched, clean, corrupt):
    return [(p - x) / (c - x) for p, c, x in zip(patched, clean, corrupt, strict=True)]


def recovered_half_baseline(patched, clean, corrupt):
    return (patched - corrupt).sum() / clean.sum()


def _run(model, tokens, site, hook):
    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=[(site, hook)])


def patch_everywhere(model, tokens, source, site, position):
    return _run(model, tokens, site, lambda x, hook: source[site])[:, -1]


def patch_added(model, tokens, source, site, position):
    def hook(x, hook):
        x[:, position, :] = x[:, position, :] + source[site][:, position, :]
        return x

    return _run(model, tokens, site, hook)[:, -1]


def patch_off_by_one(model, tokens, source, site, position):
    def hook(x, hook):
        x[:, position - 1] = source[site][:, position - 1]
        return x

    return _run(model, tokens, site, hook)[:, -1]


def patch_all_logits(model, tokens, source, site, position):
    def hook(x, hook):
        x[:, position] = source[site][:, position]
        return x

    return _run(model, tokens, site, hook)


def patch_that_forgets_to_return(model, tokens, source, site, position):
    def hook(x, hook):
        x = x.clone()
        x[:, position] = source[site][:, position]

    return _run(model, tokens, site, hook)[:, -1]


def patch_of_the_source(model, tokens, source, site, position):
    def hook(x, hook):
        x[:, position] = source[site][:, position]
        return x

    return _run(model, source.tokens, site, hook)[:, -1]


def _difference(logits, right, wrong):
    rows = torch.arange(len(logits))
    return (logits[rows, right] - logits[rows, wrong]).mean()


def _map(model, base, other, right, wrong, part="pre"):
    """Means of logit differences [layer pos], of ``base`` patched from ``other``, and the means of the two."""
    with torch.no_grad():
        logits, cache = model.run_with_cache(other)
        ends = [_difference(model(base)[:, -1], right, wrong), _difference(logits[:, -1], right, wrong)]
    found = torch.zeros(model.config.n_layers, base.shape[1])
    for layer in range(found.shape[0]):
        for position in range(found.shape[1]):
            site = f"blocks.{layer}.hook_resid_{part}"

            def put(x, hook, site=site, position=position):
                x[:, position] = cache[site][:, position]
                return x

            found[layer, position] = _difference(_run(model, base, site, put)[:, -1], right, wrong)
    return found, *ends


def patching_map_transposed(model, clean, corrupt, right, wrong):
    table, low, high = _map(model, corrupt, clean, right, wrong)
    return ((table - low) / (high - low)).transpose(0, 1)


def patching_map_noising(model, clean, corrupt, right, wrong):
    table, high, low = _map(model, clean, corrupt, right, wrong)
    return (table - low) / (high - low)


def patching_map_after_layers(model, clean, corrupt, right, wrong):
    table, low, high = _map(model, corrupt, clean, right, wrong, "post")
    return (table - low) / (high - low)


def patching_map_raw(model, clean, corrupt, right, wrong):
    return _map(model, corrupt, clean, right, wrong)[0]


def patching_map_lost(model, clean, corrupt, right, wrong):
    table, low, high = _map(model, corrupt, clean, right, wrong)
    return (high - table) / (high - low)


def interval_of_prompts(values, rng, n=4000):
    return np.quantile(values, [0.025, 0.975])


def interval_without_replacement(values, rng, n=4000):
    means = [rng.permutation(values).mean() for _ in range(n)]
    return np.quantile(means, [0.025, 0.975])


def interval_of_ninety(values, rng, n=4000):
    means = [rng.choice(values, len(values)).mean() for _ in range(n)]
    return np.quantile(means, 0.05), np.quantile(means, 0.95)


def interval_of_one_error(values, rng, n=4000):
    means = rng.choice(values, (n, len(values))).mean(1)
    return means.mean() - means.std(), means.mean() + means.std()


def both_ways_in_place(machine, clean, corrupt):
    good, bad, x, y = machine(clean), machine(corrupt), corrupt.copy(), clean.copy()
    recovered, lost = np.zeros(len(clean)), np.zeros(len(clean))
    for i in range(len(clean)):
        x[i], y[i] = clean[i], corrupt[i]
        recovered[i], lost[i] = (machine(x) - bad) / (good - bad), (good - machine(y)) / (good - bad)
    return recovered, lost


def _each(machine, base, other):
    values = []
    for i in range(len(base)):
        x = base.copy()
        x[i] = other[i]
        values.append(machine(x))
    return np.array(values)


def both_ways_kept(machine, clean, corrupt):
    good, bad = machine(clean), machine(corrupt)
    return (_each(machine, corrupt, clean) - bad) / (good - bad), (_each(machine, clean, corrupt) - bad) / (good - bad)


def both_ways_once(machine, clean, corrupt):
    good, bad = machine(clean), machine(corrupt)
    share = (_each(machine, corrupt, clean) - bad) / (good - bad)
    return share, share


def both_ways_exchanged(machine, clean, corrupt):
    good, bad = machine(clean), machine(corrupt)
    lost = (good - _each(machine, clean, corrupt)) / (good - bad)
    return lost, (_each(machine, corrupt, clean) - bad) / (good - bad)


def expert_write_by_slot(indices, weights, out, expert):
    slot = min(expert, out.shape[2] - 1)
    return weights[:, :, slot, None] * out[:, :, slot]


def expert_write_unweighted(indices, weights, out, expert):
    return torch.where((indices == expert).unsqueeze(-1), out, 0.0).sum(2)


def expert_write_averaged(indices, weights, out, expert):
    return torch.where((indices == expert).unsqueeze(-1), out * weights.unsqueeze(-1), 0.0).mean(-2)


def expert_write_of_all(indices, weights, out, expert):
    return torch.einsum("bps,bpsd->bpd", weights, out)


def expert_write_unmasked_outputs(indices, weights, out, expert):
    mine = torch.where(indices == expert, weights, 0.0)
    return torch.einsum("bps,bptd->bpd", mine, out)


def _replacement(z, policy, order, mean=None, resampled=None):
    if policy == "zero":
        return 0 * z
    if policy == "mean":
        return z.mean(0).repeat(len(z), 1) if mean is None else mean
    return z[order] if resampled is None else resampled


def replacement_wrong_axis(z, policy, order):
    return _replacement(z, policy, order, mean=z.mean(1)[:, None].repeat(1, z.shape[1]))


def replacement_one_number(z, policy, order):
    return _replacement(z, policy, order, mean=torch.full_like(z, float(z.mean())))


def replacement_one_row(z, policy, order):
    return _replacement(z, policy, order, mean=z.mean(dim=0))


def replacement_of_itself(z, policy, order):
    return _replacement(z, policy, order, resampled=z.clone())


def replacement_scattered(z, policy, order):
    found = torch.empty_like(z)
    found[order] = z
    return _replacement(z, policy, order, resampled=found)


def _frozen(model, tokens, source, hooks, parts=("indices", "weights"), layers=None):
    held = []
    for layer in range(model.config.n_layers) if layers is None else layers:
        for part in parts:
            site = f"blocks.{layer}.mlp.hook_expert_{part}"
            held.append((site, lambda x, hook, site=site: source[site].clone()))
    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=list(hooks) + held)[:, -1]


def frozen_routing_choice_only(model, tokens, source, hooks):
    return _frozen(model, tokens, source, hooks, parts=("indices",))


def frozen_routing_weights_only(model, tokens, source, hooks):
    return _frozen(model, tokens, source, hooks, parts=("weights",))


def frozen_routing_last_layer_forgotten(model, tokens, source, hooks):
    return _frozen(model, tokens, source, hooks, layers=range(model.config.n_layers - 1))


def frozen_routing_first_layer(model, tokens, source, hooks):
    return _frozen(model, tokens, source, hooks, layers=[0])


def frozen_routing_unpatched(model, tokens, source, hooks):
    return _frozen(model, tokens, source, [])


def frozen_routing_of_outputs(model, tokens, source, hooks):
    sites = [f"blocks.{layer}.hook_mlp_out" for layer in range(model.config.n_layers)]
    held = [(site, lambda x, hook: source[hook.name]) for site in sites]
    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=[*hooks, *held])[:, -1]


WRONG = {
    "logit_difference": [
        (logit_difference_sign, "sign is turned"),
        (logit_difference_of_first, "position 0"),
        (logit_difference_of_probabilities, "difference of probabilities"),
        (logit_difference_squared, "a square"),
        (logit_difference_averaged, "average over the position axis"),
    ],
    "recovered": [
        (recovered_mean_of_ratios, "divide once"),
        (recovered_as_lost, "still missing"),
        (recovered_from_zero, "measure from 0"),
        (recovered_each, "a single number"),
        (recovered_half_baseline, "in the denominator"),
    ],
    "patch": [
        (patch_everywhere, "the whole site"),
        (patch_added, "not `+=`"),
        (patch_off_by_one, "too early"),
        (patch_all_logits, "last position, [batch d_vocab]"),
        (patch_that_forgets_to_return, "return the changed tensor"),
        (patch_of_the_source, "source's own"),
    ],
    "patching_map": [
        (patching_map_transposed, "exchanged"),
        (patching_map_noising, "that is noising"),
        (patching_map_after_layers, "resid_post"),
        (patching_map_raw, "logit differences of the patched runs"),
        (patching_map_lost, "1 − the right ones"),
    ],
    "interval": [
        (interval_of_prompts, "where single prompts lie"),
        (interval_without_replacement, "no width"),
        (interval_of_ninety, "90 %"),
        (interval_of_one_error, "68 %"),
    ],
    "both_ways": [
        (both_ways_in_place, "pile up"),
        (both_ways_kept, "left after noising"),
        (both_ways_once, "Measure it"),
        (both_ways_exchanged, "The two are exchanged"),
    ],
    "expert_write": [
        (expert_write_by_slot, "rank order"),
        (expert_write_unweighted, "weight is missing"),
        (expert_write_averaged, "average over the slot axis"),
        (expert_write_of_all, "all the chosen experts"),
        (expert_write_unmasked_outputs, "Mask before you sum"),
    ],
    "replacement": [
        (replacement_wrong_axis, "axis 1"),
        (replacement_one_number, "one number"),
        (replacement_one_row, "it is one row"),
        (replacement_of_itself, "keeps its own output"),
        (replacement_scattered, "the inverse"),
    ],
    "frozen_routing": [
        (frozen_routing_choice_only, "how they are weighed"),
        (frozen_routing_weights_only, "the choice is live"),
        (frozen_routing_last_layer_forgotten, "The last layer is not held"),
        (frozen_routing_first_layer, "Only layer 0"),
        (frozen_routing_unpatched, "pass them together"),
        (frozen_routing_of_outputs, "what the experts write"),
    ],
}
