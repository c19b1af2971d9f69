"""An atlas of nano on a small corpus, and the same routes as ``wb.run`` has them, one document at a time."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import workbench as wb
from workbench.atlases.documents import Document, document
from workbench.atlases.queries import Atlas
from workbench.model import HookedGptOss
from workbench.text import Chat, label
from workbench.training.microworld import DOCUMENTS

MAX_LENGTH = 64  # below the longest documents, so that some are cut
CHATS = [
    Chat().user("Where is Mia?").assistant("Mia is in the park.", "analysis").assistant("In the park."),
    Chat().developer("Answer in French.").user("Who is Tom?").assistant("A baker."),
]


def corpus(n: int = 36, seed: int = 0) -> list[Document]:
    """Microworld documents of every domain in turn, in three languages that are only names, and two chats."""
    drawn, names = random.Random(seed), list(DOCUMENTS)
    made = [document(DOCUMENTS[names[i % len(names)]](drawn), f"d{i}") for i in range(n)]
    made = [Document(each.content, each.id, each.domain, ("x", "y", None)[i % 3]) for i, each in enumerate(made)]
    return made + [Document(chat, f"chat{i}", "logs") for i, chat in enumerate(CHATS)]


@pytest.fixture(scope="session")
def nano() -> HookedGptOss:
    return wb.load("nano")


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    return corpus()


@pytest.fixture(scope="session")
def folder(nano, documents, tmp_path_factory) -> Path:
    """As if built in one go, in several parts."""
    place = tmp_path_factory.mktemp("atlas") / "whole"
    wb.atlas(nano, documents, place, max_length=MAX_LENGTH, part_tokens=350, batch_tokens=256, progress=False)
    return place


@pytest.fixture(scope="session")
def atlas(folder) -> Atlas:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return wb.atlas.open(folder)


@pytest.fixture(scope="session")
def ids(nano, documents) -> list[list[int]]:
    """The tokens of each document."""
    render = {"add_generation_prompt": False}
    return [
        nano.to_tokens(each.content, **(render if isinstance(each.content, Chat) else {}))[0].tolist()
        for each in documents
    ]


def routes_of(model, ids, documents, interventions=()) -> pd.DataFrame:
    """The long form from ``wb.run``, a window at a time."""
    parts = []
    for number, (row, given) in enumerate(zip(ids, documents, strict=True)):
        labels = label(row, model.text)
        for start in range(0, len(row), MAX_LENGTH):
            run = wb.run(model, row[start : start + MAX_LENGTH], interventions)
            for layer in range(model.config.n_layers):
                experts, weights = (
                    run[f"blocks.{layer}.mlp.hook_expert_{kind}"][0].numpy() for kind in ("indices", "weights")
                )
                pos, slot = np.indices(experts.shape)
                at = (start + pos).ravel()
                parts.append(
                    pd.DataFrame(
                        {
                            "document": number, "position": at, "layer": layer, "slot": slot.ravel(),
                            "token": np.array(row)[at], "expert": experts.ravel(), "weight": weights.ravel(),
                            "role": [labels.role[i] for i in at], "channel": [labels.channel[i] for i in at],
                            "domain": given.domain, "language": given.language,
                        }
                    )
                )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="session")
def truth(nano, ids, documents) -> pd.DataFrame:
    return routes_of(nano, ids, documents)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in an atlas' folder but when it was made and the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("atlas.json", "build.lock")
    }


KEY = ["document", "position", "layer", "slot"]


def same_routes(found: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Equal in everything, weights to float32's rounding in another batch; and no route but at a tie."""
    found, truth = (table.sort_values(KEY).reset_index(drop=True) for table in (found, truth))
    assert len(found) == len(truth) > 0
    for name in ("document", "position", "layer", "slot", "token", "expert"):
        np.testing.assert_array_equal(found[name].to_numpy(np.int64), truth[name].to_numpy(np.int64), name)
    for name in ("role", "channel", "domain", "language"):
        assert found[name].fillna("").tolist() == truth[name].fillna("").tolist(), name
    np.testing.assert_allclose(found["weight"], truth["weight"], atol=1e-5, rtol=0)
