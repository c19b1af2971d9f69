"""What to ask for instead of a run that does not fit, each worked out to fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from workbench.model.memory.asked import Asked, sites_of
from workbench.model.memory.estimate import by_kind, kind_of
from workbench.model.memory.free import free_memory


@dataclass(frozen=True)
class Suggestion:
    """Code to ask for less with, and what the run then needs on the device that was too small."""

    code: str
    needed: int
    remark: str = ""


def suggestions(asked: Asked, device: str, free: int, filter_name: str = "names_filter") -> Iterator[Suggestion]:
    """Changes that each make the run fit in ``free`` bytes; if none does, then several together.

    Where gradients are on and nothing is enough with them, what fits without them. ``filter_name`` is what the caller
    calls its filter of sites.
    """
    found = list(_changes(asked, device, free, filter_name))
    if not found and asked.graph and not asked.backward:
        without = _without_graph(asked)
        found = [
            replace(each, remark=each.remark + ", in torch.no_grad()")
            for each in _changes(without, device, free, filter_name)
        ]
    yield from found or _together(asked, device, free)


def _changes(asked: Asked, device: str, free: int, filter_name: str) -> Iterator[Suggestion]:
    def fitting(code: str, changed: Asked, remark: str = "") -> Iterator[Suggestion]:
        needed = _needs(changed, device)
        if needed <= free:
            yield Suggestion(code, needed, remark)

    if asked.graph and not asked.backward:
        yield from fitting("with torch.no_grad(): …", _without_graph(asked))
    if asked.names and asked.keep_on is None:
        yield from _fewer_sites(asked, device, free, filter_name)
        if filter_name == "names_filter":  # wb.run has neither of these
            yield from _less_of_each(asked, device, fitting)
    if asked.batch > 1 and (rows := _most(asked.batch, lambda n: _needs(replace(asked, batch=n), device) <= free)):
        yield from fitting(f"tokens[:{rows}]", replace(asked, batch=rows), f", {rows} of {asked.batch} rows at a time")
    if asked.dtype == "float32":
        yield from fitting('wb.load(…, dtype="bfloat16")', replace(asked, dtype="bfloat16"))
    if asked.returns == "logits" and not asked.compared and filter_name == "names_filter":
        if asked.length > 1 and not asked.last_logits:
            last = replace(asked, last_logits=True)
            yield from fitting('logits_at="last"', last, ", logits of the last position only")
        yield from fitting("return_type=None", replace(asked, returns=None), ", no logits")


def _less_of_each(asked: Asked, device: str, fitting: Callable[..., Iterator[Suggestion]]) -> Iterator[Suggestion]:
    """The last position, or kept sites in main memory where a GPU is too small and that is not."""
    if asked.length > 1 and asked.positions is None:
        yield from fitting("pos_slice=-1", replace(asked, positions=1), ", the last position only")
    changed, there = replace(asked, keep_on="cpu"), free_memory("cpu")
    if device != "cpu" and there is not None and _needs(changed, "cpu") <= there.n_bytes:
        yield from fitting('device="cpu"', changed, ", keeps the sites in main memory")


def _needs(asked: Asked, device: str) -> int:
    return asked.peaks[device].n_bytes


def _without_graph(asked: Asked) -> Asked:
    return replace(asked, graph=False, backward=False, trains=False)


def _fewer_sites(asked: Asked, device: str, free: int, filter_name: str) -> Iterator[Suggestion]:
    """The same without the largest kinds of sites; of a single kind, the first layers only."""
    kinds = list(by_kind(asked.kept))
    for n in range(1, len(kinds)):
        dropped, left = tuple(kinds[:n]), tuple(kinds[n:])
        changed = replace(asked, names=tuple(name for name in asked.names if kind_of(name) in left))
        if (needed := _needs(changed, device)) <= free:
            # "not" says it shorter, but only where everything was asked for does it say the same.
            everything = len(asked.names) == len(sites_of(asked.config.n_layers))
            ends, test = (dropped, "not ") if everything and n <= len(left) else (left, "")
            shown = repr(ends[0] if len(ends) == 1 else ends)
            yield Suggestion(f"{filter_name}=lambda name: {test}name.endswith({shown})", needed)
            return
    if len(kinds) == 1:
        yield from _fewer_layers(asked, device, free, filter_name, kinds[0])


def _fewer_layers(asked: Asked, device: str, free: int, filter_name: str, kind: str) -> Iterator[Suggestion]:
    n = _most(len(asked.names), lambda n: _needs(replace(asked, names=asked.names[:n]), device) <= free)
    if n:
        first, last = (asked.names[i].split(".")[1] for i in (0, n - 1))
        code = f'{filter_name}=[f"blocks.{{i}}.{kind}" for i in range({first}, {int(last) + 1})]'
        remark = f", {n} of {len(asked.names)} layers at a time"
        yield Suggestion(code, _needs(replace(asked, names=asked.names[:n]), device), remark)


def _together(asked: Asked, device: str, free: int) -> Iterator[Suggestion]:
    """One row, no gradients, the stream alone; then as many tokens of that as fit."""
    kinds = [*map(kind_of, asked.names), "hook_resid_post"]
    kind = "hook_resid_post" if "hook_resid_post" in kinds else kinds[0]
    names = tuple(name for name in sites_of(asked.config.n_layers) if name.endswith(kind))
    least = replace(_without_graph(asked), batch=1, names=names, heard=(), returns=None, compared=False, keep_on=None)
    code = "with torch.no_grad(): model.run_with_cache(tokens[:1{}], names_filter=…, return_type=None)"
    code = code.replace("…", f"lambda name: name.endswith({kind!r})")
    n = _most(asked.length, lambda n: _needs(replace(least, length=n), device) <= free)
    if n:
        cut = "" if n == asked.length else f", :{n}"
        remark = ", without gradients" if asked.graph else ""
        yield Suggestion(code.format(cut), _needs(replace(least, length=n), device), remark)


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to ``limit`` that fits, by halving; 0 if not even 1 does."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
