"""Journals, prompt files, dictionaries, and vectors that a browser sends."""

from __future__ import annotations

import base64
import csv
import io
import json
import pickle
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors.torch import save

from tests.dictionaries.trained import random_weights
from tests.fuzz import mutate
from tests.fuzz.case import Case, Kind
from tests.fuzz.of_checkpoints import damaged_tensors
from tests.fuzz.tokenizers import tiny
from workbench.checkpoints import CheckpointError
from workbench.dictionaries import Dictionary, load_dictionary, save_dictionary
from workbench.prompts import PromptError, load_pairs, save_pairs
from workbench.sweeps.journal import HEAD, Journal, JournalError, _batch, framed
from workbench.widgets.views.steering_files import from_file

# ---------------------------------------------------------------- journals

GRID = xr.DataArray(
    np.arange(6, dtype=np.float32).reshape(2, 3),
    {"layer": [0, 1], "token": ("pos", ["a", "\n", "é"])},
    ("layer", "pos"),
    "grid",
    {"unit": "nat"},
)
CELLS = [
    [("a", {"value": 0.1}), ("b", {"value": 2, "flag": True, "nan": float("nan")})],
    [("c", {"grid": GRID})],
    [("d", {"value": 4.0})],
]


@cache
def journal() -> bytes:
    with tempfile.TemporaryDirectory() as place, Journal(place, "study") as made:
        for batch in CELLS:
            made.append(batch)
        (path,) = made.place.glob("*.cells")
        return path.read_bytes()


@cache
def payloads() -> list[bytes]:
    found, data = [], journal()
    while data:
        n = HEAD.unpack(data[: HEAD.size])[1]
        found.append(data[HEAD.size : HEAD.size + n])
        data = data[HEAD.size + n :]
    return found


def make_journal(rng: Random | None) -> Case:
    about = b'{"begun": "x", "measure": "m"}'
    if rng is None:
        return Case({"study/x.cells": journal(), "study/study.json": about, "other/study.json": about})
    files = {"study/study.json": about, "other/study.json": about}
    forged = rng.random() < 0.6
    if forged:  # a whole record, with its length and checksum, that we did not write
        line, _, raw = rng.choice(payloads()).partition(b"\n")
        text = mutate.tree_of(rng, json.loads(line)).encode("utf-8", "surrogatepass")
        text = mutate.bytes_of(rng, text) if rng.random() < 0.2 else text
        files["study/x.cells"] = framed(payloads()[0]) + framed(text + b"\n" + raw)
    else:
        data = mutate.bytes_of(rng, journal())
        if rng.random() < 0.3:
            data = (
                data[:4] + rng.choice((2**31, 2**31 - 1, 2**32 - 1, 0, 1, len(data))).to_bytes(4, "little") + data[8:]
            )
        files["study/x.cells"] = data
    if rng.random() < 0.3:
        files["other/study.json"] = mutate.tree_of(rng, {"begun": "x"}).encode("utf-8", "surrogatepass")
    return Case(files, about="forged" if forged else "damaged")


def read_journal(folder: Path, case: Case) -> list[Any]:
    _batch.cache_clear()  # of the journal that was in this folder before
    found = Journal(folder, "study")
    others = found.others()
    assert all(isinstance(about, dict) for about in others.values()), "a study that is no object"
    places = list(found.places())
    for _, value, place in places:
        assert place.read().keys() == value.keys()
    return places


def check_journal(found: list[Any], folder: Path, case: Case) -> None:
    """Every cell has a name and numbers; of a damaged file, only cells that were written."""
    for name, value, _ in found:
        assert isinstance(name, str) and all(
            isinstance(each, bool | int | float | xr.DataArray) for each in value.values()
        )
    if case.about == "damaged":
        written = [name for batch in CELLS for name, _ in batch]
        assert [name for name, _, _ in found] == written[: len(found)]


# ---------------------------------------------------------------- prompts

ROWS = [
    {"clean": "the cat", "corrupt": "the dog", "right": "a", "wrong": "b", "task": "t"},
    {"clean": [1, 2, 3], "corrupt": [1, 2, 4], "right": 5, "wrong": 6},
    {"clean": "x\u2028y", "corrupt": "x\u2029y", "right": "c", "wrong": 7},
]


def make_prompts(rng: Random | None) -> Case:
    if rng is None:
        return Case({"p.jsonl": "\n".join(map(json.dumps, ROWS)).encode()}, about="p.jsonl")
    if rng.random() < 0.6:
        lines = [mutate.tree_of(rng, row) if rng.random() < 0.25 else json.dumps(row) for row in ROWS]
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
        return Case({"p.jsonl": mutate.bytes_of(rng, data) if rng.random() < 0.3 else data}, about="p.jsonl")
    out = io.StringIO()
    writer = csv.writer(out)
    words = ["a", "the cat", 'q"q', "x\ny", "", "é", "\0", "=1+1", "5", "a" * 200_000]
    writer.writerow(["clean", "corrupt", "right", "wrong", "task"][: rng.choice((5, 5, 4, 3))])
    for _ in range(rng.randrange(4)):
        writer.writerow([rng.choice(words) for _ in range(rng.choice((5, 5, 4, 6)))])
    data = out.getvalue().encode()
    return Case({"p.csv": mutate.bytes_of(rng, data) if rng.random() < 0.7 else data}, about="p.csv")


def read_prompts(folder: Path, case: Case) -> tuple[Any, list[Any]]:
    loaded = load_pairs(folder / case.about, tiny(), skip_misaligned=True)
    assert all(str(each).startswith("line ") and len(str(each)) < 2000 for each in loaded.refused)
    return loaded, load_pairs(folder / case.about, tiny())


def check_prompts(found: tuple[Any, list[Any]], folder: Path, case: Case) -> None:
    loaded, pairs = found
    assert loaded.pairs == pairs and not loaded.refused
    save_pairs(pairs, folder / "again.jsonl", tiny())
    assert load_pairs(folder / "again.jsonl", tiny()) == pairs


# ---------------------------------------------------------------- dictionaries

D, N = 6, 20


class Runs:
    def __reduce__(self) -> Any:
        return exec, ("import pathlib; pathlib.Path('ran').touch()",)


@cache
def saelens() -> tuple[dict[str, bytes], ...]:
    made = []
    for kind in ("relu", "topk", "jumprelu", "gated"):
        with tempfile.TemporaryDirectory() as place:
            extra = {"k": 4} if kind == "topk" else {}
            save_dictionary(
                Dictionary(random_weights(kind, D, N), kind, site="blocks.1.hook_resid_post", **extra), place
            )
            made.append({path.name: path.read_bytes() for path in Path(place).iterdir()})
    return tuple(made)


@cache
def pickled() -> dict[str, bytes]:
    weights, out = random_weights("jumprelu", D, N), io.BytesIO()
    torch.save(
        {
            "encoder.weight": weights["W_enc"].T.contiguous(),
            "encoder.bias": weights["b_enc"],
            "decoder.weight": weights["W_dec"].T.contiguous(),
            "b_dec": weights["b_dec"],
            "threshold": torch.tensor(0.1),
            "k": torch.tensor(4),
        },
        out,
    )
    trainer = {
        "dict_class": "BatchTopKSAE",
        "activation_dim": D,
        "dict_size": N,
        "layer": 1,
        "lm_name": "x",
        "submodule_name": "resid_post_layer_1",
        "k": 4,
    }
    return {"config.json": json.dumps({"trainer": trainer}).encode(), "ae.pt": out.getvalue()}


def make_dictionary(rng: Random | None) -> Case:
    if rng is None:
        return Case(saelens()[0])
    files = dict(rng.choice((*saelens(), pickled())))
    name = rng.choice(sorted(files))
    if name.endswith(".json"):
        files[name] = mutate.tree_of(rng, json.loads(files[name])).encode("utf-8", "surrogatepass")
    elif name.endswith(".safetensors"):
        data = files[name]
        if rng.random() < 0.4:
            kind = rng.choice((torch.float8_e4m3fn, torch.int64, torch.float16, torch.bool))
            shape = rng.choice(((D, N), (N, D), (N,), (), (0,), (1, N)))
            data = save({each: torch.zeros(shape, dtype=kind) for each in ("W_enc", "b_enc", "W_dec", "b_dec")})
        files[name] = damaged_tensors(rng, data)
    else:
        files[name] = rng.choice(
            (
                lambda: mutate.bytes_of(rng, files[name]),
                lambda: pickle.dumps(Runs()),
                lambda: pickle.dumps({"a": Runs()}),
                lambda: zipped(rng),
                lambda: b"",
            )
        )()
    if rng.random() < 0.05:
        del files[rng.choice(sorted(files))]
    return Case(files)


def zipped(rng: Random) -> bytes:
    """A torch file with something else in it than tensors."""
    out = io.BytesIO()
    try:
        torch.save(
            rng.choice(
                (
                    {"a": {1, 2}},
                    [1],
                    {"encoder.weight": 1},
                    {"x": Runs()},
                    {1: torch.zeros(2)},
                    {"a": torch.zeros(2, 2).to_sparse()},
                )
            ),
            out,
        )
    except Exception:  # what cannot be written is no input
        return b"PK"
    return out.getvalue()


def check_dictionary(found: Dictionary, folder: Path, case: Case) -> None:
    """It reads a vector, and what it saves is read as the same."""
    x = torch.ones(3, found.d_model, dtype=found.W_enc.dtype)
    assert found.encode(x).shape == (3, found.n_features)
    assert found.decode(found.encode(x), like=x).shape == x.shape
    assert found.site is None or isinstance(found.site, str)
    save_dictionary(found, folder / "again")
    again = load_dictionary(folder / "again")
    assert all(
        torch.equal(again.state_dict()[name].nan_to_num(7), tensor.nan_to_num(7))
        for name, tensor in found.state_dict().items()
    )


# ---------------------------------------------------------------- vectors


def make_vector(rng: Random | None) -> Case:
    numbers = np.linspace(-1, 1, 8)
    npy = io.BytesIO()
    np.save(npy, numbers)
    kinds = {
        "v.npy": npy.getvalue(),
        "v.json": json.dumps(list(numbers)).encode(),
        "v.safetensors": save({"vector": torch.from_numpy(numbers)}),
    }
    if rng is None:
        return Case({}, about=("v.npy", base64.b64encode(kinds["v.npy"]).decode()))
    name = rng.choice(sorted(kinds))
    data = kinds[name]
    if name == "v.json":
        data = mutate.tree_of(rng, rng.choice((list(numbers), {"vector": list(numbers)}))).encode(
            "utf-8", "surrogatepass"
        )
    elif name == "v.npy" and rng.random() < 0.5:
        head = rng.choice(
            (
                "{'descr': '|O', 'fortran_order': False, 'shape': (8,), }",
                "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000,), }",
                "__import__('os').system('true')",
                "{'descr': '<f8', 'fortran_order': False, 'shape': (2, -4), }",
                "(" * 5000,
            )
        ).encode()
        data = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data[128:]
    else:
        data = damaged_tensors(rng, data) if name == "v.safetensors" else mutate.bytes_of(rng, data)
    text = base64.b64encode(data).decode()
    if rng.random() < 0.1:
        text = mutate.bytes_of(rng, text.encode()).decode("latin-1")
    return Case({}, about=(rng.choice((name, name, name, "v", "v.pkl", "../v.npy", "\u202e.npy")), text))


def check_vector(found: list[float], folder: Path, case: Case) -> None:
    assert len(found) == 8 and np.isfinite(found).all()


KINDS = [
    Kind("sweep journal", 14, (JournalError,), make_journal, read_journal, check_journal),
    Kind("prompt file", 14, (PromptError,), make_prompts, read_prompts, check_prompts),
    Kind(
        "dictionary folder",
        10,
        (CheckpointError,),
        make_dictionary,
        lambda folder, case: load_dictionary(folder),
        check_dictionary,
    ),
    Kind(
        "vector of a browser",
        8,
        (ValueError,),
        make_vector,
        lambda folder, case: from_file(*case.about, 8),
        check_vector,
        code_of=("<unknown>",),
    ),  # ast.literal_eval, which makes a tree and runs nothing
]
