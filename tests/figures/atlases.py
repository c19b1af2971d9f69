"""Small hand-made datasets and contexts of an atlas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tests.figures.data import values
from workbench.atlases.contexts import Context

LAYERS, EXPERTS = 4, 8


def load() -> xr.Dataset:
    """An expert of each layer has no token at all."""
    share = values(LAYERS, EXPERTS)
    share[:, 0] = 0
    variables = {"load": (("layer", "expert"), share), "count": (("layer", "expert"), (1000 * share).astype(int))}
    return xr.Dataset(variables, {"layer": range(LAYERS), "expert": range(EXPERTS)}, {"even_load": 0.25})


def contexts(tokens: Sequence[str]) -> list[Context]:
    """One at each token, ten tokens long where there are so many: the first and the last are cut."""
    made = []
    for at in range(len(tokens)):
        first = max(0, at - 6)
        piece = tuple(tokens[first : at + 4])
        weights = tuple(float(weight) for weight in values(len(piece), seed=at))
        known = None if at % 3 == 0 else tokens[at]
        made.append(
            Context(
                layer=1,
                expert=2,
                document=at,
                id=tokens[at],
                position=at,
                centre=at - first,
                weight=weights[at - first],
                slot=0,
                tokens=piece,
                ids=tuple(range(len(piece))),
                weights=weights,
                seen=0,
                domain=known,
                language=None,
                role=known,
                channel=None,
            )
        )
    return made


def specialised(names: Sequence[str]) -> xr.Dataset:
    """A group of each name; the first has none of the expert's tokens, the second one document only."""
    shape = (LAYERS, EXPERTS, len(names))
    lift = 3 * values(*shape)
    lift[..., 0] = 0
    low, high = lift / 2, lift * 1.5 + 0.1
    low[..., 1:2], high[..., 1:2] = np.nan, np.nan
    axes = ("layer", "expert", "domain")
    variables = {"lift": (axes, lift), "lift_low": (axes, low), "lift_high": (axes, high)}
    variables["count"] = (axes, (100 * lift).astype(int))
    variables |= {name: ("domain", np.arange(len(names)) + 9) for name in ("tokens", "documents")}
    coords = {"layer": range(LAYERS), "expert": range(EXPERTS), "domain": np.array(names, dtype=str)}
    return xr.Dataset(variables, coords, {"level": 0.9})


def together() -> xr.Dataset:
    """Of one layer; nothing is said of an expert and itself."""
    lift = 2 * values(EXPERTS, EXPERTS)
    np.fill_diagonal(lift, np.nan)
    axes = ("expert", "other")
    variables = {"lift": (axes, lift), "count": (axes, (10 * np.nan_to_num(lift)).astype(int))}
    return xr.Dataset(variables, {"expert": range(EXPERTS), "other": range(EXPERTS), "layer": 2})


def without_an_expert(n: int) -> xr.Dataset:
    """n contexts, of one of which nothing follows; the control does little."""
    kl = values(2, n) * np.array([[1.0], [0.01]])
    change = kl - 0.2
    change[:, 0] = np.nan
    variables = {"kl": (("ablated", "context"), kl), "loss_change": (("ablated", "context"), change)}
    for name, table in (("kl", kl), ("loss_change", change[:, 1:])):
        mean = table.mean(1) if table.shape[1] else np.full(2, np.nan)
        ends = {"mean": mean, "low": mean - 0.1 if n > 2 else np.full(2, np.nan), "high": mean + 0.2}
        variables |= {f"{name}_{end}": ("ablated", array) for end, array in ends.items()}
    return xr.Dataset(variables, {"ablated": ["expert", "control"]}, {"layer": 1, "expert": 2, "control": 5})
