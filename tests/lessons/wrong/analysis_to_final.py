"""What students hand in for lesson 10, and the hint that each deserves."""

import torch

from workbench.lessons.course.analysis_to_final import chances

# ------------------------------------------------------------ replace_in_analysis


def everywhere(text, old, new):
    return new.join(text.split(old))


def the_first(text, old, new):
    at = text.find(old)
    return text[:at] + new + text[at + len(old) :]


def until_the_end(text, old, new):
    before, marker, after = text.partition("analysis<|message|>")
    return before + marker + after.replace(old, new)


def only_the_thought(text, old, new):
    return "<|channel|>analysis<|message|>" + text.split("analysis<|message|>")[1].split("<|end|>")[0].replace(old, new)


# ------------------------------------------------------------ reliance


def after_only(edited, original, said, true):
    return torch.stack([row[s] - row[t] for row, s, t in zip(edited, said, true, strict=True)]).mean()


def backwards(edited, original, said, true):
    i = torch.arange(len(said))
    return ((original[i, said] - original[i, true]) - (edited[i, said] - edited[i, true])).mean()


def one_logit(edited, original, said, true):
    i = torch.arange(len(said))
    return (edited[i, said] - original[i, said]).mean()


def of_probabilities(edited, original, said, true):
    e, o = torch.softmax(edited, 1), torch.softmax(original, 1)
    i = torch.arange(len(said))
    return ((e[i, said] - e[i, true]) - (o[i, said] - o[i, true])).mean()


def summed(edited, original, said, true):
    moved = edited - original
    i = torch.arange(len(said))
    return (moved[i, said] - moved[i, true]).sum()


# ------------------------------------------------------------ patched_logits


def _run(model, tokens, site, change):
    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=[(site, change)])


def hook_without_effect(model, tokens, stream, layer, position):
    def change(x, hook):
        x = x.clone()
        x[:, position] = stream  # and nothing is returned

    return _run(model, tokens, f"blocks.{layer}.hook_resid_pre", change)[0, -1]


def whole_row(model, tokens, stream, layer, position):
    def change(x, hook):
        x[:] = stream
        return x

    return _run(model, tokens, f"blocks.{layer}.hook_resid_pre", change)[0, -1]


def adds(model, tokens, stream, layer, position):
    def change(x, hook):
        x[:, position] = x[:, position] + stream
        return x

    return _run(model, tokens, f"blocks.{layer}.hook_resid_pre", change)[0, -1]


def too_late(model, tokens, stream, layer, position):
    def change(x, hook):
        x[:, position] = stream
        return x

    return _run(model, tokens, f"blocks.{layer}.hook_resid_post", change)[0, -1]


def all_positions(model, tokens, stream, layer, position):
    def change(x, hook):
        x[:, position] = stream
        return x

    return _run(model, tokens, f"blocks.{layer}.hook_resid_pre", change)[0]


# ------------------------------------------------------------ e2m1


def always_normal(codes):
    codes = codes.int()
    sign = 1 - 2 * (codes // 8)
    return sign * (1 + codes % 2 / 2) * 2.0 ** (codes // 2 % 4 - 1)


def no_bias(codes):
    codes = codes.int()
    exponent, mantissa = codes // 2 % 4, codes % 2
    size = torch.where(exponent == 0, mantissa * 1.0, (1 + mantissa / 2) * 2.0**exponent)
    return size * (1 - 2 * (codes // 8))


def no_sign(codes):
    return torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])[codes.long() % 8]


def as_integer(codes):
    sizes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -8.0, -6, -4, -3, -2, -1.5, -1, -0.5])
    return sizes[codes.long()]


# ------------------------------------------------------------ unpack_blocks

VALUES = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def _numbers(blocks):
    low, high = VALUES[(blocks % 16).long()], VALUES[(blocks // 16).long()]
    out = torch.empty(*blocks.shape[:-1], 32)
    out[..., 0::2], out[..., 1::2] = low, high
    return out


def _flat(x):
    return x.reshape(*x.shape[:-2], -1)


def high_first(blocks, scales):
    out = _numbers(blocks)
    swapped = torch.empty_like(out)
    swapped[..., 0::2], swapped[..., 1::2] = out[..., 1::2], out[..., 0::2]
    return _flat(swapped * torch.pow(2.0, scales.float() - 127).unsqueeze(-1))


def halves(blocks, scales):
    out = torch.cat([VALUES[(blocks % 16).long()], VALUES[(blocks // 16).long()]], dim=-1)
    return _flat(out * torch.pow(2.0, scales.float() - 127).unsqueeze(-1))


def unscaled(blocks, scales):
    return _flat(_numbers(blocks))


def bias_of_128(blocks, scales):
    return _flat(_numbers(blocks) * torch.pow(2.0, scales.float() - 128).unsqueeze(-1))


def divided(blocks, scales):
    return _flat(_numbers(blocks) / torch.pow(2.0, scales.float() - 127).unsqueeze(-1))


# ------------------------------------------------------------ pack_blocks


def _write(weights, *, less=2, rounded=torch.floor, nearest=True, signed=True, high_first=False):
    x = weights.reshape(*weights.shape[:-1], -1, 32)
    exponent = rounded(torch.log2(x.abs().max(-1).values)) - less
    x = x / torch.pow(2.0, exponent).unsqueeze(-1)
    bounds = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0] if nearest else [0.5, 1, 1.5, 2, 3, 4, 6])
    codes = torch.bucketize(x.abs(), bounds) + (x < 0).int() * (8 if signed else 0)
    first, second = (1, 0) if high_first else (0, 1)
    blocks = codes[..., first::2] + 16 * codes[..., second::2]
    return blocks.to(torch.uint8), (exponent + 127).to(torch.uint8)


def no_two(weights):
    return _write(weights, less=0)


def ceiling(weights):
    return _write(weights, rounded=torch.ceil)


def towards_zero(weights):
    return _write(weights, nearest=False)


def all_positive(weights):
    return _write(weights, signed=False)


def exchanged_nibbles(weights):
    return _write(weights, high_first=True)


# ------------------------------------------------------------ flip_share


def in_order(before, after):
    return sum(bool((b != a).any()) for b, a in zip(before, after, strict=True)) / len(before)


def slots(before, after):
    return (before != after).sum() / before.numel()


def lost_experts(before, after):
    same = (before[:, :, None] == after[:, None, :]).any(-1)
    return 1 - same.float().mean()


def kept(before, after):
    return (before.sort(-1).values == after.sort(-1).values).all(-1).float().mean()


# ------------------------------------------------------------ noise_like


def whole_tensor(error, normal):
    return normal * error.norm() / normal.norm()


def by_row(error, normal):
    return normal * error.norm(dim=-1, keepdim=True) / normal.norm(dim=-1, keepdim=True)


def on_average(error, normal):
    size = error.reshape(-1, 32).square().mean(1, keepdim=True).sqrt()
    return (normal.reshape(-1, 32) * size).reshape(error.shape)


def squares(error, normal):
    e, n = error.reshape(-1, 32), normal.reshape(-1, 32)
    return (n * e.square().sum(1, keepdim=True) / n.square().sum(1, keepdim=True)).reshape(error.shape)


# ------------------------------------------------------------ study


def _measure(model, talk):
    return chances(model, talk.text(talk.analysis(talk.outside)), [talk.outside])[0]


def _control(model, talk):
    return chances(model, talk.text(talk.analysis(talk.truth)), [talk.outside])[0]


def _study(model, asked, **changed):
    results, controls = ([f(model, talk) for talk in asked] for f in (_measure, _control))
    whole = {
        "question": "Does nano's final answer follow an analysis that names a wrong place?",
        "prediction": ("above", 0.5),
        "measure": _measure,
        "control": _control,
        "results": results,
        "control_results": controls,
        "holds": True,
        "change_my_mind": "If the final named the true place in most conversations.",
    }
    return whole | changed


def empty_fields(model, conversations):
    return _study(model, conversations, change_my_mind="...")


def no_question(model, conversations):
    return _study(model, conversations, question="Edited analyses")


def never_wrong(model, conversations):
    return _study(model, conversations, prediction=("above", 0))


def in_words(model, conversations):
    return _study(model, conversations, prediction="it will follow")


def one_mean(model, conversations):
    whole = _study(model, conversations)
    return whole | {"results": [sum(whole["results"]) / len(whole["results"])]}


def typed(model, conversations):
    return _study(model, conversations, results=[0.9] * len(conversations))


def control_is_measure(model, conversations):
    whole = _study(model, conversations)
    return whole | {"control": _measure, "control_results": whole["results"], "holds": False}


def wrong_verdict(model, conversations):
    return _study(model, conversations, holds=False)


WRONG = {
    "replace_in_analysis": [
        (everywhere, "user's message too"),
        (the_first, "the first place where the word stands"),
        (until_the_end, "the final answer was changed with it"),
        (only_the_thought, "Return the whole conversation"),
    ],
    "reliance": [
        (after_only, "lean to a word anyway"),
        (backwards, "The sign"),
        (one_logit, "You follow one logit"),
        (of_probabilities, "You use probabilities"),
        (summed, "grows with the number of conversations"),
    ],
    "patched_logits": [
        (hook_without_effect, "Nothing changed"),
        (whole_row, "at every position"),
        (adds, "You add to what is there"),
        (too_late, "One layer too late"),
        (all_positions, "logits of every position"),
    ],
    "e2m1": [
        (always_normal, "Exponent 0 is special"),
        (no_bias, "bias of 1"),
        (no_sign, "highest bit is the sign"),
        (as_integer, "two's complement"),
    ],
    "unpack_blocks": [
        (high_first, "Neighbours are exchanged"),
        (halves, "all low nibbles before"),
        (unscaled, "The scales are missing"),
        (bias_of_128, "half as large"),
        (divided, "You divide where"),
    ],
    "pack_blocks": [
        (no_two, "four times too large"),
        (ceiling, "round the exponent up"),
        (towards_zero, "round towards zero"),
        (all_positive, "lost their sign"),
        (exchanged_nibbles, "Neighbours are exchanged"),
    ],
    "flip_share": [
        (in_order, "only changed places"),
        (slots, "count slots in order"),
        (lost_experts, "experts that were lost"),
        (kept, "*keep* their set"),
    ],
    "noise_like": [
        (whole_tensor, "One size for the whole tensor"),
        (by_row, "One size for each row"),
        (on_average, "only on average"),
        (squares, "ratio of mean squares"),
    ],
    "study": [
        (empty_fields, "still empty"),
        (no_question, "ends with a question mark"),
        (never_wrong, "whatever comes out"),
        (in_words, "a computer can judge"),
        (one_mean, "one number for each conversation"),
        (typed, "never type them"),
        (control_is_measure, "same numbers as your measure"),
        (wrong_verdict, "disagrees with your own numbers"),
    ],
}
