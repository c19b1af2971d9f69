"""Specs → hooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import singledispatch
from typing import Any

from workbench.interventions.base import KINDS, Hook, Intervention
from workbench.interventions.context import Context
from workbench.model import Config


@singledispatch
def edits(spec: Any, context: Context | None = None) -> list[Hook]:
    """The hooks that carry out one intervention, in the order in which they must be put on.

    ``edits.register`` makes a type of your own an intervention: a function of the spec that gives hooks.

    Raises:
        TypeError: for something that is no intervention.
    """
    raise TypeError(f"{spec!r} is no intervention; expected one of {sorted(KINDS)}")


@edits.register
def _(spec: Intervention, context: Context | None = None) -> list[Hook]:
    return spec.hooks(Context() if context is None else context)


def check_all(
    specs: Iterable[Any],
    config: Config,
    n_pos: int | None,
    sources: Mapping[str, Any] | None = None,
    n_rows: int | None = None,
) -> None:
    """Refuse specs that the model, the run or the sources do not have, or that cannot be together.

    Raises:
        InterventionError: naming the spec, what was given and what there is.
        UnknownSite: for a site that does not exist.
        KeyError: for a source run that did not keep what is read of it; the message says how to keep it.
    """
    specs = tuple(specs)
    for spec in specs:
        if isinstance(spec, Intervention):
            spec.check(config, n_pos)
            spec.check_among(specs, config, n_pos)
            spec.check_sources(config, {} if sources is None else sources, n_rows)


def all_edits(specs: Iterable[Any], context: Context | None = None) -> list[Hook]:
    """The hooks of several interventions, in order: a later one sees what the earlier ones left."""
    return [
        hook for spec in specs for hook in (edits(spec, context) if isinstance(spec, Intervention) else edits(spec))
    ]
