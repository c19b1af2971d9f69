"""Atlas folders that somebody else made, opened and asked, or gone on with; and files of a corpus."""

from __future__ import annotations

import gzip
import io
import json
import re
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import workbench as wb
from tests.fuzz import mutate
from tests.fuzz.case import Case, Kind
from tests.fuzz.of_bench import model
from tests.fuzz.of_texts import CHAT
from tests.fuzz.tokenizers import tiny
from workbench.atlases import AtlasError
from workbench.atlases.corpus import documents
from workbench.atlases.documents import Document
from workbench.atlases.queries import Atlas
from workbench.text import Chat, HarmonyError, TokenizerError, render

TEXTS = ["the cat sat on the mat", "the dog", "<|start|>user<|message|>the end<|end|>", "a naïve café"]
CORPUS = [{"text": text, "id": f"d{i}", "domain": "ab"[i % 2]} for i, text in enumerate(TEXTS)]
LAST = "parts/000001.json"

# ---------------------------------------------------------------- an atlas


def build(folder: Path) -> Atlas:
    return wb.atlas(model(), CORPUS, folder, part_tokens=8, sites=["blocks.0.hook_resid_post"], progress=False)


@cache
def whole() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        build(Path(place) / "atlas").close()
        about = Path(place) / "atlas" / "atlas.json"  # an input must follow from its number alone, not from the time
        about.write_text(
            re.sub(r'"made": "[^"]*"', '"made": "2026-01-01T00:00:00+00:00"', about.read_text("utf-8")), "utf-8"
        )
        paths = [path for path in sorted(Path(place).rglob("*")) if path.is_file()]
        return {path.relative_to(place).as_posix(): path.read_bytes() for path in paths}


@cache
def routes() -> pd.DataFrame:
    """Of the valid atlas."""
    with tempfile.TemporaryDirectory() as place, build(Path(place) / "atlas") as made:
        return made.sql("select * from routing order by document, position, layer, slot")


NAMES = (
    "routing/../../../outside/x.parquet",
    "/etc/passwd",
    "routing//etc/passwd",
    "routing/*.parquet",
    "routing/",
    "routing/000000.parquet ",
    "routing/\0",
    "documents/../routing/000000.parquet",
    "routing/a'b.parquet",
    "routing/" + "a" * 300,
    "https://example.org/routing/x.parquet",
    "routing/\ud800",
    "atlas.json",
    "",
    "routing",
    "routing/link.parquet",
    "routing/loop.parquet",
)


@cache
def many_rows() -> bytes:
    """Two million rows of one value in some kilobytes."""
    n, out = 2_000_000, io.BytesIO()
    table = pq.read_table(io.BytesIO(whole()["atlas/routing/000000.parquet"]))
    pq.write_table(pa.table({c: pa.repeat(table[c][0].as_py() or 0, n) for c in table.column_names}), out)
    return out.getvalue()


def other_columns(rng: Random, data: bytes) -> bytes:
    """Parquet that can be read, of other columns, types, numbers and rows."""
    table, out = pq.read_table(io.BytesIO(data)), io.BytesIO()
    for _ in range(rng.choice((1, 1, 2, 4))):
        if table.num_columns:
            try:
                table = _other(rng, table, rng.randrange(table.num_columns))
            except pa.ArrowException:  # what Arrow cannot make is no input
                break
    try:
        pq.write_table(table, out)
    except (pa.ArrowException, ValueError):
        return data
    return out.getvalue()


def _other(rng: Random, table: pa.Table, at: int) -> pa.Table:
    name, n = table.column_names[at], table.num_rows
    made: dict[int, Callable[[], pa.Table]] = {
        0: lambda: table.remove_column(at),
        1: lambda: table.rename_columns(
            [rng.choice(("x", "", 'a"b', "token", "A'")) if c == name else c for c in table.column_names]
        ),
        2: lambda: table.set_column(at, name, pa.nulls(n)),
        3: lambda: table.set_column(at, name, pa.array(rng.choices((-1, 0, 2**31, 2**62, -(2**63), 300, 7), k=n))),
        4: lambda: table.set_column(
            at, name, pa.array(rng.choices((float("nan"), float("inf"), -1.0, 1e300, None), k=n), pa.float64())
        ),
        5: lambda: table.set_column(
            at, name, pa.array(rng.choices(("", "a", "\0", "<b>", "9", None, "a" * 9999), k=n))
        ),
        6: lambda: table.set_column(at, name, pa.array([[1, 2]] * n)),
        7: lambda: table.set_column(at, name, pa.array([{"a": 1}] * n)),
        8: lambda: table.slice(0, rng.choice((0, 1, n // 2))),
        9: lambda: pa.concat_tables([table] * rng.choice((2, 50))),
        10: lambda: table.set_column(at, name, pa.array([b"\xff\0"] * n)),
        11: lambda: table.append_column(rng.choice(("x", name, "filename")), pa.nulls(n)),
        12: lambda: table.set_column(at, name, pa.array([10**12] * n, pa.timestamp("s"))),
        13: lambda: table.take(pa.array(rng.sample(range(n), n), pa.int64())),
    }
    return made[rng.randrange(len(made))]()


def make_atlas(rng: Random | None) -> Case:
    files = dict(whole())
    if rng is None:
        return Case(files)
    links: dict[str, str] = {}
    name, forged = rng.choice([*sorted(files), "atlas/atlas.json", f"atlas/{LAST}"]), False
    kind = rng.randrange(10)
    if kind == 0:
        record = json.loads(files[f"atlas/{LAST}"])
        there = rng.choice(sorted(record["files"]))
        record["files"] |= {rng.choice(NAMES): record["files"].pop(there)}
        files[f"atlas/{LAST}"] = json.dumps(record).encode()
        forged = True
    elif kind == 1:
        forged = _linked(rng, files, links)
    elif name.endswith(".json") and rng.random() < 0.85:
        files[name] = mutate.tree_of(rng, json.loads(files[name])).encode("utf-8", "surrogatepass")
        forged = True
    elif name.endswith(".parquet"):
        files[name] = rng.choice(
            (
                lambda: mutate.bytes_of(rng, files[name]),
                lambda: other_columns(rng, files[name]),
                lambda: other_columns(rng, files[name]),
                lambda: files[rng.choice([each for each in sorted(files) if each.endswith(".parquet")])],
                lambda: many_rows() if rng.random() < 0.2 else files[name][: rng.randrange(len(files[name]))],
            )
        )()
        if rng.random() < 0.8:  # whoever changes a file can say so in its part's record
            forged = _said(files, name)
    elif rng.random() < 0.4:
        del files[name]
    else:
        files[name] = mutate.bytes_of(rng, files[name])
    return Case(files, links, "forged" if forged or name.startswith("atlas/tokenizer") else "damaged")


def _linked(rng: Random, files: dict[str, bytes], links: dict[str, str]) -> bool:
    """Something in it is a link to elsewhere."""
    out = rng.choice(("../../outside", "../../../outside"))
    for name in rng.sample(
        ("build.lock", "routing", "documents", "parts", "tokenizer", "atlas.json", "vocabulary.parquet"), 2
    ):
        for each in [each for each in files if each == f"atlas/{name}" or each.startswith(f"atlas/{name}/")]:
            del files[each]
        links[f"atlas/{name}"] = f"../../outside{rng.choice(('', '/x'))}" if rng.random() < 0.8 else out
    return True


def _said(files: dict[str, bytes], name: str) -> bool:
    number, short = name[-14:-8], name.removeprefix("atlas/")
    path = f"atlas/parts/{number}.json"
    if path in files:
        record = json.loads(files[path])
        record["files"][short] = [len(files[name]), zlib.crc32(files[name])]
        files[path] = json.dumps(record).encode()
    return True


def read_atlas(folder: Path, case: Case) -> list[Any]:
    """Opened, and asked all that it can be asked."""
    with wb.atlas.open(folder / "atlas") as found:
        inside = (folder / "atlas").resolve()
        files = [Path(file).resolve() for each in found.database._files.values() for file in each]
        assert all(file.is_relative_to(inside) for file in files), "it reads files of elsewhere"
        return [
            repr(found),
            found.sql("select * from routing limit 5"),
            found.top(0, 1, 3),
            found.top(1, 0, 2, by="random", per_document=1),
            found.contexts(0, 1, 2, before=2, after=2),
            found.load(),
            found.specialisation("domain"),
            found.coactivation(1),
            found.neighbours(0, 1, 2),
            found.activations("blocks.0.hook_resid_post", [0]),
            found.texts([1, 2, 300]),
            found.compare(found, 2),
            found.tokenizer,
        ]


def check_atlas(found: list[Any], folder: Path, case: Case) -> None:
    assert all(isinstance(text, str) for text in found[-3])
    assert all(context.tokens[context.centre] is not None for context in found[4])


def read_continued(folder: Path, case: Case) -> Path:
    """What is not whole is written anew; nothing is written anywhere else."""
    build(folder / "atlas").close()
    return folder / "atlas"


def check_continued(found: Path, folder: Path, case: Case) -> None:
    """Of a damaged atlas, the same comes out as of a new one."""
    if case.about == "damaged":
        with wb.atlas.open(found) as made:
            pd.testing.assert_frame_equal(
                made.sql("select * from routing order by document, position, layer, slot"), routes()
            )


# ---------------------------------------------------------------- a corpus

LOGS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Where is Mia?"}]},
    {
        "role": "assistant",
        "content": "Here.",
        "thinking": "Hm.",
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": "[1]"},
]
ROWS: list[Any] = [
    {"text": "the cat", "id": "a", "domain": "x", "language": "en"},
    {"messages": LOGS, "id": 7},
    {"tokens": [1, 2, 3]},
    {"messages": CHAT},
]


@cache
def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": TEXTS, "id": ["a", "b", "c", "d"], "domain": ["x", None, "y", "x"]}), out)
    return out.getvalue()


def make_corpus(rng: Random | None, largest: int = 30_000_000) -> Case:
    """``largest``: bytes that a small compressed file may become."""
    lines = "\n".join(map(json.dumps, ROWS[:3])).encode()
    if rng is None:
        return Case({"c.jsonl": lines, "c.parquet": parquet(), "a.txt": "the café".encode()}, about=".")
    kind = rng.randrange(10)
    if kind <= 4:
        rows = [
            mutate.tree_of(rng, row, 1) if rng.random() < 0.4 else json.dumps(row)
            for row in ROWS[: rng.randrange(1, 5)]
        ]
        data = "\n".join(rows).encode("utf-8", "surrogatepass")
        data = mutate.bytes_of(rng, data) if rng.random() < 0.3 else data
        name = "c.jsonl"
    elif kind <= 6:
        name = "c.parquet"
        data = rng.choice((mutate.bytes_of, other_columns, _of_lists))(rng, parquet())
    elif kind == 7:
        data, name = mutate.bytes_of(rng, "the café\n".encode() * 50), "c.txt"
    else:
        raw = rng.choice((lines, bytes(largest) if rng.random() < 0.05 else b"the cat\n" * 99))
        data, name = (
            mutate.bytes_of(rng, gzip.compress(raw, 1, mtime=0), rng.choice((0, 1, 2))),
            rng.choice(("c.jsonl.gz", "c.txt.gz")),
        )
    links = {"link.txt": rng.choice(("../outside/x", "link.txt", "nowhere"))} if rng.random() < 0.1 else {}
    where = "." if links or rng.random() < 0.2 else name
    return Case({name: data, **({"x/y.bin": b"a", "x/.hidden.txt": b"\xff"} if where == "." else {})}, links, where)


def make_to_run(rng: Random | None) -> Case:
    """Without what is sound and takes the model an hour."""
    return make_corpus(rng, largest=30_000)


def _of_lists(rng: Random, data: bytes) -> bytes:
    """Rows of token ids and of messages, some of them none."""
    out = io.BytesIO()
    ids: list[Any] = [[1, 2], rng.choice(([], [-1], [2**40], None, [None], [1.5])), [3]]
    said = pa.array(
        [[{"role": "user", "content": "a"}], rng.choice(([], None, [{"role": "x", "content": None}])), None]
    )
    table = {"tokens": pa.array([row and [float(i) if i is not None else None for i in row] for row in ids])}
    if rng.random() < 0.7:
        table = {"tokens": pa.array([row if row != [1.5] else [1] for row in ids])}
    pq.write_table(pa.table(table if rng.random() < 0.6 else {"messages": said}), out)
    return mutate.bytes_of(rng, out.getvalue()) if rng.random() < 0.3 else out.getvalue()


def read_corpus(folder: Path, case: Case) -> list[Document]:
    """With what is no document left out; then, where nothing was, refused at the first."""
    list(islice(documents(folder / case.about, bad="skip"), 5000))
    return list(islice(documents(folder / case.about, domain="d"), 5000))


def check_corpus(found: list[Document], folder: Path, case: Case) -> None:
    """Each has a name and a content, and becomes tokens or is refused in our words."""
    for each in found[:20]:
        assert isinstance(each.id, str) and isinstance(each.content, str | Chat | tuple) and each.size > 0
        assert isinstance(each.domain, str) and json.loads(each.identity)
        try:
            if isinstance(each.content, Chat):
                render(each.content, tiny(), add_generation_prompt=False)
            elif isinstance(each.content, str):
                tiny().encode(each.content[:10_000])
        except (ValueError, HarmonyError) as error:
            assert type(error).__module__.startswith("workbench") or "surrogate" in str(error)


def read_built(folder: Path, case: Case) -> Atlas:
    with wb.atlas(model(), folder / case.about, folder / "atlas", bad="skip", max_length=16, progress=False) as made:
        return made


def check_built(found: Atlas, folder: Path, case: Case) -> None:
    assert found.complete and found.n_tokens >= 0


# What opens an atlas raises these: of the atlas itself, and of the tokenizer in it.
ERRORS = (AtlasError, TokenizerError, FileNotFoundError)
TEMPLATES = ("<template>", "<unknown>")
KINDS = [
    Kind("atlas folder", 1, ERRORS, make_atlas, read_atlas, check_atlas, seconds=8.0),
    Kind("atlas gone on with", 1, (AtlasError,), make_atlas, read_continued, check_continued, seconds=8.0),
    Kind("corpus file", 10, (AtlasError,), make_corpus, read_corpus, check_corpus, code_of=TEMPLATES),
    Kind("corpus in an atlas", 1, (AtlasError,), make_to_run, read_built, check_built, seconds=8.0, code_of=TEMPLATES),
]
