"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench as wb
from workbench import experiments, interventions, prompts, text
from workbench.experiments import Circuit, Node, Receiver

ROOT = Path(__file__).resolve().parents[2]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def collected() -> list[doctest.DocTest]:
    """Every docstring with an example; only the files that have one are imported."""
    names = [
        found.name
        for found in pkgutil.walk_packages([str(ROOT / "workbench")], "workbench.")
        if not found.name.endswith("__main__")
    ]
    tests = []
    for name in ["workbench", *names]:
        path = ROOT / name.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.is_file() and ">>>" in file.read_text(encoding="utf-8"):
            found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
            tests += [test for test in found if test.examples]
    return tests


EXAMPLES = collected()


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """What docs/generator/reference.py says that the examples begin with."""
    model = wb.load("nano")
    pair = prompts.pairs(model, "indirect object", n=1)[0]
    run = wb.run(model, pair.clean, sites="all")
    return {
        "np": np, "wb": wb, "experiments": experiments, "interventions": interventions, "prompts": prompts,
        "text": text, "Circuit": Circuit, "Node": Node, "Receiver": Receiver, "Chat": wb.Chat,
        "model": model, "pair": pair, "run": run,
    }  # fmt: skip


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_an_example_gives_what_it_says(example: doctest.DocTest, known: dict[str, Any], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example.globs = dict(known)
    said: list[str] = []
    failed = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.append)
    assert not failed.failed, "".join(said)


def test_the_main_functions_have_an_example():
    names = {example.name.rpartition(".")[2] for example in EXAMPLES}
    assert {"load", "run", "rerun", "Chat", "Grid", "pairs", "logit_lens", "routing", "patching_grid"} <= names
    assert len(EXAMPLES) >= 40
