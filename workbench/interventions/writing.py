"""Writing into an activation at some positions and one component, out of place, so that gradients pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.interventions.context import Context
from workbench.model.sites import Site, Sites, position_axis

COMPONENTS = ("head", "kv_head", "expert", "slot")


def site_of(name: str) -> Site:
    """The site of a name, of however many layers."""
    parts = name.split(".")
    return Sites(int(parts[1]) + 1 if parts[0] == "blocks" else 0)[name]


def axis_of_positions(site: Site) -> int:
    """The axis, counted from the front, along which a site's positions (its queries' positions) run."""
    return len(site.dims) + position_axis(site.name)


def axis_of_component(site: Site) -> int | None:
    """The axis of a site's heads, experts or slots."""
    found = [i for i, dim in enumerate(site.dims) if dim in COMPONENTS]
    return found[0] if found else None


def written(x: Tensor, site: Site, component: int | None, chosen: Bool[Tensor, " pos"], values: Tensor) -> Tensor:
    """x with ``values`` (broadcast to it) at the chosen positions, of one component alone if one is named."""
    axis, n_dims = axis_of_positions(site), x.ndim
    mask = chosen.view([-1 if i == axis else 1 for i in range(n_dims)])
    if component is not None:
        at = axis_of_component(site)
        assert at is not None
        one = torch.arange(x.shape[at], device=x.device) == component
        mask = mask & one.view([-1 if i == at else 1 for i in range(n_dims)])
    return torch.where(mask, values.to(x), x)


def writer(
    context: Context, site: Site, component: int | None, positions: tuple[int, ...] | None, made: Callable
) -> Callable:
    """A hook that writes made(x), broadcast to x, at a spec's positions."""

    def write(x: Tensor, hook: object) -> Tensor | None:
        chosen = context.chosen(positions, x.shape[axis_of_positions(site)], x.device)
        return written(x, site, component, chosen, made(x)) if bool(chosen.any()) else None

    return write
