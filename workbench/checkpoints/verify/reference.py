"""transformers' own modules with a checkpoint's weights, one layer at a time.

Nothing of ours is used to get there: tensors are read by the safetensors package, the config by transformers, and MXFP4
is unpacked by transformers' ``convert_moe_packed_tensors``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Stream = Float[Tensor, "batch pos d_model"]


class NoReference(RuntimeError):
    """transformers is not installed."""


def require() -> str:
    """The version of transformers.

    Raises:
        NoReference: if it is not there; the message says what to install.
    """
    try:
        import transformers
        import transformers.models.gpt_oss.modeling_gpt_oss  # an old one has no gpt-oss
    except ImportError as error:
        raise NoReference(
            "verify compares with transformers (5.9 or newer), which cannot be imported here "
            f"({error}). Run: pip install 'gpt-oss-workbench[verify]'"
        ) from error
    return str(transformers.__version__)


@dataclass(frozen=True)
class LayerOutputs:
    """What one layer gives. ``router``, ``routes`` and ``mlp`` are for the stream ``mid``, the others for ``pre``."""

    attention: Stream
    router: Float[Tensor, "token expert"]
    routes: Int[Tensor, "token slot"]
    mlp: Stream
    block: Stream
    block_routes: Int[Tensor, "token slot"]


class Reference:
    """transformers' gpt-oss over a checkpoint folder.

    Args:
        directory: a folder in a Hugging Face form, MXFP4 or dense.
        dtype: of weights and activations; norm gains stay as they are stored.
        device: where the modules compute.
    """

    def __init__(self, directory: Path, dtype: torch.dtype, device: torch.device) -> None:
        from transformers import GptOssConfig

        self.directory, self.dtype, self.device = directory, dtype, device
        self.config: Any = GptOssConfig.from_pretrained(directory)
        # The readable implementations, which make no assumption about the machine.
        self.config._attn_implementation = self.config._experts_implementation = "eager"
        self._file_of = _files(directory)

    def read(self, name: str) -> Tensor:
        """A stored tensor."""
        from safetensors import safe_open

        with safe_open(self._file_of[name], framework="pt", device="cpu") as file:
            return file.get_tensor(name)

    def weight(self, name: str) -> Tensor:
        """A parameter under transformers' name: a stored tensor in our dtype, unpacked if it is stored packed."""
        if name not in self._file_of:
            return self._unpacked(name)
        stored = self.read(name)
        dtype = torch.float32 if name.endswith("norm.weight") else self.dtype
        return stored.to(device=self.device, dtype=dtype)

    def _unpacked(self, name: str) -> Tensor:
        from transformers.integrations.mxfp4 import convert_moe_packed_tensors

        blocks, scales = self.read(f"{name}_blocks"), self.read(f"{name}_scales")
        n_experts, d_out, groups, _ = blocks.shape
        out = torch.empty(n_experts, groups * 32, d_out, dtype=self.dtype, device=self.device)
        for expert in range(n_experts):  # all at once would need as much memory again, twice
            out[expert] = convert_moe_packed_tensors(
                blocks[expert, None], scales[expert, None], dtype=self.dtype, rows_per_chunk=1 << 15
            )[0]
        return out

    def layer(self, index: int) -> nn.Module:
        """A GptOssDecoderLayer with its weights."""
        from transformers.models.gpt_oss.modeling_gpt_oss import GptOssDecoderLayer

        return self._filled(lambda: GptOssDecoderLayer(self.config, index), f"model.layers.{index}.")

    def norm(self) -> nn.Module:
        """The final GptOssRMSNorm."""
        from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRMSNorm

        size, eps = self.config.hidden_size, self.config.rms_norm_eps
        return self._filled(lambda: GptOssRMSNorm(size, eps), "model.norm.")

    def embedding(self) -> nn.Module:
        """The nn.Embedding that GptOssModel has."""
        size = (self.config.vocab_size, self.config.hidden_size)
        return self._filled(lambda: nn.Embedding(*size), "model.embed_tokens.")

    def head(self) -> nn.Module:
        """The nn.Linear that GptOssForCausalLM has."""
        size = (self.config.hidden_size, self.config.vocab_size)
        return self._filled(lambda: nn.Linear(*size, bias=False), "lm_head.")

    def _filled(self, make: Callable[[], nn.Module], prefix: str) -> nn.Module:
        with torch.device("meta"):
            module = make()
        state = {name: self.weight(prefix + name) for name in module.state_dict()}
        module.load_state_dict(state, assign=True)
        return module.eval().requires_grad_(False)

    @torch.no_grad()
    def run(self, layer: nn.Module, pre: Stream, mid: Stream) -> LayerOutputs:
        """One layer: attention and the whole block on the stream ``pre``, router and experts on ``mid``."""
        parts: Any = layer
        turns, mask = self._turns(pre), self._mask(parts.self_attn.layer_type, pre)
        attention, _ = parts.self_attn(parts.input_layernorm(pre), position_embeddings=turns, attention_mask=mask)
        seen: list[Any] = []
        hook = parts.mlp.router.register_forward_hook(lambda module, given, result: seen.append(result))
        try:
            mlp, _ = parts.mlp(parts.post_attention_layernorm(mid))
            block = parts(pre, attention_mask=mask, position_embeddings=turns)
        finally:
            hook.remove()
        (router, _, routes), (_, _, block_routes) = seen
        return LayerOutputs(attention, router, routes, mlp, block, block_routes)

    def _turns(self, stream: Stream) -> Any:
        from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRotaryEmbedding

        rotary = GptOssRotaryEmbedding(self.config).to(stream.device)
        return rotary(stream, torch.arange(stream.shape[1], device=stream.device)[None])

    def _mask(self, layer_type: str, stream: Stream) -> Any:
        from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

        make = {"full_attention": create_causal_mask, "sliding_attention": create_sliding_window_causal_mask}
        return make[layer_type](config=self.config, inputs_embeds=stream, attention_mask=None, past_key_values=None)


def _files(directory: Path) -> dict[str, Path]:
    """Stored tensor → its file."""
    from safetensors import safe_open

    index = directory / "model.safetensors.index.json"
    if index.is_file():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: directory / file for name, file in names.items()}
    found: dict[str, Path] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt", device="cpu") as file:
            found |= dict.fromkeys(file.keys(), path)
    return found
