"""`workbench synth` writes a checkpoint of random weights, to try hardware before a download."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

FORMS = ("huggingface-mxfp4", "openai")


def add(commands: Any) -> None:
    """The options of `workbench synth`."""
    synth = commands.add_parser(
        "synth",
        help="write a full-size checkpoint of random weights, to try your hardware before a download",
        description="Write a checkpoint of random, well-scaled weights with the size and the format of the real one. "
        "It needs little memory. Stopped half-way, the same command goes on where it was.",
    )
    synth.add_argument("shape", metavar="SHAPE", help="20b, 120b or nano")
    synth.add_argument("--out", type=Path, metavar="DIR", required=True, help="the folder to write, new or empty")
    synth.add_argument("--layers", type=count, metavar="N", help="a smaller model: this many layers")
    synth.add_argument("--experts", type=count, metavar="N", help="a smaller model: this many experts in a layer")
    synth.add_argument("--form", choices=FORMS, default=FORMS[0], help="on disk (default: %(default)s)")
    synth.add_argument("--seed", type=int, default=0, help="another seed, other weights (default: %(default)s)")
    synth.set_defaults(run=run)


def count(text: str) -> int:
    """A number of layers or experts from the command line."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of layers or experts; give a whole number from 1 on")


def run(given: argparse.Namespace) -> int:
    """`workbench synth`."""
    from workbench.checkpoints.synth import synthesise
    from workbench.model.config import preset

    config = preset(given.shape)
    n_experts = given.experts or config.n_experts
    config = config.with_(
        n_layers=given.layers or config.n_layers,
        n_experts=n_experts,
        experts_per_token=min(config.experts_per_token, n_experts),
    )
    start = time.monotonic()
    try:
        folder = synthesise(config, given.out, form=given.form, seed=given.seed)
    except KeyboardInterrupt:
        print("workbench: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    print(f"{folder}: {size / 1e9:.2f} GB of random weights in {time.monotonic() - start:.0f} s; see its README.md")
    print(f"try it: python -c \"import workbench as wb; print(wb.load({str(folder)!r})('Hello').shape)\"")
    return 0
