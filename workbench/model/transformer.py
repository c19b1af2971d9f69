"""The whole model: embedding, blocks, final norm, unembedding, on TransformerLens' hooks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens import ActivationCache, HookedRootModule
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.slice import Slice

from workbench.model.attention import Attention
from workbench.model.config import Config
from workbench.model.engines import linear
from workbench.model.generate import Generation
from workbench.model.interrupts import Hooked, finish_first
from workbench.model.lens import LensMethods
from workbench.model.memory import check_call
from workbench.model.moe import ExpertsForm, MoE
from workbench.model.norm import RMSNorm
from workbench.model.resume import ResumeMethods
from workbench.model.sites import Sites, position_axis
from workbench.model.state import (
    IndexWeights,
    KeyValueCache,
    LayerCache,
    Pass,
    UnderWay,
    begin_pass,
    last_real,
    shown_apart,
)
from workbench.model.text_methods import TextMethods

if TYPE_CHECKING:
    from workbench.text import Tokenizer


@runtime_checkable
class Edit(Protocol):
    """What ``model.edited`` asks of an intervention."""

    def as_hooks(
        self, model: HookedGptOss, sources: Mapping[str, Any], among: Sequence[Any]
    ) -> list[tuple[str | Callable, Callable]]:
        """The hooks that carry it out; ValueError for what the model or the sources do not have."""
        ...


RETURN_TYPES = ("logits", "loss", "both", "logprobs", None)


class Block(nn.Module):
    """resid_mid = resid_pre + attention(norm(resid_pre)); resid_post = resid_mid + experts(norm(resid_mid))."""

    # TransformerLens asks this before it sums components.
    hook_out_is_single_residual_stream = True

    def __init__(
        self,
        config: Config,
        layer: int,
        dtype: torch.dtype,
        device: torch.device | str | None = None,
        experts: ExpertsForm = "dense",
    ) -> None:
        super().__init__()
        self.ln1 = RMSNorm(config.d_model, config.rms_eps, device)
        self.attn = Attention(config, layer, dtype, device)
        self.ln2 = RMSNorm(config.d_model, config.rms_eps, device)
        self.mlp = MoE(config, dtype, device, experts)
        self.hook_resid_pre, self.hook_resid_mid, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_out, self.hook_mlp_out = HookPoint(), HookPoint()

    def forward(
        self, resid: Float[Tensor, "batch pos d_model"], this: Pass, start: int = 0
    ) -> Float[Tensor, "batch rest d_model"]:
        """The stream that the layer leaves; with ``start``, where no site is listened to, from that query on alone."""
        if start:
            _, keys, values = self.attn.queries_keys_values(self.ln1(resid), this)
            resid, this = resid[:, start:], this.without_first_queries(start, self.attn.layer, keys, values)
        resid_pre = shown_apart(self.hook_resid_pre, resid)
        resid_mid = self.hook_resid_mid(resid_pre + self.hook_attn_out(self.attn(self.ln1(resid_pre), this)))
        return self.hook_resid_post(resid_mid + self.hook_mlp_out(self.mlp(self.ln2(resid_mid), this)))


class Unembed(nn.Module):
    """Residual stream → logits; no bias."""

    def __init__(self, config: Config, dtype: torch.dtype, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.d_vocab, config.d_model, dtype=dtype, device=device))

    def forward(self, x: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead d_vocab"]:
        return linear(x, self.weight)


class HookedGptOss(LensMethods, TextMethods, ResumeMethods, HookedRootModule):
    """gpt-oss with a hook at every site.

    ``model.sites`` lists the sites; ``run_with_cache``, ``run_with_hooks``, ``hooks`` and ``add_hook`` are
    TransformerLens' own. A run holds the model's lock while its hooks are on, so threads never see each other's edits.

    Args:
        config: the shape.
        tokenizer: what the text methods use; without one they raise and say what to pass.
        dtype: of the weights and the stream (norm gains stay float32); the config's if None.
        device: where the weights live.
        experts: "dense", or "packed" to hold their matrices in MXFP4 (``wb.load`` does that by itself where the
            checkpoint has them packed).
    """

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        experts: ExpertsForm = "dense",
    ) -> None:
        super().__init__()
        dtype = getattr(torch, config.dtype) if dtype is None else dtype
        assert isinstance(dtype, torch.dtype)
        self.config, self.tokenizer = config, tokenizer
        self.loaded_by: str | None = None  # the Python that loads it again, of a model from a checkpoint
        self.recipe: Any = None  # … and the same as data, for another process
        # Zeros, as everywhere: a normal draw on the meta device, to be thrown away, costs a second of imports.
        zeros = torch.zeros(config.d_vocab, config.d_model, dtype=dtype, device=device)
        self.embed = nn.Embedding(config.d_vocab, config.d_model, _weight=zeros)
        self.hook_embed = HookPoint()
        self.blocks = nn.ModuleList(Block(config, layer, dtype, device, experts) for layer in range(config.n_layers))
        self.ln_final = RMSNorm(config.d_model, config.rms_eps, device)
        self.unembed = Unembed(config, dtype, device)
        self.sites = Sites(config.n_layers)
        self._under_way = UnderWay()
        self._lock = threading.RLock()
        self.setup()
        self.eval()

    def forward(
        self,
        input: Any,
        return_type: str | None = "logits",
        attention_mask: Bool[Tensor, "batch pos"] | Int[Tensor, "batch pos"] | None = None,
        past_kv_cache: KeyValueCache | None = None,
        loss_per_token: bool = False,
        index_weights: IndexWeights = "keep",
        logits_at: Literal["all", "last"] = "all",
    ) -> Any:
        """Run the model.

        Args:
            input: tokens [batch pos] or [pos], or text, or a Chat, or several texts (padded right, with their mask).
            return_type: "logits" [batch pos d_vocab]; "loss", mean next-token cross-entropy in nats over real tokens;
                "both"; "logprobs" [batch pos d_vocab]; None runs the blocks only.
            attention_mask: [batch pos], true (or 1) for real tokens. Padding may stand left or right.
            past_kv_cache: from :meth:`new_cache`; the tokens are taken as following those in it, and it is extended.
            loss_per_token: "loss" as [batch pos−1], 0 where the target is padding.
            index_weights: what an edit of hook_expert_indices means for the weights: "keep" what stood in the slot, or
                "recompute" them from the new experts' logits.
            logits_at: "last" unembeds each row's last real token only, [batch 1 d_vocab]: at the real size the logits
                of a long prompt cost as much as ten layers. Every site still holds every position.

        Raises:
            ValueError: for tokens out of range or of the wrong shape, an unknown return_type, a mask that does not fit.
        """
        if return_type not in RETURN_TYPES:
            raise ValueError(f"return_type={return_type!r}: expected one of {RETURN_TYPES}")
        if index_weights not in get_args(IndexWeights):
            raise ValueError(f"index_weights={index_weights!r}: expected one of {get_args(IndexWeights)}")
        if logits_at not in ("all", "last") or (logits_at == "last" and return_type in ("loss", "both")):
            expected = "'all'" if logits_at == "last" else "'all' or 'last'"
            raise ValueError(f"logits_at={logits_at!r} with return_type={return_type!r}: expected {expected}")
        tokens, mask = self.as_batch(input, attention_mask)
        before = None if past_kv_cache is None else past_kv_cache.snapshot()
        try:
            with self._lock:
                this = begin_pass((tokens.shape[0], tokens.shape[1]), tokens.device, mask, past_kv_cache, index_weights)
                logits = self._stream(tokens, this, None if return_type is None else logits_at)
            if logits is None or return_type is None:
                return None
            return _returned(return_type, logits, tokens, mask, loss_per_token)
        except BaseException:
            # Half a pass would leave the first layers a token ahead of the others.
            if past_kv_cache is not None and before is not None:
                past_kv_cache.restore(before)
            raise

    @property
    def positions(self) -> Int[Tensor, "batch pos"] | None:
        """Of the tokens of the pass that is under way, for hooks that need to know; real ones are counted only."""
        return None if (now := self._under_way.now) is None else now[0]

    @property
    def first_column(self) -> int | None:
        """Of the pass that is under way: the column of the row that its first token stands in (not 0 after a KV cache,
        or in ``resume``)."""
        return None if (now := self._under_way.now) is None else now[1]

    def _stream(
        self, tokens: Int[Tensor, "batch pos"], this: Pass, logits_at: Literal["all", "last"] | None
    ) -> Float[Tensor, "batch picked d_vocab"] | None:
        at = self._under_way
        before, at.now = at.now, (this.query_positions, this.first_column)
        try:
            resid = self.hook_embed(self.embed(tokens))
            for block in self.blocks:
                resid = block(resid, this)
            if logits_at is None:
                return None
            final = self.ln_final(resid)
            if logits_at == "last":
                final = _last_of(final, this.query_mask)
            # Spread over devices, the last layers may be elsewhere than the tokens.
            return self.unembed(final).to(tokens.device)
        finally:
            at.now = before

    def new_cache(self) -> KeyValueCache:
        """An empty KV cache; sliding layers keep only their window."""
        return KeyValueCache([LayerCache(self.config.window(layer)) for layer in range(self.config.n_layers)])

    def generate(self, input: Any, max_new_tokens: int = 64, **options: Any) -> Generation:
        """Continue the input token by token; see :class:`~workbench.model.generate.Generation` for options.

        ``for step in model.generate("Once upon", max_new_tokens=20): print(step.text, end="")``
        """
        return Generation(self, input, max_new_tokens, **options)

    def run_with_cache(
        self,
        *model_args: Any,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        check_memory: bool = True,
        **kwargs: Any,
    ):
        """Run and keep activations: (what the model returns, ActivationCache). Arguments as in TransformerLens.

        Args:
            check_memory: refuse a run that cannot fit in what is free; False runs it all the same.

        Raises:
            NotEnoughMemory: for a run that cannot fit, before anything runs; it says what would.
            UnknownSite: for a names_filter that names no site or matches none (TransformerLens gives an empty cache).
            ValueError: for remove_batch_dim with several rows.
        """
        if remove_batch_dim and model_args and (rows := self.as_batch(model_args[0])[0].shape[0]) != 1:
            raise ValueError(f"remove_batch_dim=True needs a single row, and there are {rows}; leave it out")
        kwargs["names_filter"] = names = self.sites.select(kwargs.get("names_filter"))
        if check_memory:
            check_call(self, names, model_args, kwargs)
        output, cache = super().run_with_cache(*model_args, remove_batch_dim=remove_batch_dim, **kwargs)
        if not return_cache_object:
            return output, cache
        return output, ActivationCache(cache, self, has_batch_dim=not remove_batch_dim)

    def get_caching_hooks(
        self,
        names_filter: Any = None,
        incl_bwd: bool = False,
        device: Any = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
        pos_slice: Any = None,
    ) -> tuple[dict[str, Tensor], list, list]:
        """Hooks that store activations, as in TransformerLens; each site is sliced along its own position axis."""
        if device is None and hasattr(self, "hf_device_map"):
            device = self.embed.weight.device  # spread over devices: what is compared later must be in one place
        cache = {} if cache is None else cache
        pos_slice = Slice.unwrap(pos_slice)

        def save(tensor: Tensor, hook: HookPoint, suffix: str = "") -> None:
            name, seen = str(hook.name), tensor.detach()
            stored = pos_slice.apply(seen, dim=position_axis(name)).to(device)
            if stored.numel() < seen.numel() and stored._is_view():
                stored = stored.clone()  # a view would keep the positions that nobody asked for
            cache[name + suffix] = stored[0] if remove_batch_dim and stored.shape[0] == 1 else stored

        names = self.sites.select(names_filter)
        forward = [(name, partial(save)) for name in names]
        backward = [(name, partial(save, suffix="_grad")) for name in names if not self.sites[name].is_integer]
        return cache, forward, backward if incl_bwd else []

    def add_caching_hooks(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Put :meth:`get_caching_hooks` on until ``reset_hooks``; the dict returned fills at each run.

        Raises:
            UnknownSite: for a names_filter that names no site or matches none (TransformerLens stays silent).
        """
        cache, forward, backward = self.get_caching_hooks(*args, **kwargs)
        for direction, hooks in (("fwd", forward), ("bwd", backward)):
            for name, hook in hooks:
                self.add_hook(name, hook, dir=direction)
        return cache

    def hooks(
        self,
        fwd_hooks: list[tuple[str | Callable, Callable]] = [],  # noqa: B006  TransformerLens' signature
        bwd_hooks: list[tuple[str | Callable, Callable]] = [],  # noqa: B006
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Hooked[HookedGptOss]:
        """Put hooks on for a while, as in TransformerLens, and hold the model's lock meanwhile.

        They are all off after the block, however it ends, by Ctrl-C too.

        Raises:
            UnknownSite: for a name that is no site, before any hook is on.
        """
        for name, _ in (*fwd_hooks, *bwd_hooks):
            self.sites.select(name)
        return Hooked(self, super().hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts), self._lock)

    def edited(self, interventions: Sequence[Edit], sources: Mapping[str, Any] | None = None) -> Hooked[HookedGptOss]:
        """Carry interventions out in everything that runs in the block: forward passes, generation, experiments.

        ``with model.edited([wb.AblateHead(1, 7)]): model.generate("Once upon", 20).finish()``. Positions are columns
        of the batch, so they hold for the steps of a generation too. A generation runs as it is iterated: its steps
        are edited in the block, and no longer after it.

        Args:
            interventions: carried out in order.
            sources: name → a Run or a vector, for the specs that take something from elsewhere.

        Raises:
            ValueError: for a spec that the model or the sources do not have, before any hook is on.
        """
        given = {} if sources is None else dict(sources)
        return self.hooks([hook for spec in interventions for hook in spec.as_hooks(self, given, interventions)])

    def add_hook(self, name: str | Callable[[str], bool], hook: Callable, *args: Any, **kwargs: Any) -> None:
        """Put a hook on until ``reset_hooks``, as in TransformerLens.

        Raises:
            UnknownSite: for a name that is no site.
        """
        self.sites.select(name)
        put = super().add_hook
        with self._lock:
            finish_first(lambda: put(name, hook, *args, **kwargs))

    def reset_hooks(self, *args: Any, **kwargs: Any) -> None:
        """Take hooks off, as in TransformerLens; waits for a run of another thread, whose hooks it would take too."""
        reset = super().reset_hooks
        with self._lock:
            finish_first(lambda: reset(*args, **kwargs))

    def __getstate__(self) -> dict[str, Any]:
        # A lock can be neither copied nor pickled.
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        c = self.config
        return (
            f"HookedGptOss({c.name}: {c.n_layers} layers, {c.n_heads} heads, {c.n_experts} experts "
            f"top-{c.experts_per_token}, "
            f"d_model {c.d_model}, vocab {c.d_vocab}, {c.n_params:,} parameters, {self.cfg.dtype}, {self.cfg.device})"
        )


def _returned(
    return_type: str, logits: Tensor, tokens: Tensor, mask: Tensor | None, loss_per_token: bool
) -> Tensor | tuple[Tensor, Tensor]:
    if return_type == "logits":
        return logits
    if return_type == "logprobs":
        return at_least_float32(logits).log_softmax(-1)
    loss = next_token_loss(logits, tokens, mask, loss_per_token)
    return loss if return_type == "loss" else (logits, loss)


def _last_of(
    stream: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"] | None
) -> Float[Tensor, "batch 1 d_model"]:
    """Each row at its last real token; a row of padding alone at its last column."""
    if mask is None:
        return stream[:, -1:]
    columns = last_real(mask).to(stream.device)  # −1, of a row of padding alone, is the last column
    return stream[torch.arange(len(mask), device=stream.device), columns][:, None]


def at_least_float32(x: Float[Tensor, "*lead d_vocab"]) -> Float[Tensor, "*lead d_vocab"]:
    """float32 for the half-precision types, unchanged otherwise."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def next_token_loss(
    logits: Float[Tensor, "batch pos d_vocab"],
    tokens: Int[Tensor, "batch pos"],
    mask: Bool[Tensor, "batch pos"] | None = None,
    per_token: bool = False,
) -> Float[Tensor, ""] | Float[Tensor, "batch pos_minus_1"]:
    """Cross-entropy in nats of each token given those before it, over pairs of real tokens.

    Raises:
        ValueError: for the mean over no pair at all (a single token).
    """
    losses = F.cross_entropy(at_least_float32(logits[:, :-1]).transpose(1, 2), tokens[:, 1:], reduction="none")
    real = torch.ones_like(losses) if mask is None else (mask[:, 1:] & mask[:, :-1]).to(losses.dtype)
    losses = losses * real
    if not per_token and not bool(real.any()):
        raise ValueError(f"tokens {tuple(tokens.shape)} hold no two real tokens in a row: nothing to score")
    return losses if per_token else losses.sum() / real.sum()
