"""Expert lens: what each chosen expert says for its token, and how loudly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from workbench.activations import Run
from workbench.experiments.lenses.logit_lens import single_target
from workbench.experiments.metrics import Token
from workbench.experiments.rows import check_index, numpy, provenance, quantity, real_columns, row_coords
from workbench.experiments.texts import read_out, token_texts
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients

PER_SLOT = ("pos", "layer", "slot")


@without_gradients
def expert_lens(
    run: Run, row: int = 0, layers: Sequence[int] | None = None, target: Token | None = None, top_k: int = 5
) -> xr.Dataset:
    """Read each route's expert output y, before its weight w, through the final norm and the unembedding.

    The direction W_U · norm(y) says which tokens the expert would raise; norming cancels every scale, also w. So beside
    it stands the magnitude ‖w · y‖ / rms(final), which says how much of the final stream that is.

    Args:
        run: one that kept ``hook_expert_out`` of the layers, and the routing and ``ln_final.hook_scale``, as
            ``wb.run(…, sites="all")`` does.
        target: the token whose logit is attributed, text or id; None for the one that the model predicts in the end at
            each position.

    Returns:
        chosen, weight (pos, layer, slot); magnitude; contribution (pos, layer, slot), what w · y adds to the target's
        logit, w · y · (γ ⊙ W_U[:, target]) / rms(final), exact and b_down included. top_id, top_token, top_logit (pos,
        layer, slot, rank), of the direction W_U · norm(y); top_contribution, what w · y adds to that token's logit.

    Raises:
        ValueError: for a row, layer, target or top_k that is not there.
        KeyError: if the run did not keep a site; the message says how to.

    >>> experiments.expert_lens(run).sizes["slot"]
    2
    """
    model, columns, config = run.model, real_columns(run, row), run.model.config
    chosen_layers = list(range(config.n_layers) if layers is None else layers)
    for layer in chosen_layers:
        check_index("layer", layer, config.n_layers)
    if not 1 <= top_k <= config.d_vocab or not chosen_layers:
        raise ValueError(f"top_k={top_k}, layers={chosen_layers}: expected 1 to {config.d_vocab}, and some layers")
    scale = run["ln_final.hook_scale"][row, columns].double()
    targets = single_target(model, target, run.logits[row, columns])
    read = [_layer(run, row, columns, layer, scale, targets, top_k) for layer in chosen_layers]
    values = {name: np.stack([part[name] for part in read], axis=1) for name in read[0]}
    variables = {name: (_MEANING[name][0], values[name], quantity(*_MEANING[name][1:])) for name in values}
    variables["top_token"] = ((*PER_SLOT, "rank"), token_texts(model, values["top_id"]), quantity("tokens it raises"))
    variables["target_id"] = ("pos", numpy(targets), quantity("token whose logit is attributed"))
    variables["target_token"] = ("pos", token_texts(model, numpy(targets)), quantity("token whose logit is attributed"))
    coords = row_coords(run, row) | {"layer": chosen_layers, "slot": np.arange(config.experts_per_token)}
    followed = "the final prediction" if target is None else str(target)
    attrs = provenance(run, "expert_lens", row, target=followed)
    return xr.Dataset(variables, coords | {"rank": np.arange(1, top_k + 1)}, attrs)


_MEANING = {
    "chosen": (PER_SLOT, "expert in this slot"),
    "weight": (PER_SLOT, "routing weight"),
    "magnitude": (PER_SLOT, "‖w · y‖ / rms(final)"),
    "contribution": (PER_SLOT, "what it adds to the target's logit", "logits"),
    "top_id": ((*PER_SLOT, "rank"), "tokens it raises"),
    "top_logit": ((*PER_SLOT, "rank"), "W_U · norm(y)", "logits"),
    "top_contribution": ((*PER_SLOT, "rank"), "what it adds to the token's logit", "logits"),
}


def _layer(
    run: Run,
    row: int,
    columns: Int[Tensor, " pos"],
    layer: int,
    scale: Float[Tensor, "pos 1"],
    targets: Int[Tensor, " pos"],
    top_k: int,
) -> dict[str, np.ndarray]:
    here = f"blocks.{layer}.mlp.hook_expert"
    experts, weight, out = (run[f"{here}_{kind}"][row, columns] for kind in ("indices", "weights", "out"))
    wide, shape = out.double(), out.shape[:2]
    written = weight.double()[..., None] * wide / scale.to(wide.device)[..., None]
    rms = (wide.square().mean(-1, keepdim=True) + run.model.config.rms_eps).sqrt()
    ids, logits = read_out(run.model, (wide / rms).flatten(0, 1).float(), top_k)
    ids, logits = (part.reshape(*shape, top_k) for part in (ids, logits))
    # What a route adds to a logit is its direction's logit times how long it is.
    share = weight.double()[..., None] * rms / scale.to(rms.device)[..., None]
    return {
        "chosen": numpy(experts),
        "weight": numpy(weight),
        "magnitude": numpy(written.norm(dim=-1)).astype(np.float32),
        "contribution": _onto(run.model, written, targets),
        "top_id": ids,
        "top_logit": logits,
        "top_contribution": logits * numpy(share).astype(np.float32),
    }


def _onto(
    model: HookedGptOss, written: Float[Tensor, "pos slot d_model"], targets: Int[Tensor, " pos"]
) -> Float[np.ndarray, "pos slot"]:
    weight = model.unembed.weight
    directions = weight[targets.to(weight.device)].double() * model.ln_final.w.to(weight.device).double()
    return numpy((written.to(weight.device) * directions[:, None]).sum(-1)).astype(np.float32)
