"""Every site of the model: its name, its dims and what it means. One table, from which the model, the docs and
the views read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

RESID = ("batch", "pos", "d_model")
HEADS = ("batch", "pos", "head", "d_head")
KV_HEADS = ("batch", "pos", "kv_head", "d_head")
ATTENTION = ("batch", "head", "query_pos", "key_pos")
SLOT = ("batch", "pos", "slot")
SLOT_MLP = (*SLOT, "d_mlp")

OUTER = {
    "hook_embed": (RESID, "token embedding, the start of the residual stream"),
    "ln_final.hook_scale": (("batch", "pos", "one"), "root mean square of the last residual stream"),
    "ln_final.hook_normalized": (RESID, "last residual stream divided by its scale, before the gain"),
}
BLOCK = {
    "hook_resid_pre": (RESID, "residual stream that the layer reads"),
    "ln1.hook_scale": (("batch", "pos", "one"), "root mean square of resid_pre"),
    "ln1.hook_normalized": (RESID, "resid_pre divided by its scale, before the gain"),
    "attn.hook_q_in": (RESID, "normalised stream as the queries read it"),
    "attn.hook_q": (HEADS, "queries before RoPE"),
    "attn.hook_k_in": (RESID, "normalised stream as the keys read it"),
    "attn.hook_k": (KV_HEADS, "keys before RoPE"),
    "attn.hook_v_in": (RESID, "normalised stream as the values read it"),
    "attn.hook_v": (KV_HEADS, "values"),
    "attn.hook_rot_q": (HEADS, "queries turned to their positions"),
    "attn.hook_rot_k": (KV_HEADS, "keys turned to their positions"),
    "attn.hook_attn_scores": (ATTENTION, "q·k/√d_head, −inf where not visible, without the sink column"),
    "attn.hook_sink_logit": (("batch", "pos", "head"), "the sink's logit as each query meets it; joins the softmax"),
    "attn.hook_sink": (
        ("batch", "pos", "head"),
        "softmax mass that goes to the sink; an edit s → s′ rescales the row's pattern by (1 − s′)/(1 − s)",
    ),
    "attn.hook_pattern": (ATTENTION, "attention over the keys; a row sums to 1 − sink"),
    "attn.hook_z": (HEADS, "pattern-weighted values of each head"),
    "attn.hook_result": (("batch", "pos", "head", "d_model"), "what each head writes, without b_O"),
    "hook_attn_out": (RESID, "what attention adds to the residual stream, b_O included"),
    "hook_resid_mid": (RESID, "residual stream between attention and experts"),
    "ln2.hook_scale": (("batch", "pos", "one"), "root mean square of resid_mid"),
    "ln2.hook_normalized": (RESID, "resid_mid divided by its scale, before the gain"),
    "mlp.hook_router_in": (RESID, "normalised stream as the router reads it"),
    "mlp.hook_router_logits": (("batch", "pos", "expert"), "router logits before top-k; an edit re-routes"),
    "mlp.hook_expert_indices": (
        SLOT,
        "expert in each slot, strongest first; an edit re-routes, and keeps the slot's weight unless the run says "
        "index_weights='recompute'",
    ),
    "mlp.hook_expert_weights": (SLOT, "softmax over the chosen experts' logits; sums to 1"),
    "mlp.hook_expert_in": (RESID, "normalised stream as the experts read it"),
    "mlp.hook_expert_gate": (SLOT_MLP, "gate projection before its clamp"),
    "mlp.hook_expert_up": (SLOT_MLP, "up projection before its clamp"),
    "mlp.hook_expert_act": (SLOT_MLP, "(up + 1)·gate·σ(α·gate), which the down projection reads"),
    "mlp.hook_expert_out": (
        ("batch", "pos", "slot", "d_model"),
        "what the expert writes, b_down included, before its weight",
    ),
    "hook_mlp_out": (RESID, "what the experts add to the residual stream"),
    "hook_resid_post": (RESID, "residual stream that the layer leaves"),
}

# What the views and the small experiments read. hook_result and the expert projections are large: ask for them.
STANDARD_SITES = (
    "hook_embed",
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
    "hook_scale",
    "hook_pattern",
    "hook_sink",
    "hook_z",
    "hook_router_logits",
    "hook_expert_indices",
    "hook_expert_weights",
)

# Sites whose position axis is third from last; everywhere else it is the second from last (of a pattern, the query's).
_POS_THIRD_FROM_LAST = {
    name.rsplit(".", 1)[-1] for name, (dims, _) in BLOCK.items() if len(dims) == 4 and dims[1] == "pos"
}


@dataclass(frozen=True)
class Site:
    """One place where the model can be read and edited."""

    name: str
    dims: tuple[str, ...]
    meaning: str
    layer: int | None

    @property
    def is_integer(self) -> bool:
        """Whether it holds expert numbers, which have no gradient."""
        return self.name.endswith("hook_expert_indices")


class UnknownSite(KeyError):
    """A site that the model does not have; the message names the closest one."""

    def __str__(self) -> str:
        return str(self.args[0])


class Sites(Mapping[str, Site]):
    """All sites of a model by name, in the order in which they fire.

    ``sites["blocks.0.attn.hook_pattern"]`` gives one; ``sites.match("pattern")`` those whose name contains a text;
    ``sites.select(filter)`` those that a TransformerLens names_filter means.

    >>> model.sites["blocks.0.attn.hook_pattern"].dims
    ('batch', 'head', 'query_pos', 'key_pos')
    >>> len(model.sites.match("hook_pattern"))
    4
    """

    def __init__(self, n_layers: int) -> None:
        block = [
            Site(f"blocks.{layer}.{name}", dims, meaning, layer)
            for layer in range(n_layers)
            for name, (dims, meaning) in BLOCK.items()
        ]
        outer = [Site(name, dims, meaning, None) for name, (dims, meaning) in OUTER.items()]
        self._sites = {site.name: site for site in (outer[0], *block, *outer[1:])}

    def __getitem__(self, name: str) -> Site:
        if name not in self._sites:
            raise UnknownSite(self._unknown(name))
        return self._sites[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def __repr__(self) -> str:
        width = max(map(len, self._sites))
        return "\n".join(f"{s.name:{width}}  {' '.join(s.dims):28}  {s.meaning}" for s in self._sites.values())

    def match(self, text: str) -> list[str]:
        """Names that contain the text."""
        return [name for name in self._sites if text in name]

    def select(
        self, names_filter: str | list[str] | tuple[str, ...] | set[str] | Callable[[str], bool] | None
    ) -> list[str]:
        """The names that a filter means: None all, a name, several names, or a function of the name.

        Raises:
            UnknownSite: for a name that does not exist, or a filter that matches nothing.
        """
        if names_filter is None:
            return list(self._sites)
        if isinstance(names_filter, str):
            return [self[names_filter].name]
        if not callable(names_filter):
            chosen = {self[name].name for name in names_filter}
        else:
            chosen = {name for name in self._sites if names_filter(name)}
        if not chosen:
            raise UnknownSite(
                f"names_filter {names_filter!r} matches none of the {len(self)} sites, so the cache would be "
                f"empty; model.sites "
                "lists them all"
            )
        return [name for name in self._sites if name in chosen]

    def wanted(self, sites: str | Sequence[str] | Callable[[str], bool] | None) -> list[str]:
        """The names that ``wb.run`` keeps for a filter: None the standard ones, "all", or what :meth:`select` takes."""
        if sites is None:
            return [site for site in self if site.endswith(STANDARD_SITES)]
        return self.select(None if isinstance(sites, str) and sites == "all" else sites)  # type: ignore[arg-type]

    def _unknown(self, name: str) -> str:
        near = get_close_matches(name, self._sites, n=1, cutoff=0.3)
        hint = f"; closest is {near[0]!r}" if near else ""
        return f"no activation {name!r}{hint}; model.sites lists all {len(self)}"


def position_axis(name: str) -> int:
    """The axis, counted from the end, along which a site's positions run."""
    return -3 if name.rsplit(".", 1)[-1] in _POS_THIRD_FROM_LAST else -2
