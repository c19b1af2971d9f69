"""From a recipe to a folder: tokenizer, trained weights, and a note of how they were made."""

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer as Backend

from workbench.checkpoints import save_pretrained
from workbench.model import NANO, Config, HookedGptOss, fresh_weights
from workbench.text import Tokenizer

from .bpe import save_tokenizer, train_tokenizer
from .evaluate import accuracies
from .trainer import Recipe, Trainer

NOTE = "training.json"
TEMPLATE = "chat_template.jinja"
OWN_TEMPLATE = Path(__file__).parents[2] / "data" / "nano" / TEMPLATE
INITIAL_STD = 0.05


@dataclass(frozen=True)
class Made:
    """How a model was made. ``minutes`` is the time that training took, all its parts if it was resumed."""

    recipe: Recipe
    steps: int
    minutes: float
    threads: int
    parameters: int

    def write(self, folder: Path) -> None:
        """Keep it beside the model."""
        (folder / NOTE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8", newline="\n")

    @classmethod
    def read(cls, folder: Path) -> "Made":
        """What :meth:`write` kept."""
        kept = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        return cls(**kept | {"recipe": Recipe(**kept["recipe"])})


def tell(made: Made) -> str:
    """The recipe as text for the card."""
    r = made.recipe
    size = f"{made.steps * r.rows * r.length / 1e6:.1f}"
    rate = f"{r.learning_rate:g} (warm-up {r.warm_up} steps, then a cosine)"
    return f"""Made with seed {r.seed}: {made.parameters:,} parameters, {made.steps:,} steps of {r.rows} × {r.length}
tokens ({size} million) in {made.minutes:.0f} minutes on {made.threads} threads of a CPU. AdamW, learning rate {rate},
weight decay {r.weight_decay:g}, load-balancing loss × {r.balance:g} over each batch."""


def read_tokenizer(folder: Path) -> Backend:
    """The bare tokenizer in a folder."""
    return Backend.from_file(str(folder / "tokenizer.json"))


def build(out: Path, recipe: Recipe, checkpoint: Path, minutes: float | None = None, every: int = 500) -> None:
    """Train nano into ``out``; ``checkpoint`` makes a killed run resume, and is removed at the end."""
    save_tokenizer(train_tokenizer(recipe.seed), out, NANO.n_ctx)
    if not (out / TEMPLATE).exists() and OWN_TEMPLATE.exists():
        shutil.copy(OWN_TEMPLATE, out / TEMPLATE)
    model = start(recipe.seed, Tokenizer.from_directory(out))
    trainer = Trainer(model, NANO, read_tokenizer(out), recipe, checkpoint)
    trainer.run(minutes=minutes, every=every, report=report)
    store(model, out)
    Made(recipe, trainer.step, trainer.seconds / 60, torch.get_num_threads(), NANO.n_params).write(out)
    checkpoint.unlink(missing_ok=True)


def start(seed: int, tokenizer: Tokenizer | None = None, config: Config = NANO) -> HookedGptOss:
    """Fresh weights. The unembedding starts as the embedding (and then goes its own way), so that to copy a token, also
    one that only random repeats hold, is nearly the identity from the start."""
    model = fresh_weights(HookedGptOss(config, tokenizer, dtype=torch.float32), seed, INITIAL_STD)
    with torch.no_grad():
        model.unembed.weight.copy_(model.embed.weight)
    return model


def report(trainer: Trainer, seed: int = 7, count: int = 48) -> None:
    """Print how well each task is answered so far, on data of neither the training nor the card."""
    with torch.no_grad():
        found = accuracies(trainer.logits, trainer.encoder.tokenizer, seed, count)
    line = ", ".join(f"{task} {value:.2f}" for task, value in found.items())
    print(f"\nstep {trainer.step}, {trainer.seconds / 60:.1f} min: {line}", flush=True)


@torch.no_grad()
def store(model: HookedGptOss, out: Path) -> None:
    """Round the weights to bfloat16 and write them in Hugging Face form; config.json says float32, to compute in."""
    for parameter in model.parameters():
        parameter.copy_(parameter.to(torch.bfloat16))
    with tempfile.TemporaryDirectory(dir=out) as parent:
        # Into a folder of its own, since ``out`` holds the card too, which is no part of a checkpoint.
        folder = save_pretrained(model, Path(parent) / "model", dtype=torch.bfloat16)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text = json.dumps(config | {"dtype": "float32"}, indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8", newline="\n")
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors writes for the owner alone
            file.replace(out / file.name)
