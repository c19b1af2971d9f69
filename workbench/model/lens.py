"""The names that TransformerLens' own tools (ActivationCache, patching, head_detector) ask of a model."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

if TYPE_CHECKING:
    from workbench.model.config import Config


class LensMethods:
    """Weights stacked over layers and TransformerLens' helper methods, all as views of the parameters where
    they can be.

    The experts' weights are not among them: TransformerLens would broadcast ``mlp.W_out`` of three dims to nonsense.
    """

    config: Config
    embed: nn.Embedding
    unembed: Any
    ln_final: Any
    blocks: Any
    to_single_token: Callable[[str], int]

    @property
    def cfg(self) -> SimpleNamespace:
        """TransformerLens' config, derived from ours and from where the weights are now."""
        c, weight = self.config, self.embed.weight
        return SimpleNamespace(
            model_name=c.name, n_layers=c.n_layers, n_heads=c.n_heads, n_key_value_heads=c.n_key_value_heads,
            d_model=c.d_model, d_head=c.d_head, d_mlp=c.d_mlp, d_vocab=c.d_vocab, d_vocab_out=c.d_vocab, n_ctx=c.n_ctx,
            num_experts=c.n_experts, experts_per_token=c.experts_per_token, eps=c.rms_eps, dtype=weight.dtype,
            device=weight.device, attn_only=False, normalization_type="RMS", final_rms=True, parallel_attn_mlp=False,
            positional_embedding_type="rotary", use_attn_result=True, use_split_qkv_input=False, use_attn_in=False,
            use_hook_mlp_in=False, default_prepend_bos=False, act_fn="swiglu", gated_mlp=True, seed=None,
            original_architecture="GptOssForCausalLM", window_size=c.sliding_window, output_logits_soft_cap=-1.0,
        )  # fmt: skip

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        return self.embed.weight

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        return self.unembed.weight.T

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        return torch.zeros(self.config.d_vocab, dtype=self.unembed.weight.dtype, device=self.unembed.weight.device)

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        return self._stacked("W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layer kv_head d_model d_head"]:
        return self._stacked("W_K")

    @property
    def W_V(self) -> Float[Tensor, "layer kv_head d_model d_head"]:
        return self._stacked("W_V")

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        return self._stacked("W_O")

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        return self._stacked("b_Q")

    @property
    def b_K(self) -> Float[Tensor, "layer kv_head d_head"]:
        return self._stacked("b_K")

    @property
    def b_V(self) -> Float[Tensor, "layer kv_head d_head"]:
        return self._stacked("b_V")

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        return self._stacked("b_O")

    def _stacked(self, name: str) -> Tensor:
        return torch.stack([getattr(block.attn, name).to(self.embed.weight.device) for block in self.blocks])

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """Sum of the attention output biases b_O before ``layer`` (of ``layer`` too with ``mlp_input``).

        The experts' b_down depends on the route, so it belongs to the experts' contribution and is never in here; b_V
        passes through patterns that do not sum to 1, so it is never folded into b_O.
        """
        total = torch.zeros(self.config.d_model, dtype=self.embed.weight.dtype, device=self.embed.weight.device)
        for block in self.blocks[: layer + 1 if mlp_input else layer]:
            total = total + block.attn.b_O.to(total.device)
        return total

    def tokens_to_residual_directions(self, tokens: str | int | Int[Tensor, ...]) -> Float[Tensor, "... d_model"]:
        """The direction whose dot product with the normalised residual stream is the token's logit: γ ⊙ W_U[:, token].

        γ is the final norm's gain, which is not folded into W_U. Text must be a single token.
        """
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        tokens = torch.as_tensor(tokens, device=self.unembed.weight.device)
        if tokens.ndim and tokens.numel() == 1:
            tokens = tokens.reshape(())
        directions = self.unembed.weight[tokens] * self.ln_final.w.to(self.unembed.weight)
        return directions.to(self.embed.weight.device)

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Nothing to switch: hook_result exists always and costs nothing until somebody listens."""

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Refused: TransformerLens' direct path patching asks for hook_q_input, one stream a head before the norm.

        Raises:
            NotImplementedError: if switched on; the message says how to patch one path here.
        """
        if use_split_qkv_input:
            raise NotImplementedError(
                "this model has no hook_q_input (a copy of the residual stream for each head, before the norm), so "
                "TransformerLens' get_act_patch_direct_path cannot run on it. To patch the path into one head, edit "
                "blocks.N.attn.hook_q at that head: put blocks[N].ln1(resid_pre + change) @ W_Q[head] + b_Q[head] there"
            )
