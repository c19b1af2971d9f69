"""Lesson 6: the indirect object. What its exercises must do, and what students get wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench import compiled, prompts
from workbench.activations import Run, run
from workbench.experiments import bootstrap, patching_grid
from workbench.experiments.nodes import expert_writes
from workbench.interventions import FreezeRouting, Patch
from workbench.lessons.exercise import Case, Exercise, Mistake
from workbench.lessons.models import nano
from workbench.lessons.outline import Outline
from workbench.model import HookedGptOss

TASK = "indirect object"


def _numbers(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.tensor(rng.normal(size=shape), dtype=torch.float32)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1_000_000))


# ------------------------------------------------------------------------------------------------ logit_difference


def _logits(rng: np.random.Generator) -> Iterator[Case]:
    for batch, length, vocab in ((3, 5, 11), (4, 7, 20), (1, 1, 4)):
        right = rng.integers(vocab, size=batch)
        wrong = (right + rng.integers(1, vocab, size=batch)) % vocab
        about = f"{batch} prompt{'s' * (batch > 1)} of {length} token{'s' * (length > 1)}"
        yield Case((_numbers(rng, batch, length, vocab), torch.tensor(right), torch.tensor(wrong)), about=about)


def _logit_difference(logits: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    rows = range(len(logits))
    return torch.stack([logits[i, -1, int(right[i])] - logits[i, -1, int(wrong[i])] for i in rows])


def _pick(rows: Tensor, tokens: Tensor) -> Tensor:
    return rows.gather(-1, tokens[:, None])[:, 0]


LOGIT_DIFFERENCE = Exercise(
    name="logit_difference",
    task="Logit of the right name less that of the wrong one, at the last position of each prompt",
    cases=_logits,
    truth=_logit_difference,
    mistakes=(
        Mistake(
            "right and wrong swapped",
            lambda logits, right, wrong: -_logit_difference(logits, right, wrong),
            "Your sign is turned: take the right name's logit and subtract the wrong one's, so that above 0 means "
            "right.",
        ),
        Mistake(
            "first position",
            lambda logits, right, wrong: _logit_difference(logits[:, :1], right, wrong),
            "You read position 0. What comes after the whole prompt stands at the last position, `logits[:, -1]`.",
        ),
        Mistake(
            "mean over positions",
            lambda logits, right, wrong: _logit_difference(logits.mean(1, keepdim=True), right, wrong),
            "You average over the position axis. Only the last position predicts the token after the prompt.",
        ),
        Mistake(
            "probabilities",
            lambda logits, right, wrong: _logit_difference(logits.softmax(-1), right, wrong),
            "That is a difference of probabilities: leave the softmax out, and subtract the logits themselves.",
        ),
        Mistake(
            "every row with every token",
            lambda logits, right, wrong: logits[:, -1][:, right] - logits[:, -1][:, wrong],
            "`logits[:, right]` takes every prompt's token in every row: a square. Row i wants its own token only: "
            "`gather`, or index with `torch.arange(batch)` beside `right`.",
        ),
        Mistake(
            "only the right one",
            lambda logits, right, wrong: _pick(logits[:, -1], right),
            "You return the right name's logit alone. Alone it says little: what lifts every name lifts it too.",
        ),
    ),
    hints=(
        "Which position of the logits says what comes after the prompt?",
        "Take `last = logits[:, -1]`, [batch d_vocab]; then pick one number from each row with `gather`.",
        "`last.gather(1, right[:, None])[:, 0] - last.gather(1, wrong[:, None])[:, 0]`",
    ),
)


# ------------------------------------------------------------------------------------------------------- recovered


def _spans(rng: np.random.Generator) -> Iterator[Case]:
    for prompts_, small in ((5, False), (6, True), (1, False)):
        clean = 8 + _numbers(rng, prompts_)
        corrupt = -6 + _numbers(rng, prompts_)
        if small:
            corrupt[0] = clean[0] - 0.2
        patched = corrupt + 5 * torch.tensor(rng.random(prompts_), dtype=torch.float32)
        about = "one prompt" if prompts_ == 1 else f"{prompts_} prompts{', one with a tiny span' * small}"
        yield Case((patched, clean, corrupt), about=about)


def _recovered(patched: Tensor, clean: Tensor, corrupt: Tensor) -> float:
    up = sum(float(p) - float(c) for p, c in zip(patched, corrupt, strict=True))
    return up / sum(float(c) - float(x) for c, x in zip(clean, corrupt, strict=True))


RECOVERED = Exercise(
    name="recovered",
    task="The share of the clean run's logit difference that a patch brings back, over prompts: a ratio of means",
    cases=_spans,
    truth=_recovered,
    mistakes=(
        Mistake(
            "mean of ratios",
            lambda patched, clean, corrupt: ((patched - corrupt) / (clean - corrupt)).mean(),
            "You average one ratio for each prompt. A prompt whose two runs hardly differ then divides by almost "
            "nothing "
            "and drowns the others: average above and below the line first, and divide once.",
        ),
        Mistake(
            "one ratio for each prompt",
            lambda patched, clean, corrupt: (patched - corrupt) / (clean - corrupt),
            "You give one ratio for each prompt; wanted is a single number: take the means over the prompt axis.",
        ),
        Mistake(
            "clean in the place of corrupt",
            lambda patched, clean, corrupt: (clean.mean() - patched.mean()) / (clean.mean() - corrupt.mean()),
            "That is what is still missing: 1 where the patch did nothing. Count from the corrupt run upwards.",
        ),
        Mistake(
            "no baseline",
            lambda patched, clean, corrupt: patched.mean() / clean.mean(),
            "You measure from 0. A patch that does nothing scores as the corrupt run, and that has to count as 0: "
            "subtract it, above and below.",
        ),
        Mistake(
            "baseline above only",
            lambda patched, clean, corrupt: (patched.mean() - corrupt.mean()) / clean.mean(),
            "The baseline is missing in the denominator: the whole way goes from the corrupt to the clean run.",
        ),
    ),
    hints=(
        "Two ends fix the scale: the corrupt run counts as 0, the clean run as 1.",
        "(patched − corrupt) / (clean − corrupt), where each is a mean over prompts.",
        "`(patched.mean() - corrupt.mean()) / (clean.mean() - corrupt.mean())`",
    ),
)


# ----------------------------------------------------------------------------------------------------------- patch


@cache
def _small(kind: str) -> compiled.Compiled:
    return {"induction": compiled.induction, "fetched": compiled.routed_by_attention}[kind]()


def _toy_pairs(kind: str, rng: np.random.Generator, n: int, length: int) -> prompts.Stacked:
    return prompts.stack(_small(kind).pairs(n, _seed(rng), length=length))


def _patches(rng: np.random.Generator) -> Iterator[Case]:
    rows = prompts.stack(prompts.pairs(nano(), TASK, 3, _seed(rng)), nano())
    source = run(nano(), rows.clean, sites=lambda name: name.endswith(("hook_resid_pre", "hook_attn_out")))
    for site, position in (
        ("blocks.1.hook_resid_pre", 11),
        ("blocks.2.hook_attn_out", 13),
        ("blocks.0.hook_resid_pre", 9),
    ):
        yield Case((nano(), rows.corrupt, source, site, position), about=f"{site} at position {position}")


def _streams(model: HookedGptOss) -> list[str]:
    return [f"blocks.{layer}.hook_resid_{part}" for layer in range(model.config.n_layers) for part in ("pre", "post")]


def _patch(model: HookedGptOss, tokens: Tensor, source: Run, site: str, position: int) -> Tensor:
    spec = Patch(site, "source", positions=(position,))
    return run(model, tokens, [spec], sources={"source": source}).logits[:, -1]


def _hooked(change: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """Patching with another way to change what stands at the site."""

    @torch.no_grad()
    def patched(model: HookedGptOss, tokens: Tensor, source: Run, site: str, position: int) -> Tensor:
        def put(x: Tensor, hook: object) -> Tensor:
            return change(x.clone(), source[site], position)

        return model.run_with_hooks(tokens, fwd_hooks=[(site, put)])[:, -1]

    return patched


def _put(x: Tensor, there: Tensor, position: int) -> Tensor:
    x[:, position] = there[:, position]
    return x


def _add(x: Tensor, there: Tensor, position: int) -> Tensor:
    x[:, position] += there[:, position]
    return x


PATCH = Exercise(
    name="patch",
    task="Run the tokens with one site, at one position, taken from another run",
    cases=_patches,
    truth=_patch,
    mistakes=(
        Mistake(
            "all positions",
            _hooked(lambda x, there, position: there.clone()),
            "You exchange the whole site, at every position. Only `[:, position]` is to come from the source: the "
            "axes "
            "are [batch pos d_model].",
        ),
        Mistake(
            "added",
            _hooked(_add),
            "You add the source's value to what stands there. Patching replaces it: `=`, not `+=`.",
        ),
        Mistake(
            "one position early",
            _hooked(lambda x, there, position: _put(x, there, position - 1)),
            "You patch one position too early. Positions count from 0, and so does `position`.",
        ),
        Mistake(
            "one prompt for all",
            _hooked(lambda x, there, position: _put(x, there[:1].expand_as(x), position)),
            "Every row gets the first prompt's value. The batch axis belongs together, row by row: take "
            "`source[site][:, position]`, not `source[site][0, position]`.",
        ),
        Mistake(
            "the hook has no effect",
            lambda model, tokens, source, site, position: model(tokens)[:, -1],
            "Nothing is patched: your logits are those of the plain run. Does the hook return the changed tensor, "
            "and is "
            "it among `fwd_hooks`?",
        ),
        Mistake(
            "ran the source's tokens",
            lambda model, tokens, source, site, position: source.logits[:, -1],
            "Your logits are the source's own. Run `tokens`, and take only the activation from `source`.",
        ),
        Mistake(
            "logits at the patched position",
            None,
            "Return the logits at the last position, [batch d_vocab]: that is where the answer is read, wherever you "
            "patched.",
            seen=lambda given, expected, case: _elsewhere(given, case),
        ),
    ),
    hints=(
        "`model.run_with_hooks(tokens, fwd_hooks=[(site, put)])` calls `put(x, hook)` with what stands at the site.",
        "In `put`: clone x, set `x[:, position]` to `source[site][:, position]`, return x.",
        "def put(x, hook): x = x.clone(); x[:, position] = source[site][:, position]; return x; then the logits[:, "
        "-1] of "
        "`model.run_with_hooks(…)`.",
    ),
    points=2,
)


def _elsewhere(given: Any, case: Case) -> bool:
    model, tokens, source, site, position = case.args
    spec = Patch(site, "source", positions=(position,))
    logits = run(model, tokens, [spec], sources={"source": source}).logits
    shape = tuple(getattr(given, "shape", ()))
    whole = shape == tuple(logits.shape)
    return whole or (shape == tuple(logits[:, 0].shape) and bool(torch.allclose(given, logits[:, position], atol=1e-4)))


# ---------------------------------------------------------------------------------------------------- patching_map


def _maps(rng: np.random.Generator) -> Iterator[Case]:
    for kind, n, length in (("induction", 3, 6), ("fetched", 2, 5)):
        rows = _toy_pairs(kind, rng, n, length)
        yield Case(
            (_small(kind).model, *rows), about=f"a model of {_small(kind).model.config.n_layers} layers, {n} pairs"
        )


def _patching_map(model: HookedGptOss, clean: Tensor, corrupt: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """Of workbench's own grids, pair by pair, put together as a ratio of means."""
    grids = [
        patching_grid(model, clean[i], corrupt[i], (int(right[i]), int(wrong[i])), ("resid_pre",), progress=False)
        for i in range(len(clean))
    ]
    mean = {name: np.mean([grid[name].values for grid in grids], 0) for name in ("metric", "clean", "corrupted")}
    share = (mean["metric"][0] - mean["corrupted"]) / (mean["clean"] - mean["corrupted"])
    return torch.tensor(share, dtype=torch.float32)


def _map_of(part: str = "resid_pre", noising: bool = False) -> Callable[..., Tensor]:
    @torch.no_grad()
    def mapped(model: HookedGptOss, clean: Tensor, corrupt: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
        ends = [_logit_difference(model(tokens), right, wrong) for tokens in (clean, corrupt)]
        base, other = (clean, corrupt) if noising else (corrupt, clean)
        source = run(model, other, sites=_streams(model))
        table = torch.zeros(model.config.n_layers, clean.shape[1])
        for layer, position in np.ndindex(*table.shape):
            logits = _hooked(_put)(model, base, source, f"blocks.{layer}.hook_{part}", position)
            table[layer, position] = _recovered(_logit_difference(logits[:, None], right, wrong), *ends)
        return table

    return mapped


PATCHING_MAP = Exercise(
    name="patching_map",
    task="Denoising: recovered share for the stream before each layer, at each position",
    cases=_maps,
    truth=_patching_map,
    mistakes=(
        Mistake(
            "transposed",
            lambda *given: _patching_map(*given).T,
            "Rows and columns are exchanged: layers go down (axis 0), positions across (axis 1).",
        ),
        Mistake(
            "noising",
            _map_of(noising=True),
            "You put corrupt activations into the clean run: that is noising, and there 1 means that nothing was "
            "lost. "
            "Denoising runs `corrupt` and takes from a run of `clean`.",
        ),
        Mistake(
            "what is lost",
            lambda *given: 1 - _patching_map(*given),
            "Your numbers are 1 − the right ones: 1 must mean that all is back. Look at the order in `recovered`.",
        ),
        Mistake(
            "resid_post",
            _map_of("resid_post"),
            "Your rows are one layer late: `hook_resid_post` is what leaves a layer. Asked is what enters it, "
            "`hook_resid_pre`.",
        ),
        Mistake(
            "logit differences",
            lambda *given: _as_differences(*given),
            "These are logit differences of the patched runs. Make shares of them with `recovered`.",
        ),
    ),
    hints=(
        "Run clean once and keep it; then for each layer and position `patch` the corrupt run, and score it.",
        "Four lines before the loop: the run of clean with its sites, the two ends' logit differences, an empty table.",
        "table[layer, position] = recovered(logit_difference(patch(model, corrupt, source, "
        "f'blocks.{layer}.hook_resid_pre', position)[:, None], right, wrong), clean_ld, corrupt_ld)",
    ),
    points=3,
)


def _as_differences(model: HookedGptOss, clean: Tensor, corrupt: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    with torch.no_grad():
        high, low = (float(_logit_difference(model(tokens), right, wrong).mean()) for tokens in (clean, corrupt))
    return low + (high - low) * _patching_map(model, clean, corrupt, right, wrong)


# -------------------------------------------------------------------------------------------------------- interval


def _samples(rng: np.random.Generator) -> Iterator[Case]:
    for n, about in ((12, "12 prompts"), (64, "64 prompts")):
        values = rng.normal(0.4, 0.3, size=n)
        yield Case((values, np.random.default_rng(_seed(rng))), about=about)


def _interval(values: np.ndarray, rng: np.random.Generator, n: int = 4000) -> tuple[float, float]:
    found = bootstrap(values, n=20_000, seed=_seed(rng), method="percentile")
    return float(found.low), float(found.high)


def _near(given: Any, expected: tuple[float, float]) -> str | None:
    """Within what two bootstraps with other draws may differ by."""
    try:
        low, high = (float(end) for end in given)
    except (TypeError, ValueError):
        return "expected two numbers, (low, high)"
    allowed = 0.065 * abs(expected[1] - expected[0])
    if abs(low - expected[0]) <= allowed and abs(high - expected[1]) <= allowed:
        return None
    return f"expected about ({expected[0]:.3f}, {expected[1]:.3f}), you gave ({low:.3f}, {high:.3f})"


def _means(values: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.choice(values, (n, len(values))).mean(1)


def _ends(numbers: np.ndarray, tail: float = 0.025) -> tuple[float, float]:
    return float(np.quantile(numbers, tail)), float(np.quantile(numbers, 1 - tail))


INTERVAL = Exercise(
    name="interval",
    task="A 95 % bootstrap interval of a mean over prompts",
    cases=_samples,
    truth=_interval,
    compare=_near,
    mistakes=(
        Mistake(
            "spread of the prompts",
            None,
            "That is where single prompts lie. Asked is how sure their mean is: draw as many prompts as there are, "
            "with "
            "replacement, average them, and do that n times; the interval is of these n means.",
            seen=lambda given, expected, case: _wider(given, expected, 2.2),
        ),
        Mistake(
            "without replacement",
            None,
            "Your interval has no width: drawn without replacement, every resample is the same set of prompts and "
            "has "
            "the same mean.",
            seen=lambda given, expected, case: _narrower(given, expected, 0.05),
        ),
        Mistake(
            "90 %",
            lambda values, rng, n=4000: _ends(_means(values, rng, n), 0.05),
            "That is a 90 % interval: 5 % lie outside on each side. For 95 %, leave 2.5 % on each side.",
        ),
        Mistake(
            "standard error",
            lambda values, rng, n=4000: (
                values.mean() - values.std(ddof=1) / len(values) ** 0.5,
                values.mean() + values.std(ddof=1) / len(values) ** 0.5,
            ),
            "One standard error on each side holds about 68 %. Take the quantiles 0.025 and 0.975 of the resampled "
            "means.",
        ),
        Mistake(
            "other way round",
            lambda values, rng, n=4000: _ends(_means(values, rng, n))[::-1],
            "The ends are exchanged: (low, high).",
        ),
    ),
    hints=(
        "The prompts are the sample. What would the mean be with other prompts? Pretend: draw from those that you "
        "have.",
        "`rng.choice(values, (n, len(values)))` draws n resamples, with replacement; their means are n numbers.",
        "`means = rng.choice(values, (n, len(values))).mean(1)`, then `np.quantile(means, [0.025, 0.975])`.",
    ),
    points=2,
)


def _wider(given: Any, expected: tuple[float, float], times: float) -> bool:
    return _near(given, expected) != "expected two numbers, (low, high)" and (
        float(given[1]) - float(given[0]) > times * (expected[1] - expected[0])
    )


def _narrower(given: Any, expected: tuple[float, float], times: float) -> bool:
    return _near(given, expected) != "expected two numbers, (low, high)" and (
        abs(float(given[1]) - float(given[0])) < times * (expected[1] - expected[0])
    )


# ------------------------------------------------------------------------------------------------------- both_ways


def _either(x: np.ndarray) -> float:
    return float(np.max(x))


def _every(x: np.ndarray) -> float:
    return float(np.min(x))


def _sum(x: np.ndarray) -> float:
    return float(2 * x[0] + np.sum(x[1:]))


def _mixed(x: np.ndarray) -> float:
    return float(x[0] * x[1] + 0.5 * np.max(x[1:]))


def _gates(rng: np.random.Generator) -> Iterator[Case]:
    for machine, n, about in (
        (_every, 3, "a machine that needs all of its parts"),
        (_either, 2, "a machine that needs any one of its parts"),
        (_sum, 3, "a machine that adds up"),
        (_mixed, 3, "a machine of several gates"),
    ):
        yield Case((machine, 1 + rng.random(n), -rng.random(n)), about=about)


def _both_ways(machine: Callable, clean: np.ndarray, corrupt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    good, bad = machine(clean), machine(corrupt)
    one = np.eye(len(clean), dtype=bool)
    fixed = np.array([machine(np.where(part, clean, corrupt)) for part in one])
    broken = np.array([machine(np.where(part, corrupt, clean)) for part in one])
    return (fixed - bad) / (good - bad), (good - broken) / (good - bad)


def _running(machine: Callable, clean: np.ndarray, corrupt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parts stay patched."""
    good, bad = machine(clean), machine(corrupt)
    n = np.arange(len(clean))
    fixed = np.array([machine(np.where(n <= i, clean, corrupt)) for i in n])
    broken = np.array([machine(np.where(n <= i, corrupt, clean)) for i in n])
    return (fixed - bad) / (good - bad), (good - broken) / (good - bad)


def _kept(machine: Callable, clean: np.ndarray, corrupt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    denoised, noised = _both_ways(machine, clean, corrupt)
    return denoised, 1 - noised


def _assumed(machine: Callable, clean: np.ndarray, corrupt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    denoised, _ = _both_ways(machine, clean, corrupt)
    return denoised, denoised.copy()


BOTH_WAYS = Exercise(
    name="both_ways",
    task="Denoise and noise each part of a small machine alone: recovered and lost shares",
    cases=_gates,
    truth=_both_ways,
    mistakes=(
        Mistake(
            "parts stay patched",
            _running,
            "Patches pile up: after part 0, part 1 is patched on top of it. Begin each time with a fresh copy "
            "(`corrupt.copy()`, `clean.copy()`).",
        ),
        Mistake(
            "what is kept",
            _kept,
            "Your second numbers say what is left after noising. Lost is counted from the clean end: "
            "(clean − noised) / (clean − corrupt).",
        ),
        Mistake(
            "one run for both",
            _assumed,
            "You took lost to be the same as recovered. Measure it: start from the clean parts and put one corrupt "
            "part in.",
        ),
        Mistake(
            "exchanged",
            lambda *given: _both_ways(*given)[::-1],
            "The two are exchanged: first recovered (from the corrupt parts, one clean put in), then lost.",
        ),
    ),
    hints=(
        "For each part i there are two runs: all corrupt but i, and all clean but i.",
        "Copy first: `x = corrupt.copy(); x[i] = clean[i]; machine(x)`; then the same the other way round.",
        "recovered[i] = (machine(x) − bad) / (good − bad); lost[i] = (good − machine(y)) / (good − bad).",
    ),
    points=2,
)


# ---------------------------------------------------------------------------------------------------- expert_write


def _routed(rng: np.random.Generator) -> Iterator[Case]:
    for batch, length, slots, n_experts, width in ((2, 5, 2, 4, 3), (1, 6, 3, 5, 4)):
        shape = (batch, length)
        indices = np.stack([rng.permutation(n_experts)[:slots] for _ in range(batch * length)]).reshape(*shape, slots)
        indices[0, 0] = np.arange(slots)[::-1]  # the expert that is asked for stands in the last slot here
        weights = _numbers(rng, *shape, slots).softmax(-1)
        out = _numbers(rng, *shape, slots, width)
        about = f"{slots} of {n_experts} experts"
        yield Case((torch.tensor(indices), weights, out, 0), about=about)
    yield Case(
        (torch.tensor([[[1, 2]]]), torch.tensor([[[0.6, 0.4]]]), _numbers(rng, 1, 1, 2, 3), 3), about="not chosen"
    )


def _expert_write(indices: Tensor, weights: Tensor, out: Tensor, expert: int) -> Tensor:
    return expert_writes(indices, weights, out, max(int(indices.max()), expert) + 1)[:, :, expert]


EXPERT_WRITE = Exercise(
    name="expert_write",
    task="What one expert, by its number, writes into the stream: weight × output, 0 where it was not chosen",
    cases=_routed,
    truth=_expert_write,
    mistakes=(
        Mistake(
            "slot for expert",
            lambda indices, weights, out, expert: (weights[..., None] * out)[:, :, min(expert, out.shape[2] - 1)],
            "You took slot number `expert`. Slots stand in rank order, the same expert in another slot from token "
            "to token: "
            "compare `indices` with `expert`.",
        ),
        Mistake(
            "no weight",
            lambda indices, weights, out, expert: ((indices == expert)[..., None] * out).sum(2),
            "The routing weight is missing: what reaches the stream is weight × output.",
        ),
        Mistake(
            "outputs of all",
            lambda indices, weights, out, expert: (weights * (indices == expert)).sum(-1, keepdim=True) * out.sum(2),
            "You weigh the sum of all the slots' outputs. Mask before you sum over the slot axis, weights and "
            "outputs together.",
        ),
        Mistake(
            "mean over slots",
            lambda indices, weights, out, expert: ((weights * (indices == expert))[..., None] * out).mean(2),
            "You average over the slot axis: an expert's write is divided by the number of slots. Sum over them.",
        ),
        Mistake(
            "all experts",
            lambda indices, weights, out, expert: (weights[..., None] * out).sum(2),
            "That is what all the chosen experts write together. Keep only the slots where `indices == expert`.",
        ),
    ),
    hints=(
        "In which slot is the expert? `indices == expert` says so, for every token: [batch pos slot].",
        "Multiply the weights by that mask, then by the outputs (one axis more), and sum over the slots.",
        "`((weights * (indices == expert))[..., None] * out).sum(2)`",
    ),
    points=2,
)


# ----------------------------------------------------------------------------------------------------- replacement


def _writes(rng: np.random.Generator) -> Iterator[Case]:
    for policy in ("zero", "mean", "resample"):
        z = _numbers(rng, 6, 4) + 2
        # No drawn order is its own inverse.
        order = torch.tensor(np.roll(rng.permutation(6), 1))
        while bool((order[order] == torch.arange(6)).all()):
            order = torch.tensor(rng.permutation(6))
        yield Case((z, policy, order), about=f"{policy!r}")


def _replacement(z: Tensor, policy: str, order: Tensor) -> Tensor:
    rows = z.tolist()
    if policy == "zero":
        return torch.tensor([[0.0 for _ in row] for row in rows])
    if policy == "mean":
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        return torch.tensor([mean for _ in rows])
    return torch.tensor([rows[i] for i in order.tolist()])


def _otherwise(policy: str, instead: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def replaced(z: Tensor, asked: str, order: Tensor) -> Tensor:
        return instead(z, order) if asked == policy else _replacement(z, asked, order)

    return replaced


REPLACEMENT = Exercise(
    name="replacement",
    task="What stands in for a head's output: zero, its mean over prompts, or that of another prompt",
    cases=_writes,
    truth=_replacement,
    mistakes=(
        Mistake(
            "mean over the head's numbers",
            _otherwise("mean", lambda z, order: z.mean(-1, keepdim=True).expand_as(z)),
            "You average over d_head, axis 1. The mean output of a head is a vector: average over the prompts, axis 0.",
        ),
        Mistake(
            "one mean number",
            _otherwise("mean", lambda z, order: z.mean().expand_as(z)),
            "You average everything to one number. Each of the d_head numbers keeps a mean of its own, over prompts.",
        ),
        Mistake(
            "the mean, once",
            _otherwise("mean", lambda z, order: z.mean(0)),
            "The mean is right, but it is one row. Every prompt gets it: `.expand_as(z)`, to shape [prompt d_head].",
        ),
        Mistake(
            "nothing resampled",
            _otherwise("resample", lambda z, order: z),
            "With 'resample' every prompt keeps its own output, so nothing is ablated. Row i takes row `order[i]`.",
        ),
        Mistake(
            "order turned round",
            _otherwise("resample", lambda z, order: z[order.argsort()]),
            "You put row i at place `order[i]`. Asked is the inverse: row i takes what row `order[i]` has, `z[order]`.",
        ),
    ),
    hints=(
        "All three give a tensor of z's shape. Which of them depend on the other prompts?",
        "zero: `torch.zeros_like(z)`; mean: over axis 0, expanded again; resample: index the rows by `order`.",
        "`z.mean(0, keepdim=True).expand_as(z)` and `z[order]`",
    ),
)


# -------------------------------------------------------------------------------------------------- frozen_routing


def _routes(model: HookedGptOss) -> list[str]:
    parts = ("indices", "weights")
    return [f"blocks.{layer}.mlp.hook_expert_{part}" for layer in range(model.config.n_layers) for part in parts]


def _frozen_cases(rng: np.random.Generator) -> Iterator[Case]:
    rows = prompts.stack(prompts.pairs(nano(), TASK, 4, _seed(rng)), nano())
    sites = lambda name: "resid_pre" in name or "hook_expert_" in name or "mlp_out" in name or "router_logits" in name  # noqa: E731
    clean, corrupt = (run(nano(), tokens, sites=sites) for tokens in (rows.clean, rows.corrupt))
    for layer, position in ((0, 9), (1, 11)):
        site = f"blocks.{layer}.hook_resid_pre"

        def put(x: Tensor, hook: object, site: str = site, position: int = position) -> Tensor:
            return _put(x.clone(), clean[site], position)

        yield Case((nano(), rows.corrupt, corrupt, [(site, put)]), about=f"the clean {site} at position {position}")
    yield Case((nano(), rows.clean, corrupt, []), about="the clean prompts, nothing patched")


@torch.no_grad()
def _frozen_routing(model: HookedGptOss, tokens: Tensor, source: Run, hooks: list) -> Tensor:
    with model.edited([FreezeRouting("source", "set_and_weights")], {"source": source}):
        return model.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1]


def _held(which: Callable[[str, int], bool]) -> Callable[..., Tensor]:
    @torch.no_grad()
    def frozen(model: HookedGptOss, tokens: Tensor, source: Run, hooks: list) -> Tensor:
        held = [
            (site, lambda x, hook: source[hook.name])
            for site in (*_routes(model), *(f"blocks.{i}.hook_mlp_out" for i in range(model.config.n_layers)))
            if which(site.rsplit("_", 1)[1], int(site.split(".")[1]))
        ]
        return model.run_with_hooks(tokens, fwd_hooks=[*hooks, *held])[:, -1]

    return frozen


FROZEN_ROUTING = Exercise(
    name="frozen_routing",
    task="Run with hooks, while every layer's experts and their weights are those of another run",
    cases=_frozen_cases,
    truth=_frozen_routing,
    mistakes=(
        Mistake(
            "weights live",
            lambda model, tokens, source, hooks: _set_only(model, tokens, source, hooks),
            "You hold which experts are chosen, but not how they are weighed: hold `mlp.hook_expert_weights` too.",
        ),
        Mistake(
            "indices live",
            _held(lambda part, layer: part == "weights"),
            "You hold the weights, but the choice is live: a held weight then stands beside another expert. Hold "
            "`mlp.hook_expert_indices` too.",
        ),
        Mistake(
            "one layer",
            _held(lambda part, layer: part in ("indices", "weights") and layer == 0),
            "Only layer 0 is held. Routes change downstream of a patch: hold every layer.",
        ),
        Mistake(
            "not the last layer",
            _held(lambda part, layer: part in ("indices", "weights") and layer < 3),
            "The last layer is not held: `range(model.config.n_layers)` ends with it.",
        ),
        Mistake(
            "outputs held",
            _held(lambda part, layer: part == "out"),
            "You hold what the experts write. Then content cannot change either: hold who is chosen and the "
            "weights, and "
            "let the experts answer to what they read.",
        ),
        Mistake(
            "the patch is gone",
            lambda model, tokens, source, hooks: _frozen_routing(model, tokens, source, []),
            "The routing is held, but the given `hooks` are not on: pass them together with yours.",
        ),
        Mistake(
            "live",
            lambda model, tokens, source, hooks: model.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1],
            "Nothing is held: the logits are those of live routing. Do your hooks return the source's tensors?",
        ),
    ),
    hints=(
        "Two sites a layer say everything about its routing: which experts, and with what weights.",
        "For each layer a hook on `blocks.{layer}.mlp.hook_expert_indices` and one on `…hook_expert_weights`, each "
        "returning what `source` has there: `source[hook.name]`.",
        "held = [(f'blocks.{layer}.mlp.hook_expert_{part}', lambda x, hook: source[hook.name]) for layer in … for "
        "part in "
        "('indices', 'weights')]; run with `[*hooks, *held]`.",
    ),
    points=3,
)


@torch.no_grad()
def _set_only(model: HookedGptOss, tokens: Tensor, source: Run, hooks: list) -> Tensor:
    return _held(lambda part, layer: part == "indices")(model, tokens, source, hooks)


LESSON = Outline(
    name="06_indirect_object",
    title="The indirect object: patching, and what it proves",
    minutes=(75, 90),
    able_to=(
        "measure a behaviour with a logit difference over clean and corrupt twins",
        "write activation patching with hooks, and read a map of it",
        "tell denoising from noising, and sufficient from necessary",
        "patch an expert by its number, not by its slot",
        "choose between zero, mean and resample ablation, and see when they disagree",
        "say what part of a patch's effect travels by changed routing, with an interval over prompts",
    ),
    builds_on=("03_residual_stream", "04_attention"),
    exercises=(
        LOGIT_DIFFERENCE,
        RECOVERED,
        PATCH,
        PATCHING_MAP,
        INTERVAL,
        BOTH_WAYS,
        EXPERT_WRITE,
        REPLACEMENT,
        FROZEN_ROUTING,
    ),
    predictions=("place", "one prompt", "together", "zero", "probability", "routing"),
)
