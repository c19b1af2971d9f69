"""Make a checkpoint, in a process of its own: ``random PATH DTYPE LAYERS D_MLP`` or ``openai PATH SOURCE``."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import workbench as wb
from tests.bench.common.checkpoints import NANO
from tests.golden.references import OPENAI_LAYER, OPENAI_OUTER, TRANSFORMERS_LAYER, TRANSFORMERS_OUTER
from workbench.model import Config, random_weights


def random(path: str, dtype: str, layers: str, d_mlp: str) -> None:
    """512 wide, 16 experts, top-4; with 8 layers and d_mlp 512: 110 million parameters."""
    config = Config(
        name=f"random-{dtype}",
        n_layers=int(layers),
        d_model=512,
        n_heads=8,
        n_key_value_heads=2,
        d_head=64,
        d_mlp=int(d_mlp),
        n_experts=16,
        experts_per_token=4,
        d_vocab=4096,
        dtype=dtype,
        bos_token_id=None,
        pad_token_id=0,
        eos_token_ids=(1,),
    )
    tokenizer = wb.Tokenizer.from_directory(NANO)  # TransformerBridge asks for one; nobody reads text here
    wb.save_pretrained(random_weights(wb.HookedGptOss(config, tokenizer), seed=0), path)


def openai(path: str, source: str) -> None:
    """transformers' MXFP4 form → OpenAI's: other names, queries, keys and values in one matrix, the same bytes."""
    config = wb.load(source).config
    tensors = _renamed(_Stored(Path(source)), config.n_layers)
    fresh = Path(path + ".partial")
    fresh.mkdir(parents=True, exist_ok=True)
    save_file(tensors, fresh / "model.safetensors")
    (fresh / "config.json").write_text(json.dumps(_openai_config(config)), encoding="utf-8")
    shutil.move(fresh, path)


class _Stored:
    """The tensors of a folder by name."""

    def __init__(self, folder: Path) -> None:
        self._files = {}
        for file in folder.glob("*.safetensors"):
            opened = safe_open(file, "pt")
            self._files |= dict.fromkeys(opened.keys(), opened)

    def __getitem__(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)


def _renamed(stored: _Stored, n_layers: int) -> dict[str, Tensor]:
    tensors = {theirs: stored[TRANSFORMERS_OUTER[ours[0]]] for theirs, ours in OPENAI_OUTER.items()}
    for layer in range(n_layers):
        for theirs, ours in OPENAI_LAYER.items():
            sources = [f"model.layers.{layer}.{TRANSFORMERS_LAYER[name][0]}" for name in ours]
            name = f"block.{layer}.{theirs}"
            if theirs.endswith(("mlp1_weight", "mlp2_weight")):
                for part in ("blocks", "scales"):
                    tensors[f"{name}.{part}"] = stored[f"{sources[0]}_{part}"]
            else:
                tensors[name] = torch.cat([stored[source] for source in sources])
    return tensors


def _openai_config(config: Config) -> dict[str, float]:
    return {
        "num_hidden_layers": config.n_layers,
        "num_experts": config.n_experts,
        "experts_per_token": config.experts_per_token,
        "vocab_size": config.d_vocab,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_mlp,
        "swiglu_limit": config.swiglu_limit,
        "head_dim": config.d_head,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_key_value_heads,
        "sliding_window": config.sliding_window,
        "initial_context_length": config.rope.original_context,
        "rope_theta": config.rope.theta,
        "rope_scaling_factor": config.rope.factor,
        "rope_ntk_alpha": config.rope.beta_slow,
        "rope_ntk_beta": config.rope.beta_fast,
    }


if __name__ == "__main__":
    {"random": random, "openai": openai}[sys.argv[1]](*sys.argv[2:])
