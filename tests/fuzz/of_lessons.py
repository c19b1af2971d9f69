"""Notebooks that were handed in, a student's progress file, and what stands where a sweep's results are put."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import nbformat
import numpy as np
import xarray as xr

from tests.fuzz import mutate
from tests.fuzz.case import Case, Kind
from workbench.lessons.grading.code import Code, needed, read_code
from workbench.lessons.grading.handed_in import collect, read_cells
from workbench.lessons.prediction import Prediction, ask
from workbench.lessons.progress import FILE, Progress
from workbench.sweeps import Grid
from workbench.sweeps.results import Results

# ---------------------------------------------------------------- handed in

CELLS = (
    "import workbench as wb\nlesson = wb.lessons.start('attention', seed=3)",
    "%timeit 1\n!ls\nx = !pwd\n?x",
    "@lesson.solution\ndef f(a, *b, c=1, **d):\n    'doc'\n    return [g(each) for each in a if (y := each)]",
    "def g(x):\n    ...",
    "a.b[0].c(1)\nfor i in range(3):\n    z = lambda q: q + i\ntry:\n    pass\nexcept* E as e:\n    pass",
    "match x:\n    case {'a': [1, *rest]}:\n        pass\nclass A[T](B):\n    x: int = 1",
)
ODD = (
    "(" * 300,
    "[" * 5000 + "]" * 5000,
    "x = " + "-" * 20_000 + "1",
    "1" + "+1" * 3000,
    "a" + ".b" * 3000,
    "lambda: " * 500 + "0",
    "\0",
    "\ud800 = 1",
    "# coding: utf-7\n+AGE-",
    "def f(" + ", ".join(f"a{i}" for i in range(2000)) + "): ...",
    "x = " + "9" * 10_000,
    "if x:\n" * 150 + "  pass",
    "global x\nx = 1",
    "def f():\n  nonlocal x",
    "return 1",
    "yield",
    "await x",
    "def f(a, a): ...",
    "f'{f\"{x!r:{y}}\"}'",
    "__import__('os').system('true')",
    " " * 100_000 + "!",
    "%%bash\nrm -rf x",
    "lessons.start('" * 20_000,
    "lessons . start(" + " " * 100_000,
    "seed=" + "9" * 5000,
)


@cache
def notebook() -> dict[str, Any]:
    # Their ids are drawn at random if they are not said.
    cells = [nbformat.v4.new_code_cell(text, id=f"cell-{i}") for i, text in enumerate(CELLS)]
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata["workbench"] = {"lesson": "04_attention", "seed": 3}
    return json.loads(nbformat.writes(made))


PROGRESS = {
    "version": 1,
    "lessons": {
        "04_attention": {
            "predictions": {
                "a": {"value": "yes", "right": True, "at": "2026-01-01"},
                "b": {"value": 3.0, "right": False, "at": "x"},
            },
            "exercises": {"f": {"passed": False, "attempts": 1, "hints": 2}},
        }
    },
}


def make_notebook(rng: Random | None) -> Case:
    tree = json.loads(json.dumps(notebook()))
    if rng is None:
        return Case({"ann/04_attention.ipynb": json.dumps(tree).encode(), f"ann/{FILE}": json.dumps(PROGRESS).encode()})
    if rng.random() < 0.5:
        tree["cells"][rng.randrange(len(CELLS))]["source"] = rng.choice(
            (rng.choice(ODD), [rng.choice(ODD)], rng.choice(mutate.SCALARS))
        )
    text = mutate.tree_of(rng, tree) if rng.random() < 0.6 else json.dumps(tree)
    data = text.encode("utf-8", "surrogatepass")
    progress = mutate.tree_of(rng, PROGRESS).encode("utf-8", "surrogatepass")
    name = rng.choice(
        ("ann/04_attention.ipynb", "04_attention.ipynb", "ann/x.ipynb", "<b>/04 attention.ipynb", "ann/.x/4.ipynb")
    )
    links = {"bob.ipynb": rng.choice(("../outside/x.ipynb", "bob.ipynb", "ann"))} if rng.random() < 0.1 else {}
    return Case({name: mutate.bytes_of(rng, data) if rng.random() < 0.2 else data, f"ann/{FILE}": progress}, links)


class Refused(ValueError):
    """A line of the report: what cannot be graded ends nothing."""

    __module__ = "workbench.of a line"


def read_notebook(folder: Path, case: Case) -> list[Any]:
    found, problems = collect(folder)
    assert all(isinstance(line, str) and len(line) < 5000 for line in problems)
    made: list[Any] = []
    for each in found:
        code = read_code(read_cells(each.path)[0])
        made.append(
            (each, code, each.predictions(), [(s.binds, s.changes, s.needs, s.is_solution) for s in code.statements])
        )
    if problems:
        raise Refused(problems[0])
    return made


def check_notebook(found: list[Any], folder: Path, case: Case) -> None:
    for each, code, predictions, _ in found:
        assert isinstance(code, Code) and isinstance(each.seed, int)
        assert predictions is None or all(set(made) == {"value", "right", "at"} for made in predictions.values())
        assert all(isinstance(bad.why, str) for bad in code.unreadable)
        needed(code.statements[-1:], code.statements[:-1], ())


# ---------------------------------------------------------------- progress


def make_progress(rng: Random | None) -> Case:
    text = (json.dumps(PROGRESS) if rng is None else mutate.tree_of(rng, PROGRESS)).encode("utf-8", "surrogatepass")
    links = {"link.json": "../outside/x"} if rng is not None and rng.random() < 0.05 else {}
    return Case({FILE: mutate.bytes_of(rng, text) if rng is not None and rng.random() < 0.2 else text}, links)


def read_progress(folder: Path, case: Case) -> dict[str, Any]:
    """As a lesson does: what was predicted is taken up, an exercise checked, a hint read. It never fails: a file that
    cannot be read is set aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        progress = Progress("04_attention", folder / ("link.json" if case.links else FILE))
        kept = progress.read()
        for key, number in (("a", None), ("b", (0, 10))):
            question = ask(
                key,
                "?",
                choices=None if number else ["yes", "no"],
                number=number,
                selection=None,
                answer=5 if number else "yes",
            )
            prediction = Prediction(question, None, "", progress.prediction)
            if made := kept["predictions"].get(key):
                prediction.restore(made.get("value"))
            prediction.outcome_text()
            if not prediction.committed:
                prediction.commit(2 if number else "no")
        progress.attempt("f", "failed", None)
        progress.hint("f")
        progress.attempt("new", "passed", "x = 1")
        return progress.read()


def check_progress(found: dict[str, Any], folder: Path, case: Case) -> None:
    assert found["exercises"]["new"]["passed"] is True
    assert found["exercises"]["f"]["attempts"] >= 1 and found["exercises"]["f"]["hints"] >= 1
    assert {"a", "b"} <= set(found["predictions"])


# ---------------------------------------------------------------- results in a zarr folder


@cache
def results() -> Results:
    made = Results(Grid(layer=[0, 1], token=["a", "\n", "é"]))
    for i, cell in enumerate(made.grid):
        made.record([cell], [{"kl": float(i), "grid": xr.DataArray(np.arange(2.0) * i, dims=("pos",))}])
    return made


@cache
def zarr() -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        results().to_zarr(Path(place) / "r.zarr")
        return {
            path.relative_to(place).as_posix(): path.read_bytes() for path in Path(place).rglob("*") if path.is_file()
        }


def make_zarr(rng: Random | None) -> Case:
    files = dict(zarr())
    if rng is None:
        return Case({}, about=False)
    links = {}
    name = rng.choice(sorted(files))
    if rng.random() < 0.6:
        try:
            files[name] = mutate.tree_of(rng, json.loads(files[name])).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError):
            files[name] = mutate.bytes_of(rng, files[name])
    kind = rng.randrange(6)
    if kind == 0:
        links["r.zarr/kl2"] = "../../outside"
    elif kind == 1:
        files, links = {"x": b""}, {"r.zarr": rng.choice(("x", "nowhere", "../outside", "r.zarr"))}
    elif kind == 2:
        files = {"r.zarr": b"a file"}
    return Case(files, links, rng.random() < 0.8)


def read_zarr(folder: Path, case: Case) -> xr.Dataset:
    """Put in the place of what is there."""
    return results().to_zarr(folder / "r.zarr", overwrite=case.about).load()


def check_zarr(found: xr.Dataset, folder: Path, case: Case) -> None:
    expected = results().to_xarray()
    assert all(found[name].equals(expected[name]) for name in ("kl", "grid", "measured"))
    left = sorted(path.name for path in folder.iterdir())
    assert left in (["r.zarr"], ["r.zarr", "x"]), left


KINDS = [
    Kind(
        "notebook handed in",
        8,
        (Refused, ValueError),
        make_notebook,
        read_notebook,
        check_notebook,
        seconds=8.0,
        code_of=("<unknown>", "<cell>"),
    ),
    Kind("progress file", 4, (), make_progress, read_progress, check_progress),
    Kind("zarr folder", 1, (FileExistsError,), make_zarr, read_zarr, check_zarr, seconds=8.0),
]
