"""What one expert does where it fires: what it writes there, and what comes next without it.

Beside it stands another expert of the same layer, such as the one whose load is closest: taking out any expert of that
size moves something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench.experiments.inference import bootstrap
from workbench.experiments.rows import check_index, check_whole, numpy, quantity
from workbench.experiments.texts import about, rows_of, token_texts
from workbench.experiments.watch import Cancel, asked_to_stop
from workbench.interventions import AblateExpert, Context, all_edits, check_all
from workbench.model import HookedGptOss, Recording
from workbench.model.interrupts import without_gradients

ABLATED = ("expert", "control")
RESAMPLES = 1999


@dataclass(frozen=True, eq=False)
class Measured:
    """One context, measured.

    Attributes:
        weight: [ablated] of the expert, and of the control, at the last token; 0 where that does not go to it.
        written: w · y / rms(final) [d_model], what it adds to the normed final stream there; 0 where it writes nothing.
        loss: −log p of the token that follows, in nats; NaN where none does.
        loss_change, kl: [ablated] without the expert, and without the control: the rise of that loss, and KL(whole ‖
            ablated) of the next token, in nats.
    """

    weight: Float[np.ndarray, " ablated"]
    written: Float[np.ndarray, " d_model"]
    loss: float
    loss_change: Float[np.ndarray, " ablated"]
    kl: Float[np.ndarray, " ablated"]


@without_gradients
def expert_effects(
    model: HookedGptOss,
    rows: Sequence[Any],
    layer: int,
    expert: int,
    control: int | None = None,
    *,
    following: Sequence[int | None] | None = None,
    policy: str = "reroute",
    top_k: int = 10,
    cancel: Cancel = None,
    on_result: Callable[[int, Measured], None] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Run each context whole and with the expert taken out at all of its tokens, and look at its last token.

    Args:
        rows: contexts, each up to the token where the expert fires: texts, Chats or rows of ids.
        control: another expert of the layer, taken out for comparison; None for none.
        following: the token id that comes next in each; None where none does. Without any there is no loss.
        policy: of ``AblateExpert``: "reroute" (its tokens are routed anew), "zero" or "renormalise".
        top_k: tokens that are listed as raised, and as lowered.
        cancel: an Event, or a function that gives true: no further context is begun, and what is done is returned.
        on_result: called with the number of each context and what was measured of it.

    Returns:
        loss (context), weight, loss_change, kl (ablated, context), as :class:`Measured` says; written (context,
        d_model); of loss_change and kl the mean over contexts with its 95 % interval (ablated), …_mean, …_low, …_high
        (bootstrap over contexts; NaN for fewer than two). raised_id, raised_token, raised (rank) and lowered_…: what
        the expert adds directly to tokens' logits, the mean over the contexts that go to it, as differences from the
        mean over the vocabulary, which no probability depends on.

    Raises:
        ValueError: for a layer, an expert, tokens or a policy that the model does not have.
    """
    ids = rows_of(model, rows)
    nexts = [None] * len(ids) if following is None else list(following)
    if len(nexts) != len(ids):
        raise ValueError(f"{len(nexts)} following tokens for {len(ids)} contexts: expected one each, or None")
    for token in nexts:
        if token is not None:
            check_index("token", token, model.config.d_vocab)
    check_whole(1, top_k=top_k)
    if policy in ("mean", "resample"):
        raise ValueError(f"policy={policy!r} takes what the expert writes from a run: use 'reroute' or 'zero' here")
    check_index("layer", layer, model.config.n_layers)
    if control == expert:
        raise ValueError(f"control={control}: expected another expert than the one whose effect is measured")
    chosen = [AblateExpert(layer, each, policy) for each in (expert, control) if each is not None]  # type: ignore[arg-type]
    for each in (spec.expert for spec in chosen):
        check_index("expert", each, model.config.n_experts)
    for row in ids:
        for spec in chosen:
            check_all([spec], model.config, len(row), {}, 1)
    found: list[Measured] = []
    for i, (row, after) in enumerate(zip(tqdm(ids, desc="contexts", disable=not progress), nexts, strict=True)):
        if asked_to_stop(cancel):
            break
        found.append(_measured(model, row, after, chosen))
        if on_result is not None:
            on_result(i, found[-1])
    return gathered(model, found, layer, expert, control, policy, top_k)


# ---------------------------------------------------------------- one context
def _measured(model: HookedGptOss, row: Int[Tensor, " pos"], after: int | None, specs: list[AblateExpert]) -> Measured:
    layer, n = specs[0].layer, model.config.n_layers
    here, seen = f"blocks.{layer}.mlp.hook_expert", dict[str, Tensor]()

    def keep(values: Tensor, hook: Any) -> None:
        seen[hook.name] = values[0, -1]

    names = [f"{here}_{kind}" for kind in ("indices", "weights", "out")]
    with model.hooks(fwd_hooks=[(name, keep) for name in names]):
        recording = model.record(row[None], layers=[layer])
    scale = [("ln_final.hook_scale", keep)]
    whole = _logprobs(model.resume(recording, n, fwd_hooks=scale, logits_at="last"))
    indices, weights, out = (seen[name] for name in names)
    taken = [(indices == spec.expert).to(weights.dtype) * weights for spec in specs]
    written = (taken[0].double()[:, None] * out.double()).sum(0) / seen["ln_final.hook_scale"].double()
    loss = np.nan if after is None else -float(whole[after])
    changes, kls = [], []
    for spec in specs:
        without = _without(model, recording, spec)
        changes.append(np.nan if after is None else -float(without[after]) - loss)
        kls.append(max(float((whole.exp() * (whole - without)).sum()), 0.0))
    given = np.array([float(each.sum()) for each in taken], np.float32)
    return Measured(
        given, numpy(written).astype(np.float32), loss, np.array(changes, np.float32), np.array(kls, np.float32)
    )


def _without(model: HookedGptOss, recording: Recording, spec: AblateExpert) -> Float[Tensor, " d_vocab"]:
    edits = all_edits([spec], Context(model, {}))
    return _logprobs(model.resume(recording, spec.layer, fwd_hooks=edits, logits_at="last"))


def _logprobs(logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, " d_vocab"]:
    return logits[0, -1].double().log_softmax(-1)


# ---------------------------------------------------------------- all of them
@without_gradients
def gathered(
    model: HookedGptOss,
    found: Sequence[Measured],
    layer: int,
    expert: int,
    control: int | None = None,
    policy: str = "reroute",
    top_k: int = 10,
) -> xr.Dataset:
    """What ``expert_effects`` returns, of contexts that were measured."""
    names = ABLATED[: 1 if control is None else 2]
    shape = (len(names), len(found))
    weights, changes, kls = (
        np.array([getattr(each, kind) for each in found], np.float32).reshape(shape[::-1]).T
        for kind in ("weight", "loss_change", "kl")
    )
    both = ("ablated", "context")
    variables: dict[str, Any] = {
        "weight": (both, weights, quantity("weight at the last token")),
        "loss": ("context", np.array([each.loss for each in found]), quantity("−log p of what follows", "nats")),
        "loss_change": (both, changes, quantity("rise of the loss of what follows, ablated", "nats")),
        "kl": (both, kls, quantity("KL(whole ‖ ablated) of the next token", "nats")),
        "written": (
            ("context", "d_model"),
            np.array([each.written for each in found], np.float32).reshape(len(found), model.config.d_model),
            quantity("w · y / rms(final) at the last token"),
        ),
    }
    for name, values in (("loss_change", changes), ("kl", kls)):
        variables |= _mean(name, values)
    variables |= _lens(model, found, top_k)
    attrs = about(model, "expert_effects", layer=layer, expert=expert, policy=policy)
    attrs["control"] = -1 if control is None else control
    return xr.Dataset(variables, {"ablated": list(names)}, attrs)


def _mean(name: str, values: Float[np.ndarray, "ablated context"]) -> dict[str, Any]:
    """Mean and interval over the contexts that have a number."""
    kept = values[:, np.isfinite(values).all(0)].astype(np.float64)
    mean, low, high = np.full((3, len(values)), np.nan)
    if kept.shape[1]:
        mean = kept.mean(1)
    if kept.shape[1] > 1:
        made = bootstrap(kept.T, n=RESAMPLES)
        low, high = made.low.values, made.high.values
    words = {
        "mean": "mean over contexts",
        "low": "lower end of its 95% interval",
        "high": "upper end of its 95% interval",
    }
    made_of = zip(words, (mean, low, high), strict=True)
    return {f"{name}_{end}": ("ablated", array, quantity(f"{words[end]} of {name}", "nats")) for end, array in made_of}


def _lens(model: HookedGptOss, found: Sequence[Measured], top_k: int) -> dict[str, Any]:
    """What the mean of what was written adds to the logits, the most and the least."""
    there = [each.written for each in found if each.weight[0] > 0]
    ids, values = np.zeros((2, 0), np.int64), np.zeros((2, 0), np.float32)
    if there:
        weight = model.unembed.weight
        mean = torch.from_numpy(np.mean(there, 0)).to(weight.device)
        direction = (mean * model.ln_final.w.float().to(weight.device)).to(weight)
        logits = torch.nn.functional.linear(direction, weight).float()  # nobody's hooks are asked
        logits = logits - logits.mean()
        k = min(top_k, len(logits))
        ends = [logits.topk(k, largest=largest) for largest in (True, False)]
        ids, values = (np.stack([numpy(getattr(end, kind)) for end in ends]) for kind in ("indices", "values"))
    made: dict[str, Any] = {}
    for i, name in enumerate(("raised", "lowered")):
        made[f"{name}_id"] = ("rank", ids[i], quantity(f"tokens whose logits it has {name} the most"))
        made[f"{name}_token"] = ("rank", token_texts(model, ids[i]), quantity(f"tokens whose logits it has {name}"))
        made[name] = ("rank", values[i], quantity("what it adds directly, from the mean over the vocabulary", "logits"))
    return made
