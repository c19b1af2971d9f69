"""What a finished run leaves behind: a record of how it was made, and of what came out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench import provenance
from workbench.interventions.base import KINDS, as_dict
from workbench.model.engines import engine_name
from workbench.model.interrupts import finish_first
from workbench.provenance import Entry, Part, Result, Vector, facts

if TYPE_CHECKING:
    from workbench.activations.run import Run
    from workbench.model import HookedGptOss

LARGEST_RESULT = 8 * 2**20  # bytes of logits that are digested
ROWS = 32  # rows whose likeliest next token is written down
READ = 500  # tokens that are decoded for the text


class Clock:
    """When a run began, and how long it has taken."""

    def __init__(self) -> None:
        self.started, self._began = time.time(), time.perf_counter()

    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._began


def leave_record(
    run: Run,
    clock: Clock,
    sources: Mapping[str, Any] | None = None,
    routing_from: Run | None = None,
    sites: Any = None,
    rerun: Mapping[str, Any] | None = None,
) -> None:
    """Have a run recorded, unless it is made in a block that records none. It never fails.

    Args:
        sites: as they were asked for.
        rerun: what ``wb.rerun`` was given besides; its runs stand by themselves.
    """
    if not provenance.on():
        return
    seconds = clock.seconds()
    try:
        with torch.no_grad():
            given = dict(sources or {}) | ({} if routing_from is None else {"routing_from": routing_from})
            parts = {name: _part(given[name]) for name in given if name in _needed(run) or name == "routing_from"}
            about = {} if rerun is None else {"rerun": {name: _plain(value) for name, value in rerun.items()}}
            entry = _entry(run, clock.started, seconds, parts, sites, about)
            finish_first(lambda: provenance.submit(entry))  # an interrupted queue would stay locked for later runs
    except Exception as error:
        provenance.trouble(error)


def _entry(
    run: Run, started: float, seconds: float | None, parts: dict[str, Part], sites: Any, about: dict[str, Any]
) -> Entry:
    model = run.model
    specs, missing = _specs(run.interventions)
    return Entry(
        kind="run",
        started=started,
        seconds=seconds,
        name=run.name,
        model=model.config.name,
        fingerprint=run.provenance.get("fingerprint"),
        recipe=_recipe(model),
        session=facts.session(),
        # Copies: the caller may change what it gave before it is written.
        tokens=run.tokens.to("cpu", torch.int32, copy=True).numpy(),
        mask=None if run.attention_mask is None else run.attention_mask.to("cpu", torch.bool, copy=True).numpy(),
        specs=specs,
        missing=missing,
        routing=run.routing,
        sources=parts,
        sites=sites if sites is None or isinstance(sites, str) else [*sites],
        seed=torch.initial_seed(),
        result=result_of(run.logits),
        summary=_summary(run),
        about=about,
        environment=facts.environment(**facts_of(run)),
        decode=_reader(run),
        said=run.provenance,
    )


def result_of(logits: Tensor) -> Result:
    """The bytes to digest: all logits as float32, or of more than 8 MB of them those of evenly spaced positions, the
    first and the last among them."""
    flat = logits.detach().reshape(-1, logits.shape[-1])
    n, most = len(flat), max(2, LARGEST_RESULT // (4 * flat.shape[1]))
    if n > most:
        flat = flat[torch.linspace(0, n - 1, most, dtype=torch.float64).round().long().to(flat.device)]
    data = flat.float().contiguous().cpu().numpy().tobytes()
    return Result(data, tuple(logits.shape), most if n > most else None)


def _summary(run: Run) -> dict[str, Any]:
    """A few numbers to find a run by."""
    n = run.tokens.shape[1]
    real = None if run.attention_mask is None else run.attention_mask
    last = torch.full((len(run.tokens),), n - 1, device=run.logits.device)
    if real is not None:
        last = n - 1 - real.to(last.device).int().flip(1).argmax(1)
    rows = torch.arange(min(len(run.tokens), ROWS), device=run.logits.device)
    made: dict[str, Any] = {"next_tokens": run.logits[rows, last[rows]].argmax(-1).tolist()}
    if run.kl is not None and run.flipped_routes is not None:
        kl, flips = run.kl, run.flipped_routes.float().mean(0)
        if real is not None:
            kl, flips = kl[real.to(kl.device).bool()], flips[real.to(flips.device).bool()]
        made |= {"mean_kl": float(kl.mean()), "flipped": float(flips.mean())}
    return made


def _needed(run: Run) -> set[str]:
    config = run.model.config
    return {name for spec in run.interventions if hasattr(spec, "reads") for name, _ in spec.reads(config)}


def _specs(interventions: Sequence[Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """As plain data; of one that has no such form, its text, and that it cannot be made again."""
    made, missing = [], {}
    for spec in interventions:
        if KINDS.get(type(spec).__name__) is type(spec):
            made.append(as_dict(spec))
        else:
            made.append({"kind": type(spec).__name__, "repr": repr(spec)[:2000]})
            missing["specs"] = f"{type(spec).__name__} is no intervention with a form in JSON"
    return made, missing


def _part(source: Any) -> Part:
    """A source: a run by its record, which is written now if it has none; a vector by its bytes."""
    if isinstance(source, Tensor):
        bits = source.detach().cpu().contiguous()
        data = bits.reshape(-1).view(torch.uint8).numpy().tobytes()
        return Part(vector=Vector(data, str(bits.dtype).removeprefix("torch."), tuple(bits.shape)))
    found = _id(source)
    if found is None and not _needed(source) and source.routing == "live":
        late = _entry(source, time.time(), None, {}, list(source.cache.cache_dict), {})
        provenance.submit(late)
        found = late.id
    return Part(found, why=None if found else "it was made where no runs are recorded, and took something from others")


def same_record(run: Run, as_of: Run) -> Run:
    """Say that a run is another one once more, with other sites kept: what is made from it is made from that one."""
    if (found := as_of.provenance.get("record")) is not None:
        run.provenance["record"] = found
    return run


def _id(run: Run) -> str | None:
    return provenance.id_of(run.provenance)


def _plain(value: Any) -> Any:
    return _part(value).record if hasattr(value, "logits") else value


def _recipe(model: HookedGptOss) -> dict[str, Any] | None:
    found = model.recipe
    if found is None:
        return None
    return {"path": found.path, "dtype": found.dtype, "device": found.device, "experts": found.experts}


def facts_of(run: Run) -> dict[str, Any]:
    """Of its machine: threads, engine, device."""
    device, dtype = run.logits.device, run.logits.dtype
    made = {"threads": torch.get_num_threads(), "engine": engine_name(device, dtype, warn=False), "device": str(device)}
    if device.type == "cuda":
        made["accelerator"] = torch.cuda.get_device_name(device)
    return made


def _reader(run: Run) -> Any:
    tokenizer = run.model.tokenizer
    if tokenizer is None:
        return None
    ids = run.tokens[: max(1, READ // run.tokens.shape[1]), :READ].tolist()
    return lambda: "\n".join(tokenizer.decode(row) for row in ids)
