"""What can be done to a run, as frozen data that names things and holds no tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from workbench.model import Config

ExpertPolicy = Literal["reroute", "zero", "renormalise"]


@dataclass(frozen=True)
class AblateExpert:
    """Take one expert of one layer out, at every position or at some.

    Policies: ``reroute`` masks its router logit, so that the next expert takes its place and weights are those
    of the new set; ``zero`` leaves the others' weights as they were and drops its contribution;
    ``renormalise`` drops it and scales the others' weights to sum to 1 again (none left: nothing is written).
    """

    layer: int
    expert: int
    policy: ExpertPolicy = "reroute"
    positions: tuple[int, ...] | None = None

    @property
    def reroutes(self) -> bool:
        """Whether it acts on the router's logits, which a routing taken from another run would override."""
        return self.policy == "reroute"

    def check(self, config: Config, n_pos: int) -> None:
        """Refuse what the model or the run does not have, before anything runs.

        Raises:
            ValueError: naming the field, what was given and what there is.
        """
        _check_index(self, "layer", self.layer, config.n_layers)
        _check_index(self, "expert", self.expert, config.n_experts)
        if self.policy not in get_args(ExpertPolicy):
            raise ValueError(f"{self}: policy {self.policy!r}, expected one of {get_args(ExpertPolicy)}")
        if self.policy == "reroute" and config.n_experts == config.experts_per_token:
            raise ValueError(f"{self}: every expert is always chosen, so there is none to re-route to; use 'zero'")
        for position in self.positions or ():
            _check_index(self, "position", position, n_pos)


def check_all(specs: Iterable[Any], config: Config, n_pos: int) -> None:
    """Refuse specs that the model or the run does not have, and re-routings that together leave too few experts.

    Raises:
        ValueError: naming the spec, what was given and what there is.
    """
    masked: dict[tuple[int, int], set[int]] = defaultdict(set)
    for spec in specs:
        if hasattr(spec, "check"):
            spec.check(config, n_pos)
        if isinstance(spec, AblateExpert) and spec.reroutes:
            for position in range(n_pos) if spec.positions is None else spec.positions:
                masked[spec.layer, position].add(spec.expert)
    for (layer, position), experts in masked.items():
        if (left := config.n_experts - len(experts)) < config.experts_per_token:
            raise ValueError(
                f"re-routing from experts {sorted(experts)} of layer {layer} leaves {left} at position {position}; "
                f"a token needs {config.experts_per_token}. Ablate fewer, or use policy 'zero'"
            )


def _check_index(spec: object, what: str, value: int, size: int) -> None:
    if not 0 <= value < size:
        nearest = min(max(value, 0), size - 1)
        raise ValueError(f"{spec}: there is no {what} {value}; there are 0 to {size - 1}, the nearest is {nearest}")
