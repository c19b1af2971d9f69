"""Every view of a Bench, and the work of those that have some to do."""

from __future__ import annotations

from typing import Any

from tests.browser.benches import atlas_of
from workbench.widgets import Bench

VIEWS = (
    "tokens", "logit_lens", "attention", "routing", "patching", "ablation", "steering", "generation", "graph",
    "atlas", "history", "effect",
)  # fmt: skip
WORK = {
    "routing": {"kind": "corpus"},
    "patching": {"kind": "run"},
    "ablation": {"kind": "run"},
    "steering": {"kind": "generate"},
    "generation": {"kind": "go_on"},
    "graph": {"kind": "trace"},
    "atlas": {"kind": "measure"},
    "effect": {"kind": "complete"},
}


def small_atlas(model: Any) -> Any:
    """Of a few texts; of a few token ids where the model reads none."""
    if model.tokenizer is None:
        return atlas_of(model, [[5, 6, 7, 8, 9, 5, 6], [1, 2, 3, 4, 5]], domain=["a", "b"])
    texts = {"people": ["Mia went to the park.", "Tom saw a dog. Tom saw a cat."], "numbers": ["1 2 3 4"]}
    return atlas_of(model, texts)


def work(bench: Bench, timeout: float = 120) -> None:
    """Have every view do what it can, so that all of it is there to be shown."""
    for name, action in WORK.items():
        bench[name].act(action)
        bench.session.wait(timeout)
