"""A script: one checkpoint loaded plainly and spread over the CPU and a second device; what agrees, as a line of JSON.

Run by test_placement.py as a process of its own, for the second device stays registered as long as the process lives.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from tests.checkpoints import elsewhere
from workbench import AblateExpert, load
from workbench import run as run_model
from workbench.experiments import logit_lens, patching_grid, routing
from workbench.model.engines import use

SECOND = f"{elsewhere.NAME}:0"
# Where things live, and where what is on the CPU or the disk computes. In the last three, layers compute on both.
MAPS: dict[str, tuple[dict[str, Any], str | None]] = {
    "all on disk but the end": ({"": "disk", "unembed": SECOND}, None),
    "all on the CPU, offloaded": ({"": "cpu"}, SECOND),
    "the ends offloaded": ({"": SECOND, "embed": "cpu", "unembed": "disk"}, None),
    "a block on the CPU, computed there": ({"": SECOND, "blocks.1": "cpu"}, "cpu"),
    "a block on disk, computed on the CPU": ({"": SECOND, "blocks.0": "disk"}, "cpu"),
    "only the end there": ({"": "cpu", "ln_final": SECOND, "unembed": SECOND}, "cpu"),
}
LEFT_PADDED = torch.tensor([[0] * 6 + [1] * 24, [1] * 30])


def answers(model: Any, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Everything a user would ask of a model, on the CPU."""
    logits, cache = model.run_with_cache(tokens)
    edited = run_model(model, tokens, [AblateExpert(layer=1, expert=2)])
    found = {f"site {name}": value for name, value in cache.items()}
    found |= {"logits": logits, "loss": model(tokens, return_type="loss")}
    found |= {"padded": model(tokens, attention_mask=LEFT_PADDED)}
    found |= {"generated": model.generate(tokens, 4, attention_mask=LEFT_PADDED).finish().tokens}
    found |= {"edited": edited.logits, "flips": edited.flipped_routes, "kl": edited.kl}
    found |= {"resumed": model.resume(model.record(tokens), from_layer=1, from_position=7)}
    found |= {
        "gradient": gradient(model, tokens),
        "W_O": model.W_O,
        "direction": model.tokens_to_residual_directions(3),
    }
    for each in (logit_lens(edited), routing(edited), grid(model, tokens)):
        found |= {str(name): torch.tensor(each[name].values) for name in each if each[name].dtype.kind in "fi"}
    return {name: value.detach().cpu() for name, value in found.items()}


def gradient(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Of the loss in the stream that enters layer 0."""
    kept = []
    with model.hooks(fwd_hooks=[("hook_embed", lambda x, hook: kept.append(x.requires_grad_()) or x)]):
        loss = model(tokens, return_type="loss")
    return torch.autograd.grad(loss, kept[0])[0]


def grid(model: Any, tokens: torch.Tensor) -> Any:
    return patching_grid(model, tokens[:1], tokens[1:], metric=(5, 6), progress=False)


def main(path: str) -> None:
    tokens = torch.randint(3, 96, (2, 30), generator=torch.Generator().manual_seed(0))
    with use("eager"):  # on both sides: sums of another engine are rounded otherwise
        plain = answers(load(path), tokens)
        report = {}
        for name, (device_map, device) in MAPS.items():
            model = load(path, device_map=device_map, device=device)
            spread = answers(model, tokens)
            cached = model.run_with_cache(tokens)[1].values()
            report[name] = {
                "the same questions": list(plain) == list(spread),
                "wrong": [key for key in plain if not torch.equal(plain[key], spread[key])],
                "devices of sites": sorted({value.device.type for value in cached}),
                "hooks left": [point for point, module in model.hook_dict.items() if module._forward_hooks],
                "empty weights": [key for key, value in model.state_dict().items() if value.is_meta],
                "computes on": computes_on(model, tokens),
            }
    print(json.dumps(report))


def computes_on(model: Any, tokens: torch.Tensor) -> list[str]:
    """The device on which each block's stream is."""
    seen: list[str] = []
    names = [f"blocks.{layer}.hook_resid_mid" for layer in range(model.config.n_layers)]
    model.run_with_hooks(tokens, fwd_hooks=[(name, lambda x, hook: seen.append(x.device.type)) for name in names])
    return seen


if __name__ == "__main__":
    main(sys.argv[1])
