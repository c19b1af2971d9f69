"""One run of the model: what went in, what was done to it, what came out. Everything later takes Runs."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from keyword import iskeyword
from typing import Any, Literal, get_args

import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import ActivationCache

from workbench.activations.written import Clock, leave_record
from workbench.interventions import Context, FreezeRouting, Intervention, all_edits, check_all, code
from workbench.interventions.patches import refuse_rerouting
from workbench.model import HookedGptOss
from workbench.model.fingerprint import fingerprint
from workbench.model.interrupts import without_gradients
from workbench.model.memory import check_memory as refuse
from workbench.results import labelled
from workbench.text import Labels, label

Routing = Literal["live", "frozen_set", "frozen_set_and_weights"]
SitesFilter = str | Sequence[str] | Callable[[str], bool] | None


@dataclass(frozen=True, repr=False)
class Run:
    """A finished forward pass.

    Attributes:
        model: the model that ran; its weights are not copied.
        tokens: [batch pos].
        attention_mask: [batch pos], or None where every token is real.
        logits: [batch pos d_vocab].
        cache: the sites that were kept, a TransformerLens ActivationCache;
            ``run["blocks.0.attn.hook_pattern"]`` reads one.
        interventions: what was done, in order.
        routing: "live", or which part of the routing was taken from another run.
        name: how later runs refer to this one.
        flipped_routes: [layer batch pos], true where an edit changed the *set* of experts of a token; None for
            an unedited run.
        kl: [batch pos] KL(unedited ‖ this) of the next-token distributions, in nats; None for an unedited run.
        provenance: model fingerprint, versions, machine and time, enough to say where a number came from; "record" is
            the id of the record that it left, which ``wb.records()`` finds.
    """

    model: HookedGptOss
    tokens: Int[Tensor, "batch pos"]
    attention_mask: Bool[Tensor, "batch pos"] | None
    logits: Float[Tensor, "batch pos d_vocab"]
    cache: ActivationCache
    interventions: tuple[Any, ...] = ()
    routing: Routing = "live"
    name: str | None = None
    flipped_routes: Bool[Tensor, "layer batch pos"] | None = None
    kl: Float[Tensor, "batch pos"] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, site: str) -> Tensor:
        """A kept site's tensor, with its batch axis.

        Raises:
            KeyError: for a site that does not exist, or that this run did not keep.
        """
        self.model.sites[site]
        if site not in self.cache.cache_dict:
            raise KeyError(
                f"this run did not keep {site!r}; run again with sites={site!r} among those asked for, or sites='all'"
            )
        return self.cache.cache_dict[site]

    def array(self, site: str, row: int = 0) -> xr.DataArray:
        """A kept site of one row as a labelled array: named dims, tokens along the positions."""
        meta = self.model.sites[site]
        values = self[site][row].detach().float() if not meta.is_integer else self[site][row]
        attrs = {"meaning": meta.meaning, **self.provenance}
        return labelled(values.cpu().numpy(), meta.dims[1:], self.str_tokens(row), site, attrs)

    def str_tokens(self, row: int = 0) -> list[str]:
        """One row's tokens as printable strings; their ids where the model has no tokenizer."""
        ids = self.tokens[row].tolist()
        tokenizer = self.model.tokenizer
        return [str(i) for i in ids] if tokenizer is None else tokenizer.str_tokens(ids)

    @property
    def labels(self) -> list[Labels]:
        """Message, role and channel of each token, a Labels a row."""
        return [label(row.tolist(), self.model.text) for row in self.tokens]

    @property
    def flips_per_layer(self) -> xr.DataArray | None:
        """Share of real tokens whose expert set an edit changed, by layer; None for an unedited run."""
        if self.flipped_routes is None:
            return None
        real = torch.ones_like(self.tokens, dtype=torch.bool) if self.attention_mask is None else self.attention_mask
        share = (self.flipped_routes & real).sum((1, 2)) / real.sum()
        return labelled(share.cpu().numpy(), ("layer",), name="flipped routes", attrs=self.provenance)

    def code(self) -> str:
        """The Python that makes this run again, given the model and its sources under the names that the specs use.

        A source whose name cannot be a variable's is taken from a dict, ``sources["my run"]``.
        """
        import_line, tokens = "import workbench as wb", self.tokens.tolist()
        lines = [import_line, f"tokens = torch.tensor({tokens})"]
        arguments = ["model", "tokens", code(self.interventions)]
        if self.attention_mask is not None:
            lines.append(f"mask = torch.tensor({self.attention_mask.int().tolist()})")
            arguments.append("attention_mask=mask")
        if names := sorted({name for spec in self.interventions for name, _ in _reads(spec, self.model)}):
            arguments.append(f"sources={{{', '.join(f'{name!r}: {_variable(name)}' for name in names)}}}")
        if (kept := self._kept()) is not None:
            arguments.append(f"sites={kept!r}")
        if self.routing != "live":
            arguments.append(f"routing={self.routing!r}, routing_from=routing_from")
        if self.name is not None:
            arguments.append(f"name={self.name!r}")
        return "\n".join(["import torch", *lines, f"run = wb.run({', '.join(arguments)})"])

    def _kept(self) -> str | list[str] | None:
        """``sites`` as this run was given it, or as it might have been."""
        kept = list(self.cache.cache_dict)
        for sites in (None, "all"):
            if set(kept) == set(self.model.sites.wanted(sites)):
                return sites
        return kept

    def __repr__(self) -> str:
        named = f"{self.name!r}: " if self.name else ""
        edits = f", {len(self.interventions)} interventions" if self.interventions else ""
        return (
            f"Run({named}{self.model.config.name}, tokens {tuple(self.tokens.shape)}, {len(self.cache)} sites{edits})"
        )


@without_gradients
def run(
    model: HookedGptOss,
    input: Any,
    interventions: Sequence[Any] = (),
    sites: SitesFilter = None,
    routing: Routing = "live",
    routing_from: Run | None = None,
    sources: Mapping[str, Run | Tensor] | None = None,
    attention_mask: Tensor | None = None,
    name: str | None = None,
    check_memory: bool = True,
) -> Run:
    """Run the model once, with interventions on for just this run, and keep what it did.

    Args:
        input: tokens [batch pos] or [pos], text, or a Chat.
        interventions: specs, carried out in order.
        sites: which sites to keep: None the standard ones (residual stream, patterns, sinks, z, routing),
            "all", a name, several, or a function of the name.
        routing: "live" routes by what the edited stream says; "frozen_set" takes each token's experts from
            ``routing_from`` and weighs them by the live logits; "frozen_set_and_weights" takes the weights
            from there too.
        routing_from: the run whose routing is taken: as many rows, and at least as long.
        sources: name → a run, or a vector [d], for the specs that take something from elsewhere
            (``Patch(site, source="clean")`` with ``sources={"clean": run}``).
        attention_mask: [batch pos], true for real tokens.
        name: how to refer to this run later.
        check_memory: refuse a run that cannot fit in what is free; False runs it all the same.

    Returns:
        The Run; if anything was edited, with flipped routes and KL against the same input unedited (one more forward).
        It leaves a record of how it was made, see ``wb.records``.

    Raises:
        ValueError: for a spec, a routing or tokens that the model does not have, before anything runs.
        UnknownSite: for a site that does not exist.
        NotEnoughMemory: for a run that cannot fit, before anything runs.

    >>> run = wb.run(model, "Mia went to the park", [wb.AblateExpert(0, 6, "zero")])
    >>> run["blocks.1.attn.hook_pattern"].shape
    torch.Size([1, 8, 5, 5])
    >>> run.array("blocks.1.attn.hook_pattern").dims
    ('head', 'query_pos', 'key_pos')
    """
    if isinstance(interventions, Intervention):
        raise ValueError(f"interventions={interventions}: expected a list, [{interventions}]")
    tokens, mask = model.as_batch(input, attention_mask)
    interventions = tuple(interventions)
    sources = {} if sources is None else dict(sources)
    check_all(interventions, model.config, tokens.shape[1], sources, tokens.shape[0])
    if routing != "live":
        refuse_rerouting(interventions, range(model.config.n_layers), f"routing={routing!r}")
    context = Context(model, sources)
    hooks = [*_freeze(model, tokens, routing, routing_from), *all_edits(interventions, context)]
    names = model.sites.wanted(sites)
    if check_memory:
        _refuse_what_cannot_fit(model, tokens, [*names, *_routes(model)], hooks)
    clock = Clock()
    # One lock round the edited and the unedited pass: no other thread's edit may stand between them.
    with model._lock:
        cache, keep, _ = model.get_caching_hooks(names)
        routes, keep_routes, _ = model.get_caching_hooks(_routes(model))
        with model.hooks(fwd_hooks=[*hooks, *keep, *keep_routes]):
            logits = model(tokens, attention_mask=mask)
        flips, kl = _against_unedited(model, tokens, mask, logits, routes) if hooks else (None, None)
    done = Run(
        model,
        tokens,
        mask,
        logits,
        ActivationCache(cache, model),
        interventions,
        routing,
        name,
        flips,
        kl,
        provenance_of(model),
    )
    leave_record(done, clock, sources, routing_from, names if callable(sites) else sites)
    return done


def _variable(name: str) -> str:
    """A source in code: by its name, or from a dict where that name cannot be, or is already, a variable's."""
    taken = {"wb", "torch", "tokens", "mask", "model", "run", "routing_from", "sources"}
    usable = name.isidentifier() and not iskeyword(name) and name not in taken
    return name if usable else f"sources[{name!r}]"


def _reads(spec: Any, model: HookedGptOss) -> list[tuple[str, str | None]]:
    return spec.reads(model.config) if hasattr(spec, "reads") else []


def _routes(model: HookedGptOss) -> list[str]:
    return [f"blocks.{layer}.mlp.hook_expert_indices" for layer in range(model.config.n_layers)]


def _refuse_what_cannot_fit(model: HookedGptOss, tokens: Tensor, names: list[str], hooks: list[tuple]) -> None:
    shape, kept = (tokens.shape[0], tokens.shape[1]), list(dict.fromkeys(names))
    heard = tuple(name for name, _ in hooks if name not in kept)
    refuse(model, shape, kept, what="wb.run", filter_name="sites", heard=heard, compared=bool(hooks))


def _freeze(model: HookedGptOss, tokens: Tensor, routing: Routing, source: Run | None) -> list[tuple[str, Callable]]:
    """Hooks that put another run's routing in the place of this one's."""
    if routing not in get_args(Routing):
        raise ValueError(f"routing={routing!r}: expected one of {get_args(Routing)}")
    if routing == "live":
        if source is not None:
            raise ValueError(
                "routing_from was given with routing='live', which takes nothing from it; say 'frozen_set' or so"
            )
        return []
    if source is None:
        raise ValueError(f"routing={routing!r} needs routing_from=, the run whose experts are taken")
    if source.tokens.shape[0] != tokens.shape[0] or source.tokens.shape[1] < tokens.shape[1]:
        raise ValueError(
            f"routing_from has tokens {tuple(source.tokens.shape)} and this run {tuple(tokens.shape)}: expected "
            f"as many rows, and at "
            "least as many positions"
        )
    for size in ("n_layers", "n_experts", "experts_per_token"):
        there, here = getattr(source.model.config, size), getattr(model.config, size)
        if there != here:
            raise ValueError(f"routing_from ran on a model with {size}={there}, and this one has {here}")
    spec = FreezeRouting("routing_from", "set" if routing == "frozen_set" else "set_and_weights")
    sources = {"routing_from": source}
    spec.check_sources(model.config, sources, len(tokens))
    return spec.hooks(Context(model, sources))


def _against_unedited(
    model: HookedGptOss, tokens: Tensor, mask: Tensor | None, logits: Tensor, routes: dict[str, Tensor]
) -> tuple[Bool[Tensor, "layer batch pos"], Float[Tensor, "batch pos"]]:
    """Which tokens changed their set of experts at which layer, and how far the prediction moved."""
    plain_logits, plain = model.run_with_cache(tokens, names_filter=list(routes), attention_mask=mask)
    flips = torch.stack([(plain[site].sort(-1).values != routes[site].sort(-1).values).any(-1) for site in routes])
    expected, given = plain_logits.float().log_softmax(-1), logits.float().log_softmax(-1)
    return flips, (expected.exp() * (expected - given)).sum(-1).clamp(min=0)


def provenance_of(model: HookedGptOss) -> dict[str, Any]:
    """Where a number came from: model, fingerprint, versions, machine and time."""
    return {
        "model": model.config.name,
        "fingerprint": fingerprint(model),
        "torch": torch.__version__,
        "transformer_lens": _version("transformer-lens"),
        "machine": platform.machine(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


# Reading it takes as long as a hundredth of a small model's run.
_version = lru_cache(version)
