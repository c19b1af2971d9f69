"""A small model, and one piece of work of every kind that puts hooks on it or changes a mode of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import workbench as wb
from tests.robust.interrupting import Work
from tests.small import SMALL, rows
from workbench.activations import rerun
from workbench.checkpoints import load, save_pretrained
from workbench.dictionaries import Dictionary, ablate, attached
from workbench.experiments import (
    ablation_sweep,
    attribution_patching,
    integrated_gradients,
    patching_grid,
    train_tuned_lens,
)
from workbench.model import HookedGptOss, random_weights
from workbench.sweeps import Grid, sweep

CONFIG = SMALL.with_(n_layers=2, dtype="float32", name="two layers")
HEADS = Grid(layer=range(2), head=range(3))
EDITS = (
    wb.AblateHead(1, 2),
    wb.AblateExpert(0, 1, "zero"),
    wb.KnockOut(1, ((5, 2),)),
    wb.ForceExpert(1, 3, positions=(4,)),
    wb.Patch("blocks.0.hook_attn_out", "clean", positions=(2, 3)),
)
STREAM = ("attn_out",)
SITE, LATER = "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"


def small(folder: Path) -> tuple[HookedGptOss, Tensor]:
    """A model of two layers, loaded from a checkpoint in the folder as a sweep wants it, and one row of tokens."""
    save_pretrained(random_weights(HookedGptOss(CONFIG), seed=3), folder)
    return load(folder), rows(CONFIG, 5)[:1]


def dictionary() -> Dictionary:
    """Random directions on the first layer's output."""
    generator = torch.Generator().manual_seed(0)
    write = torch.nn.functional.normalize(torch.randn(12, CONFIG.d_model, generator=generator), dim=-1)
    weights = {"W_enc": write.T.clone(), "b_enc": torch.zeros(12), "W_dec": write, "b_dec": torch.zeros(CONFIG.d_model)}
    return Dictionary(weights, site=SITE)


def works(model: HookedGptOss, tokens: Tensor, folder: Path) -> dict[str, Work]:
    """By name; each can be done again and again."""
    clean, features, recording = wb.run(model, tokens.flip(1)), dictionary(), model.record(tokens)
    base, sources = wb.run(model, tokens), {"clean": clean}
    quick: dict[str, Any] = {"progress": False}
    heads, attempts = [wb.AblateHead(0, 1), wb.AblateHead(1, 3)], iter(range(10**9))

    def block() -> None:
        with model.edited(EDITS, sources), model.hooks([(SITE, lambda x, hook: x * 1.5)]):
            model(tokens)

    def on_features() -> None:
        with attached(model, features, ops={3: ablate()}) as on:
            model(tokens)
        assert on.features is not None

    def gradients() -> None:
        model.zero_grad()
        with torch.enable_grad(), model.hooks(bwd_hooks=[(SITE, lambda gradient, hook: None)]):
            torch.autograd.grad(model(tokens, return_type="loss"), model.embed.weight)

    def swept() -> None:
        journal = folder / f"journal-{next(attempts)}"
        sweep(divergence, HEADS, model=model, journal=journal, batch=2, progress=False)

    def gone_through() -> None:
        for step in model.generate(tokens, 3, fwd_hooks=[(SITE, lambda x, hook: x * 1.1)]):
            assert step.position

    return {
        "wb.run": lambda: wb.run(model, tokens, EDITS, sources=sources),
        "run_with_cache": lambda: model.run_with_cache(tokens),
        "a block of hooks": block,
        "a dictionary": on_features,
        "generate": gone_through,
        "generate, drawn": lambda: model.generate(tokens, 3, temperature=1.0, seed=1).finish(),
        "record and resume": lambda: model.resume(model.record(tokens), 1, 3, fwd_hooks=[(LATER, _same)]),
        "resume": lambda: model.resume(recording, 1, 2, rows=3, logits_at="last"),
        "rerun": lambda: rerun(base, EDITS, sources=sources),
        "gradients": gradients,
        "patching_grid": lambda: patching_grid(model, clean, base, (3, 4), ("attn_out",), positions=(5, 6), **quick),
        "ablation_sweep": lambda: ablation_sweep(model, [tokens], _first, heads, controls=1, **quick),
        "attribution_patching": lambda: attribution_patching(model, clean, base, (3, 4), ("attn_out", "head")),
        "integrated_gradients": lambda: integrated_gradients(model, clean, base, (3, 4), STREAM, steps=2, **quick),
        "train_tuned_lens": lambda: train_tuned_lens(model, [tokens], steps=3, tokens_per_step=4, **quick),
        "sweep with a journal": swept,
    }  # fmt: skip


def divergence(model: HookedGptOss, cells: list[Any]) -> list[float]:
    """A measure: how far an ablated head moves the predictions on some tokens."""
    tokens = rows(CONFIG, 5)[:1]
    made = [wb.run(model, tokens, [wb.AblateHead(cell["layer"], cell["head"])]) for cell in cells]
    return [float(run.kl.mean()) for run in made if run.kl is not None]


def _same(x: Tensor, hook: object) -> None:
    return None


def _first(logits: Tensor) -> Tensor:
    return logits[:, 3] - logits[:, 4]
