"""Runs made again from their records."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench import provenance
from workbench.activations.kept import record_of
from workbench.activations.record_code import check, code_of, found, specs_of
from workbench.activations.rerun import rerun
from workbench.activations.run import Run, run
from workbench.activations.written import facts_of, result_of
from workbench.checkpoints import Recipe, load_once
from workbench.checkpoints.embedded import EMBEDDED
from workbench.model import HookedGptOss
from workbench.model.fingerprint import fingerprint
from workbench.provenance import Record, Records, RecordsError
from workbench.provenance.facts import environment
from workbench.provenance.table import shown


def records(path: str | Path | None = None) -> Records:
    """What the runs of this user on this machine left behind, newest first.

    Every ``wb.run`` and ``wb.rerun`` leaves a record, and a sweep or an atlas one for the whole of it; runs that the
    Bench makes only to preview something leave none. A record holds the tokens, the first 2,000 characters of the
    prompt, the interventions, vectors of up to 64 KB, how the model is loaded and its fingerprint, versions, machine,
    times, a digest of the logits and a few numbers: about 1 KB. It holds no activations and no weights.

    They are in one SQLite file in the user's data folder, readable by its owner only; nothing of it leaves the machine.
    The environment variable WORKBENCH_RECORDS names another file, or is "off": then nothing is kept. The oldest are let
    go of beyond 100,000 records or 200 MB, but for those that are pinned.

    Args:
        path: another file of records, which is only read.

    Raises:
        RecordsError: when it is read: the file is damaged, or of a later version of this package.

    >>> import workbench as wb
    >>> done = wb.run(model, "Mia went to the park", [wb.AblateExpert(0, 6)])
    >>> again = wb.records().filter(spec="AblateExpert")[0].reload()
    >>> again.provenance["reproduced"]
    1
    """
    if path is not None:
        return Records(Path(path).expanduser().absolute(), Remake(), read_only=True)
    return Records(provenance.place(), Remake())


class Remake:
    """Makes runs again; a ``provenance.Maker``."""

    def reload(self, record: Record, model: Any = None, sources: Mapping[str, Any] | None = None) -> Run:
        """See ``Record.reload``."""
        with damaged(record):
            made = _made(record, model, dict(sources or {}), {}, ())
        if not made.provenance["reproduced"]:
            warnings.warn(f"record {record.id} was not reproduced bit for bit: {_why(record, made)}", stacklevel=3)
        return made

    def code(self, record: Record) -> str:
        """See ``Record.code``."""
        with damaged(record):
            return code_of(record)

    def vector(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Tensor:
        """See ``Record.vector``."""
        kind = getattr(torch, dtype, None)
        if not isinstance(kind, torch.dtype) or len(data) != math.prod(shape) * kind.itemsize:
            raise RecordsError(f"a vector of {len(data)} bytes is not {dtype!r:.60} {shape!s:.60}: the file is damaged")
        return torch.frombuffer(bytearray(data), dtype=kind).reshape(shape) if data else torch.empty(shape, dtype=kind)

    def divergence(self, one: Any, other: Any) -> tuple[np.ndarray | None, str]:
        """KL(one ‖ other) [batch pos], in nats."""
        if one.logits.shape != other.logits.shape:
            return None, f"logits of {tuple(one.logits.shape)} and {tuple(other.logits.shape)} cannot be compared"
        expected, given = (run.logits.detach().cpu().double().log_softmax(-1) for run in (one, other))
        return (expected.exp() * (expected - given)).sum(-1).clamp(min=0).numpy(), ""


# ---------------------------------------------------------------- making it


Done = dict[tuple[str, frozenset[str]], Run]


def _made(
    record: Record,
    model: Any,
    given: Mapping[str, Any],
    done: Done,
    path: tuple[str, ...],
    needs: frozenset[str] = frozenset(),
) -> Run:
    """A run and before it those that it took something from, each once.

    Args:
        given: sources in the place of the recorded ones.
        needs: sites that it must keep besides those that it kept: what another run takes from it.
    """
    if (record.id, needs) in done:
        return done[record.id, needs]
    check(record, path)
    model = _model(record, model)
    specs = specs_of(record)
    sources = {name: _source(record, name, specs, model, given, done, path) for name in record.sources}
    sites = record.sites if not needs else sorted({*model.sites.wanted(record.sites), *needs})
    with provenance.held() as kept:
        if record.about.get("rerun"):
            made = _rerun(record, model, specs, sources, sites, done, path)
        else:
            made = _run(record, model, specs, sources, sites)
    same = result_of(made.logits).digest == record.result
    made.provenance["reproduced"] = int(same)
    if same:
        made.provenance["record"] = record.id
    elif provenance.on():
        kept.keep()  # other numbers: a run of its own
    done[record.id, needs] = made
    return made


def _run(record: Record, model: HookedGptOss, specs: tuple[Any, ...], sources: dict[str, Any], sites: Any) -> Run:
    mask = record.attention_mask
    return run(
        model,
        torch.from_numpy(record.tokens),
        specs,
        sites=sites,
        routing=record.routing or "live",  # type: ignore[arg-type]
        routing_from=sources.pop("routing_from", None),
        sources=sources,
        attention_mask=None if mask is None else torch.from_numpy(mask),
        name=record.name,
    )


def _rerun(
    record: Record,
    model: HookedGptOss,
    specs: tuple[Any, ...],
    sources: dict[str, Any],
    sites: Any,
    done: Done,
    path: tuple[str, ...],
) -> Run:
    before = record.about["rerun"]
    base, unedited = (
        None if before.get(name) is None else _made(found(record, before[name]), model, {}, done, (*path, record.id))
        for name in ("base", "unedited")
    )
    if base is None:
        raise RecordsError(f"record {record.id} goes on from a run that left no record")
    recording = record_of(base) if before.get("recording") else None
    return rerun(
        base,
        specs[len(base.interventions) :],
        recording=recording,
        sources=sources,
        sites=sites,
        unedited=unedited,
        columns=before.get("columns", "changed"),
        name=record.name,
    )


def _model(record: Record, model: Any) -> HookedGptOss:
    if model is None:
        if record.recipe is None:
            raise RecordsError(
                f"record {record.id} is of a model ({shown(record.model)}) that wb.load cannot load again; give it: "
                "record.reload(model)"
            )
        recipe = Recipe(**record.recipe, fingerprint=record.fingerprint)
        _is_here(record, recipe.path)
        try:
            return load_once(recipe)
        except (ValueError, TypeError, RuntimeError, OSError) as error:
            raise RecordsError(f"the model of record {record.id} cannot be loaded: {error}") from error
    found = fingerprint(model)
    if found != record.fingerprint:
        raise RecordsError(
            f"record {record.id} is of the model {shown(record.model)} with fingerprint {record.fingerprint}; this one "
            f"has {found}, so its numbers are others. wb.run(model, record.tokens, …) runs it all the same"
        )
    return model


def _is_here(record: Record, path: str) -> None:
    """A file of records that somebody sent does not choose what is fetched from where."""
    if record._records is None or not record._records.read_only:
        return
    named = path.replace("\\", "/")
    if named.startswith("//") or "://" in named or (path not in EMBEDDED and not _is_folder(path)):
        raise RecordsError(
            f"record {record.id} is of the model {shown(path)!r}, which is no folder of this machine, and records of "
            "another file fetch nothing. Load it yourself: record.reload(model)"
        )


def _is_folder(path: str) -> bool:
    try:
        return Path(path).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):  # a name that no system has, or nobody's home
        return False


@contextmanager
def damaged(record: Record) -> Iterator[None]:
    """What a run or a lookup says of a record's parts, as an error of the record."""
    try:
        yield
    except RecordsError:
        raise
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
        raise RecordsError(f"record {record.id} cannot be made again: {str(error)[:2000]}") from error


def _source(
    record: Record,
    name: str,
    specs: tuple[Any, ...],
    model: HookedGptOss,
    given: Mapping[str, Any],
    done: Done,
    path: tuple[str, ...],
) -> Any:
    if name in given:
        return given[name]
    source = record.sources[name]
    if "vector" in source:
        return record.vector(name)
    if "record" not in source:
        raise RecordsError(
            f"the source {shown(name)!r} of record {record.id} left no record: {shown(source.get('why'))}. Give it: "
            f"record.reload(sources={{{name!r}: run}})"
        )
    of = found(record, source["record"], name)
    reads = (each for spec in specs for each in spec.reads(model.config))
    needs = frozenset(site for source, site in reads if source == name and site is not None)
    same = of.fingerprint == record.fingerprint
    return _made(of, model if same else None, {}, done, (*path, record.id), needs)


def _why(record: Record, made: Run) -> str:
    """What is not as it was."""
    now = environment(**facts_of(made))
    others = [
        f"{name} was {shown(then.get(name))}, is {shown(here.get(name))}"
        for then, here in ((record.versions, now["versions"]), (record.machine, now["machine"]))
        for name in {**then, **here}
        if then.get(name) != here.get(name)
    ]
    return "; ".join(others) or "versions and machine are the same, so the numbers depend on something not recorded"
