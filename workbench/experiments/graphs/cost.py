"""What an attribution graph will take, before it is traced."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.model import HookedGptOss
from workbench.model.memory import Free, free_memory

_RATE = 1.2e10  # floating-point operations a second that a small machine does at least
_EACH = 6e-9  # seconds for an edge beside its dot product
_NUMBER = 4  # bytes


@dataclass(frozen=True)
class GraphCost:
    """Sizes of a graph.

    Attributes:
        nodes: heads, experts and embeddings at every position.
        edges: between them.
        n_bytes: that are held while it is traced.
        seconds: on a machine with two cores, roughly; a good one is several times as fast.
        free: what the machine has left; None where it does not tell.
    """

    nodes: int
    edges: int
    n_bytes: int
    seconds: float
    free: Free | None

    @property
    def fits(self) -> bool:
        """Whether the memory is there."""
        return self.free is None or self.n_bytes <= self.free.n_bytes


def graph_cost(model: HookedGptOss, n_pos: int) -> GraphCost:
    """What ``attribution_graph`` of a text of so many tokens takes."""
    config, edges, before = model.config, 0, 1  # nodes at a position that have written
    for layer in range(config.n_layers):
        window = config.window(layer)
        seen = n_pos * (n_pos + 1) // 2
        if window is not None and window < n_pos:
            seen = window * (window + 1) // 2 + (n_pos - window) * window
        edges += config.n_heads * seen * before
        before += config.n_heads
        edges += n_pos * config.experts_per_token * before
        before += config.experts_per_token
    nodes = n_pos * before
    pairs = config.n_layers * n_pos * n_pos * (2 * config.n_heads + config.experts_per_token)
    streams = config.n_layers * n_pos * (2 * config.d_model + config.n_heads * config.d_head)
    held = _NUMBER * (2 * nodes * config.d_model + pairs + streams)
    seconds = 0.05 + edges * (2 * config.d_model / _RATE + _EACH)
    return GraphCost(nodes, edges, held, seconds, free_memory(model.embed.weight.device))
