"""Attribution graphs of a mixture of experts: which parts told which, on the way from the tokens to one answer."""

from __future__ import annotations

from typing import Any

import xarray as xr

from workbench.experiments.graphs.graph_nodes import Step
from workbench.experiments.graphs.trace import Trace
from workbench.experiments.metrics import Token
from workbench.experiments.rows import check_whole
from workbench.model import HookedGptOss


def attribution_graph(
    model: HookedGptOss,
    tokens: Any,
    target: tuple[Token, Token] | Token,
    *,
    n_nodes: int = 200,
    confirm: int = 30,
    row: int = 0,
    logits_at: int | None = None,
    on_step: Step | None = None,
) -> xr.Dataset:
    """The graph of what led to a logit, with experts, heads and embeddings at each position as nodes.

    As in circuit tracing (Ameisen et al. 2025, transformer-circuits.pub), with experts in the place of transcoder
    features: routing (choice and weights), attention patterns and norm scales are held at what they were in this run.
    The model is linear then but inside the experts, and of an expert we take the Jacobian at what it read. What that
    leaves is the expert's ``error``: its biases, and how far it is from linear.

    An edge is what the source's write adds to the target along that edge first: write · Jᵀg, where J is the linear part
    of the node that reads it and g the gradient of the target at that node's own write. So what comes in at a node
    (edges, bias, error) adds up to what its own write adds to the target, its ``activation``, and what comes in at the
    logits adds up to the target.

    Influence as in circuit tracing: |what comes in| of each node is normalised to 1, and (I − A)⁻¹ sums over all paths
    to the logits. Pruning keeps the nodes of largest influence; ``rest`` is what others tell those that are kept.

    The held model is not the model. ``confirm`` takes away the largest edges between kept nodes, one at a time: in the
    held model with its experts as they are (non-linear), and in the live one, where the node's own attention or routing
    and everything later answers too. An expert in the live model may lose its route.

    Args:
        tokens: text, a Chat, tokens, or an unedited run (whose tokens are run again).
        target: (right, wrong), text or ids: the difference of their logits; or one token, its logit.
        n_nodes: how many nodes to keep.
        confirm: how many edges to take away; 0 for none. Edges into the logits are not among them: those are exact.
        row: of the tokens.
        logits_at: the position whose logits are the target; None for the last.
        on_step: called with how many steps are done and of how many, first of the tracing, then of the confirming; what
            it raises stops the work.

    Returns:
        adjacency (target, source), in logits, between kept nodes and "logits"; edge_influence, the same as shares of
        the flow into the logits; activation, influence (source). bias, error, rest, total (target): edges + bias +
        error + rest = total, the activation. attention (target, source), how much of its attention a head pays to the
        source's position; routing_weight (target), of an expert; NaN elsewhere. bias_influence and error_influence
        (target), what of the flow starts at the node itself. value (), of the target. embed_share, bias_share and
        error_share (): of the flow, before pruning, where it starts; together 1. kept_share (), the influence kept
        among heads and experts.
        With ``confirm``: predicted, frozen_effect, live_effect (edge), of having the edge, and their agreement:
        frozen_correlation, frozen_signs, live_correlation, live_signs (). Names are as ``Node`` spells them.

    Raises:
        ValueError: for an edited run, or a row, position, token or number that is not there.

    >>> answers = (pair.right, pair.wrong)
    >>> graph = experiments.attribution_graph(model, pair.clean, answers, n_nodes=20, confirm=0)
    >>> graph.adjacency.dims
    ('target', 'source')
    """
    check_whole(1, n_nodes=n_nodes)
    check_whole(0, confirm=confirm)
    trace = Trace(model, tokens, target, n_nodes, row=row, logits_at=logits_at, on_step=on_step)
    trace.confirm(confirm, on_step)
    return trace.dataset()
