"""Every view of a Bench, and the work of those that have some to do."""

from __future__ import annotations

from workbench.widgets import Bench

VIEWS = (
    "tokens", "logit_lens", "attention", "routing", "patching", "ablation", "steering", "generation", "graph",
    "history", "effect",
)  # fmt: skip
WORK = {
    "routing": {"kind": "corpus"},
    "patching": {"kind": "run"},
    "ablation": {"kind": "run"},
    "steering": {"kind": "generate"},
    "generation": {"kind": "go_on"},
    "graph": {"kind": "trace"},
    "effect": {"kind": "complete"},
}


def work(bench: Bench, timeout: float = 120) -> None:
    """Have every view do what it can, so that all of it is there to be shown."""
    for name, action in WORK.items():
        bench[name].act(action)
        bench.session.wait(timeout)
