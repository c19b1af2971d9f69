"""Everything with a seed, done once: a digest of the very bits of each.

``python -m tests.robust.digests FOLDER THREADS [twice]`` prints one line of JSON, name → digest; with "twice" a second
one for the same work in the same process. FOLDER is written to.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import workbench as wb
from tests.robust.works import CONFIG, EDITS, HEADS, dictionary, divergence, small
from tests.training.small import SMALL as TRAINED
from workbench import prompts
from workbench.checkpoints.synth import synthesise
from workbench.dictionaries import ablate, attached
from workbench.experiments import (
    ablation_sweep,
    attribution_patching,
    bootstrap,
    difference_of_means,
    integrated_gradients,
    max_t,
    patching_grid,
    probe,
    train_tuned_lens,
)
from workbench.experiments.directions.steering import SteeringVector
from workbench.experiments.lenses.tuned_lens import TunedLens
from workbench.model import HookedGptOss, random_weights
from workbench.model.engines import native, use
from workbench.model.fingerprint import fingerprint
from workbench.sweeps import sweep
from workbench.training.build import read_tokenizer, start
from workbench.training.trainer import Recipe, Trainer

NANO = Path(__file__).resolve().parents[2] / "data" / "nano"
CHANGING = {"time", "record"}  # of the attributes: when it was, and the id of its record


def digest(value: Any) -> str:
    """Of the very bits."""
    return hashlib.sha256(b"".join(_parts(value))).hexdigest()[:16]


def _parts(value: Any) -> list[bytes]:
    if isinstance(value, Tensor):
        value = value.detach().contiguous().view(-1).view(torch.uint8).numpy()
    if isinstance(value, np.ndarray):
        numbers = value.dtype != object
        return [str(value.dtype).encode(), np.ascontiguousarray(value).tobytes() if numbers else repr(value).encode()]
    if isinstance(value, xr.Dataset | xr.DataArray):
        named = {**value.variables} if isinstance(value, xr.Dataset) else {"it": value, **value.coords}
        attrs = {name: found for name, found in value.attrs.items() if name not in CHANGING}
        return [*_parts({str(name): part.values for name, part in named.items()}), repr(attrs).encode()]
    if isinstance(value, Mapping):  # in its own order: that must be the same as well
        return [piece for name, part in value.items() for piece in (str(name).encode(), *_parts(part))]
    if isinstance(value, list | tuple):
        return [piece for part in value for piece in _parts(part)]
    if isinstance(value, Path):
        return [piece for file in sorted(value.rglob("*")) if file.is_file() for piece in _file(file, value)]
    return [repr(value).encode()]


def _file(file: Path, folder: Path) -> list[bytes]:
    return [str(file.relative_to(folder)).encode(), file.read_bytes()]


def works(folder: Path) -> dict[str, Callable[[], Any]]:
    """By name: everything with a seed, and the runs that it stands on."""
    model, tokens = small(folder / "small")
    nano = wb.load("nano")
    clean, run = wb.run(model, tokens.flip(1)), wb.run(model, tokens)
    quick: dict[str, Any] = {"progress": False}
    pairs = prompts.pairs(nano, "indirect object", n=4)
    texts = [pair.clean for pair in pairs] + [pair.corrupt for pair in pairs]
    many = np.random.default_rng(0).standard_normal((12, 5))

    def edited() -> Any:
        made = wb.run(model, tokens, EDITS, sources={"clean": clean}, sites="all")
        return made.logits, made.kl, made.flipped_routes, dict(made.cache.cache_dict)

    def packed(engine: str) -> Callable[[], Any]:
        def run() -> Any:
            with use(engine):
                return held(torch.arange(9)[None], return_type="logits")

        return run

    def on_features() -> Any:
        with attached(model, dictionary(), ops={3: ablate()}) as on:
            return model(tokens), on.features

    def training() -> Any:
        recipe = Recipe(steps=6, rows=2, length=64, warm_up=2)
        trainer = Trainer(start(0, config=TRAINED), TRAINED, read_tokenizer(NANO), recipe, None)
        trainer.run(until=3, progress=False)
        return dict(trainer.parameters)

    def synthesised() -> Any:
        target = folder / f"synth-{len(list(folder.iterdir()))}"
        return synthesise(replace(wb.preset("20b"), **TINY), target, seed=1) / "model.safetensors.index.json", target

    held = wb.load(synthesise(replace(wb.preset("20b"), **TINY), folder / "held", seed=2), dtype="float32")
    engines = ["eager", "native"] if native.available() else ["eager"]
    return {
        "a model's random weights": lambda: dict(random_weights(HookedGptOss(CONFIG), 7).state_dict()),
        "a fingerprint": lambda: fingerprint(nano),
        "wb.run": edited,
        "nano's logits": lambda: nano(texts[0]),
        "a text, drawn": lambda: nano.generate(texts[0], 12, temperature=1.0, top_p=0.9, seed=4).finish().tokens,
        "prompts.pairs": lambda: [prompts.pairs(nano, task, n=3, seed=2) for task in prompts.tasks()],
        "ablation_sweep with controls": lambda: ablation_sweep(
            model, [tokens], _first, [wb.AblateHead(0, 1), wb.AblateExpert(1, 2, "zero")], controls=3, seed=5, **quick
        ),
        "patching_grid": lambda: patching_grid(model, clean, run, (3, 4), ("attn_out",), **quick),
        "attribution_patching": lambda: attribution_patching(model, clean, run, (3, 4)),
        "integrated_gradients": lambda: integrated_gradients(model, clean, run, (3, 4), ("mlp_out",), steps=3, **quick),
        "bootstrap": lambda: bootstrap(many, n=500, seed=3),
        "permutations": lambda: max_t(many, n=500, seed=3),
        "probe": lambda: probe(nano, texts, [1] * 4 + [0] * 4, layers=[1], folds=2, shuffles=2, seed=1, **quick),
        "a steering vector": lambda: _vector(difference_of_means(nano, texts[:4], texts[4:], RESID, **quick)),
        "train_tuned_lens": lambda: _lens(train_tuned_lens(model, [tokens], steps=6, tokens_per_step=4, **quick)),
        "a dictionary": on_features,
        "a sweep": lambda: sweep(divergence, HEADS, model=model, progress=False).to_xarray(),
        "a journal's study": lambda: _study(model, folder),
        "training": training,
        "synth": synthesised,
        **{f"packed experts, {engine}": packed(engine) for engine in engines},
    }


TINY = {"n_layers": 1, "n_experts": 4, "d_model": 64, "d_mlp": 64, "n_heads": 2, "n_key_value_heads": 1, "d_head": 32,
        "d_vocab": 512, "layer_types": ("sliding_attention",)}  # fmt: skip


RESID = "blocks.2.hook_resid_post"


def _vector(made: SteeringVector) -> list[Any]:
    return [made.vector, made.shuffled]


def _lens(made: TunedLens) -> list[Any]:
    return [made.change, made.bias, made.losses]


def _first(logits: Tensor) -> Tensor:
    return logits[:, 3] - logits[:, 4]


def _study(model: HookedGptOss, folder: Path) -> list[str]:
    """The key under which a journal keeps the cells: another process must find it."""
    place = folder / f"journal-{len(list(folder.iterdir()))}"
    sweep(divergence, HEADS, model=model, journal=place, progress=False)
    return sorted(each.name for each in place.iterdir())


def _lists(made: dict[str, Any]) -> dict[str, str]:
    return {name: digest(work()) for name, work in made.items()}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    chosen = works(Path(sys.argv[1]))
    print(json.dumps(_lists(chosen)))
    if sys.argv[3:] == ["twice"]:
        print(json.dumps(_lists(chosen)))
