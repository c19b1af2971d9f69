"""A recorded run as Python: the model, the runs that it took something from, and the run itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.checkpoints import Recipe
from workbench.interventions.base import InterventionError, code, from_dict
from workbench.provenance import Record, Records, RecordsError
from workbench.provenance.table import shown


def code_of(record: Record) -> str:
    """See ``Record.code``."""
    lines: dict[str, str] = {}
    written_as(record, "run", lines, ())
    return "\n".join(["import torch", "import workbench as wb", "", *lines.values()])


# ---------------------------------------------------------------- what is read of a record


def check(record: Record, path: tuple[str, ...]) -> None:
    if record.kind != "run":
        raise RecordsError(
            f"record {record.id} is of a {record.kind:.60}, which is no single run and cannot be made again"
        )
    if record.id in path:
        raise RecordsError(f"record {record.id} takes something from itself: the file is damaged")
    parts = {name: why for name, why in record.missing.items() if not name.startswith("source ")}
    if parts:
        said = "; ".join(f"{name:.100}: {why!s:.300}" for name, why in parts.items())
        raise RecordsError(f"record {record.id} cannot be made again, for not all of it was kept ({said:.1000})")


def found(record: Record, id: str, name: str = "base") -> Record:
    assert record._records is not None
    whole = Records(record._records.path, record._records.maker, record._records.read_only)
    try:
        return whole[id]
    except KeyError:
        raise RecordsError(
            f"{shown(name)!r}, which record {record.id} takes something from, was record {id}: it is no longer in "
            f"{whole.path}"
        ) from None


def specs_of(record: Record) -> tuple[Any, ...]:
    try:
        return tuple(from_dict(spec, f"intervention {i} of record {record.id}") for i, spec in enumerate(record.specs))
    except InterventionError as error:
        raise RecordsError(str(error)) from error


# ---------------------------------------------------------------- the lines


def written_as(record: Record, variable: str, lines: dict[str, str], path: tuple[str, ...]) -> str:
    """Put the lines that make a record's run, after those of what it takes; the variable that holds it."""
    if record.id in lines:
        return variable
    check(record, path)
    here, specs, rerun_of = (*path, record.id), specs_of(record), record.about.get("rerun")
    model = _model_line(record, lines)
    sources = {name: _source_line(record, name, lines, here) for name in record.sources}
    more: dict[str, str] = {}
    if rerun_of:
        base = found(record, rerun_of["base"])
        call = f"wb.rerun({written_as(base, _variable(base), lines, here)}, {code(specs[len(base.specs) :])}"
        more |= _rerun_lines(record, rerun_of, lines, here, _variable(base))
    else:
        call = f"wb.run({model}, torch.tensor({record.tokens.tolist()}), {code(specs)}"
        if (mask := record.attention_mask) is not None:
            more["attention_mask"] = f"torch.tensor({mask.astype(int).tolist()})"
        if "routing_from" in sources:
            more |= {"routing": repr(record.routing), "routing_from": sources.pop("routing_from")}
    if sources:
        more["sources"] = f"{{{', '.join(f'{name!r}: {value}' for name, value in sources.items())}}}"
    more |= {name: repr(value) for name, value in (("sites", record.sites), ("name", record.name)) if value is not None}
    lines[record.id] = f"{variable} = {call}{''.join(f', {name}={value}' for name, value in more.items())})"
    return variable


def _rerun_lines(
    record: Record, rerun_of: Mapping[str, Any], lines: dict[str, str], path: tuple[str, ...], base: str
) -> dict[str, str]:
    """What ``wb.rerun`` is given besides."""
    more = {} if rerun_of.get("columns") == "changed" else {"columns": repr(rerun_of.get("columns"))}
    if rerun_of.get("recording"):
        lines["recordings"] = "from workbench.activations import record_of"
        more["recording"] = f"record_of({base})"
    if rerun_of.get("unedited"):
        unedited = found(record, rerun_of["unedited"])
        more["unedited"] = written_as(unedited, _variable(unedited), lines, path)
    return more


def _variable(record: Record) -> str:
    return f"run_{record.id}"


def _model_line(record: Record, lines: dict[str, str]) -> str:
    """The variable of the model, and the line that loads it."""
    loading = f"wb.load({shown(record.model)!r})"
    if record.recipe is not None:
        loading = Recipe(**record.recipe).code()
    said = "" if record.recipe is not None else "  # it was not loaded by wb.load: make it here"
    for variable in ("model", f"model_{record.fingerprint}"):
        line = f"{variable} = {loading}{said}"
        if lines.setdefault(variable, line) == line:
            return variable
    return "model"


def _source_line(record: Record, name: str, lines: dict[str, str], path: tuple[str, ...]) -> str:
    source = record.sources[name]
    if "vector" in source:
        assert record._records is not None
        where = repr(str(record._records.path)) if record._records.read_only else ""
        return f"wb.records({where})[{record.id!r}].vector({name!r})"
    if "record" not in source:
        lines["sources"] = "sources = {}  # those that left no record: put them here, by name"
        return f"sources[{name!r}]"
    of = found(record, source["record"], name)
    return written_as(of, _variable(of), lines, path)
