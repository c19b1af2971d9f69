"""Experiments on nano as a reader of a notebook waits for them: ours alone, against a limit in seconds.

python -m tests.bench.studies
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch

from tests.bench.common.options import Options, main
from tests.bench.common.results import Demand, Part
from workbench import experiments, load, prompts


def run(options: Options) -> list[Part]:
    """Each experiment whole, from tokens to dataset."""
    part = Part("studies", "experiments on nano", ["ours"])
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    options.say(part.title)
    try:
        for name, tokens, limit, work in _works():
            cell = part.cell(name, tokens, "ours")
            for _ in range(options.rounds or (2 if options.quick else 5)):
                start, before = time.perf_counter(), sum(os.times()[:2])
                work()
                cell.rounds.append([time.perf_counter() - start])
                cell.processor.append(sum(os.times()[:2]) - before)
            options.say("  " + part.line(name, tokens))
            part.demands.append(Demand(name, cell.median, limit, at_least=False, unit=" s"))
    finally:
        torch.set_num_threads(threads)
    return [part]


def _works() -> list[tuple[str, int, float, Callable[[], Any]]]:
    """(name, tokens, seconds allowed, what is done)."""
    model = load("nano")
    pairs = prompts.pairs(model, "indirect object", 64, seed=0)
    text = " ".join(pair.clean + "." for pair in pairs[:3])
    tokens = model.to_tokens(text)[:, :40]
    corrupted = tokens.clone()
    corrupted[0, 1] = (corrupted[0, 1] + 1) % model.config.d_vocab

    def grid() -> None:
        quiet = {"progress": False}
        experiments.patching_grid(model, tokens, corrupted, (17, 23), **quiet)
        experiments.component_patching(model, tokens, corrupted, (17, 23), "expert", **quiet)

    def ablations() -> None:
        experiments.ablation_sweep(model, pairs, policies=("zero", "reroute"), progress=False)

    def graph() -> None:
        experiments.attribution_graph(model, tokens, (17, 23), n_nodes=200)

    return [
        ("patching grid of resid, attn, mlp and each expert, 4 layers × 40 positions", 40, 3.0, grid),
        ("4 × 8 × 2 expert ablations over 64 prompts", 0, 5.0, ablations),
        ("attribution graph, 200 kept nodes", 40, 5.0, graph),
    ]


if __name__ == "__main__":
    main(run, __doc__)
