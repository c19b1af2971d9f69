"""``python -m workbench.training --out data/nano --seed 0`` makes nano from nothing, measures it, writes its card."""

import argparse
import platform
import time
from pathlib import Path

import torch

from workbench.checkpoints import load

from .build import Made, build, read_tokenizer, tell
from .card import write_card
from .scorecard import score
from .trainer import Recipe


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m workbench.training", description=__doc__)
    p.add_argument("--out", type=Path, required=True, help="folder to write the model into")
    p.add_argument("--seed", type=int, default=0, help="of the weights and the text (default: 0)")
    p.add_argument("--steps", type=int, default=Recipe.steps, help=f"training steps (default: {Recipe.steps})")
    p.add_argument("--minutes", type=float, help="stop early after so many minutes of training")
    p.add_argument("--threads", type=int, default=2, help="of torch; part of what makes a run repeatable (default: 2)")
    p.add_argument("--every", type=int, default=500, help="steps between checkpoints and interim scores (default: 500)")
    p.add_argument("--checkpoint", type=Path, help="resumable state (default: OUT with .training.pt after it)")
    p.add_argument("--card-only", action="store_true", help="measure the model that is in OUT and write its card anew")
    return p


def main() -> None:
    """Train, store, measure."""
    arguments = parser().parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.card_only:
        checkpoint = arguments.checkpoint or arguments.out.with_name(arguments.out.name + ".training.pt")
        recipe = Recipe(seed=arguments.seed, steps=arguments.steps)
        build(arguments.out, recipe, checkpoint, arguments.minutes, arguments.every)
    began = time.monotonic()
    scores = score(load(arguments.out, dtype=torch.float32), read_tokenizer(arguments.out))
    write_card(arguments.out / "card.md", scores, tell(Made.read(arguments.out)))
    print(f"{arguments.out / 'card.md'} written after {time.monotonic() - began:.0f} s on {platform.machine()}")


if __name__ == "__main__":
    main()
