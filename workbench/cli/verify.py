"""`workbench verify` compares a checkpoint with transformers, layer by layer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.checkpoints import Certificate


def add(commands: Any) -> None:
    """The options of `workbench verify`."""
    verify = commands.add_parser("verify", help="compare a checkpoint with transformers, layer by layer")
    verify.add_argument("path", metavar="PATH", help="a folder in a Hugging Face form, a hub id, or: nano")
    verify.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: the checkpoint's own")
    verify.add_argument("--device", metavar="DEVICE", help="where both compute, as in cuda:0 (default: the CPU)")
    verify.add_argument("--experts", choices=("auto", "packed", "dense"), default="auto", help="how ours are held")
    verify.add_argument("--out", type=Path, metavar="FILE", help="the certificate (default: in the user's cache)")
    verify.add_argument("--quiet", action="store_true", help="no progress bar")
    verify.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """`workbench verify`: 0 if it agrees, 1 if it differs."""
    from workbench.checkpoints import verify
    from workbench.checkpoints.verify.certificate import standard_file
    from workbench.checkpoints.verify.reference import NoReference

    options = {"dtype": given.dtype, "device": given.device, "experts": given.experts}
    try:
        found = verify(given.path, out=given.out, progress=not given.quiet, **options)
    except NoReference as error:
        raise ValueError(error) from error
    for line in report(found):
        print(line)
    print(f"certificate: {given.out or standard_file(found.model['fingerprint'])}")
    return 0 if found.agrees else 1


def report(found: Certificate) -> list[str]:
    """What was compared and found, a line a layer."""
    model, engine = found.model, found.engine
    lines = [
        f"{model['name']} {model['fingerprint']}: {found.tokens['count']} tokens in {found.dtype}, "
        + ", ".join(f"{key} {value}" for key, value in engine.items()),
        f"bounds: {found.bounds}",
        "layer  attention    router       mlp     block   (relative rms)   routes agreed",
    ]
    for layer in found.layers:
        errors = (layer.attention, layer.router, layer.mlp, layer.block)
        shown = "".join(f"{error.rms:10.1e}" for error in errors)
        wrong = "" if not layer.reasons else "   DIFFERS"
        lines.append(f"{layer.layer:5d}{shown}{layer.routes_agreed:33.2%}{wrong}")
    lines.append(f"embedding {found.ends.embedding.rms:.1e}, logits {found.ends.logits.rms:.1e}")
    lines += [f"  {reason}" for reason in found.reasons]
    lines.append(f"{found.verdict}, in {found.seconds:g} s")
    return lines
