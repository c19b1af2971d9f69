"""A file of records that somebody else made: listed, asked, compared, written as Python, and its runs made again."""

from __future__ import annotations

import ast
import json
import os
import re
import sqlite3
import tempfile
import zlib
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch

import workbench as wb
from tests.fuzz import mutate
from tests.fuzz.case import Case, Kind
from tests.fuzz.of_bench import model
from workbench.interventions import InterventionError
from workbench.model.sites import UnknownSite
from workbench.provenance import PLACE, RecordsError, flush
from workbench.provenance.writer import store_of

MOST_STEPS = 1000  # thousands of SQLite's instructions that the changes of one file may take
MARKUP = "<img src=x onerror=alert(1)>$x$\u202e"


@cache
def valid() -> bytes:
    """Five runs, one on a vector, one on another run, one again, one of several rows; and a sweep."""
    kept = os.environ.get(PLACE)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "records.sqlite"
        os.environ[PLACE] = str(path)
        try:
            clean = wb.run(model(), "the cat", name="clean")
            wb.run(
                model(),
                "the dog",
                [wb.Patch("blocks.1.hook_resid_post", "corrupt", (1,), (1,))],
                sources={"corrupt": clean},
            )
            steer = wb.Steer("blocks.1.hook_resid_post", "up", 2.0)
            wb.run(model(), "the cat", [steer], sources={"up": torch.ones(32)}, sites=["blocks.0.hook_resid_post"])
            wb.rerun(clean, [wb.AblateHead(1, 2)])
            wb.run(model(), torch.tensor([[1, 2, 3], [4, 5, 6]]), attention_mask=torch.tensor([[0, 1, 1], [1, 1, 1]]))
            flush(path)
            store_of(path).close()
        finally:
            os.environ.pop(PLACE)
            if kept is not None:
                os.environ[PLACE] = kept
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
            _without_chance(connection)
        return path.read_bytes()


def _without_chance(connection: sqlite3.Connection) -> None:
    """Ids, times and seeds as they would be in every process: an input must follow from its number alone."""
    connection.execute("UPDATE records SET started=1.7e9 + seq, seconds=0.25 * seq, session='5e55105e', seed=seq")
    ids = [id for (id,) in connection.execute("SELECT id FROM records ORDER BY seq")]
    for number, id in enumerate(ids, 1):
        for column in ("id", "sources", "about"):
            connection.execute(f"UPDATE records SET {column}=replace({column}, ?, ?)", (id, f"{number:012x}"))
    connection.execute("VACUUM")


SCHEMAS = (
    "DROP TABLE environments",
    "DROP TABLE vectors",
    "ALTER TABLE records RENAME COLUMN text TO words",
    "ALTER TABLE records ADD COLUMN more TEXT",
    "ALTER TABLE records ADD COLUMN more AS (hex(zeroblob(100000000))) VIRTUAL",
    "ALTER TABLE records RENAME TO old; CREATE VIEW records AS SELECT * FROM old",
    "ALTER TABLE records RENAME TO old; CREATE VIEW records AS SELECT old.* FROM old, (WITH RECURSIVE c(x) AS "
    "(SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c)",
    "ALTER TABLE records RENAME TO old; CREATE VIEW records AS SELECT *, hex(zeroblob(500000000)) AS more FROM old",
    "ALTER TABLE environments RENAME TO o; CREATE VIEW environments AS SELECT digest, hex(zeroblob(400000000)) facts "
    "FROM o",
    "CREATE VIEW more AS SELECT 1",
    "CREATE TRIGGER t AFTER UPDATE ON records BEGIN DELETE FROM records; END",
    "ALTER TABLE records RENAME TO old; CREATE TABLE records AS SELECT * FROM old",
    "PRAGMA user_version=2",
    "PRAGMA application_id=7",
    "PRAGMA user_version=-1",
    "DELETE FROM records",
    "UPDATE records SET seq=seq+9223372036854775000",
    "UPDATE records SET text=hex(zeroblob(30000000))",
)
COLUMNS = (
    "id kind name model fingerprint recipe started seconds session environment tokens shape tokens_digest mask "
    "mask_digest text specs routing sources sites seed result summary about missing pinned"
).split()
JSON = "recipe shape specs sources sites summary about missing".split()
VALUES: tuple[Any, ...] = (
    None,
    "",
    MARKUP,
    b"\xff\0",
    0,
    -1,
    2**62,
    1e308,
    -1e308,
    "9" * 5000,
    "x'; import os; os.system('true') #",
    "a\nb",
    "\0",
    "[" * 100_000,
    "{}",
    "[]",
    "null",
    "5",
    '"a"',
    "NaN",
    zlib.compress(b"\0" * 12),
    zlib.compress(bytes(200_000_000), 1)[:200_000],
)
RECIPES = (
    {"path": "nano"},
    {"path": "nano", "dtype": "float64"},
    {"path": "nano", "device": "nowhere:9"},
    {"path": "nano", "experts": "x"},
    {"path": "somebody/something"},
    {"path": "//example.org/share"},
    {"path": "\\\\example.org\\share"},
    {"path": "../../outside"},
    {"path": ["nano"]},
    {"path": 5},
    {},
    {"path": "nano", "fingerprint": "x"},
    {"path": "nano", "more": 1},
    [],
    "nano",
    {"path": "nano", "dtype": ["float32"]},
    {"path": "hf://x/y"},
    {"path": "\0"},
    {"path": "~nobody/x"},
)
SOURCES = (
    {"corrupt": {"record": "zz"}},
    {"corrupt": {"record": ["x"]}},
    {"corrupt": {"vector": "x"}},
    {"corrupt": "x"},
    {"corrupt": {"why": ["x"]}},
    {"routing_from": {"record": "0000"}},
    {"x');import os#": {"why": "a"}},
    [],
    {"corrupt": {}},
)


def make_records(rng: Random | None) -> Case:
    if rng is None:
        return Case({"r.sqlite": valid()})
    data = valid()
    if rng.random() < 0.3:
        return Case({"r.sqlite": mutate.bytes_of(rng, data)})
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(data)
        # A view without end is for the reader; here it would be read by the next change, into memory or onto the disk.
        left = iter(range(MOST_STEPS))
        connection.set_progress_handler(lambda: next(left, None) is None, 1000)
        for _ in range(rng.choice((1, 1, 2, 3))):
            _change(rng, connection)
        data = connection.serialize()
    return Case({"r.sqlite": mutate.bytes_of(rng, data) if rng.random() < 0.05 else data})


def _change(rng: Random, connection: sqlite3.Connection) -> None:
    kind, seq = rng.randrange(10), rng.randrange(1, 6)
    column = rng.choice(JSON if kind <= 4 else COLUMNS)
    value: Any = rng.choice(VALUES)
    if kind <= 3:
        try:
            found = connection.execute(f"SELECT {column} FROM records WHERE seq=?", (seq,)).fetchone()
        except (sqlite3.Error, MemoryError):  # not there any more, or a view without end
            found = None
        if found and isinstance(found[0], str) and found[0]:
            value = _json(rng, found[0])
    elif kind == 4:
        column, value = rng.choice((("recipe", rng.choice(RECIPES)), ("sources", rng.choice(SOURCES))))
        value = json.dumps(value)
    elif kind == 9:
        try:
            connection.executescript(rng.choice(SCHEMAS))
        except (sqlite3.Error, MemoryError):
            return
        return
    try:
        if kind == 8:
            column = rng.choice(("dtype", "shape", "data"))
            value = rng.choice((value, "load", "float32", "quint8", "[2, 16]", "[-1, -32]", "[1e9]", "__dict__"))
            connection.execute(f"UPDATE vectors SET {column}=?", (value,))
        elif kind == 7:
            connection.execute(
                "UPDATE environments SET facts=?",
                (
                    rng.choice(
                        (value, _json(rng, '{"versions": {"a": "b"}, "machine": {"cores": 1}, "notebook": "x"}'))
                    ),
                ),
            )
        else:
            connection.execute(f"UPDATE records SET {column}=? WHERE seq=?", (value, seq))
    except (sqlite3.Error, OverflowError, MemoryError):
        return


def _json(rng: Random, text: str) -> str:
    try:
        return mutate.tree_of(rng, json.loads(text), 1).encode("utf-8", "replace").decode()
    except (ValueError, RecursionError):
        return "{"


def read_records(folder: Path, case: Case) -> dict[str, Any]:
    """All that can be asked of it; each run as Python and made again, with a model at hand and without."""
    before = (folder / "r.sqlite").read_bytes()
    found = wb.records(folder / "r.sqlite")
    made: dict[str, Any] = {
        "n": len(found),
        "text": repr(found),
        "html": found._repr_html_(),
        "code": [],
        "refused": [],
    }
    made["table"] = found.to_dataframe()
    made["few"] = [
        len(found.filter(text="the", kind="run", fingerprint="a", spec="Patch", since="2020-01-01", pinned=False)),
        found[:2],
    ]
    for record in list(found)[:6]:
        made["text"] += repr(record)
        for ask in (record.code, lambda record=record: record.reload(model()), lambda record=record: _again(record)):
            try:
                said = ask()
            except (RecordsError, InterventionError, UnknownSite) as error:
                made["refused"].append(error)
                continue
            made["code"] += [said] if isinstance(said, str) else []
    if made["n"] > 1:
        made["compared"] = found.compare(0, 1)
        made["html"] += made["compared"]._repr_html_()
        made["text"] += repr(made["compared"])  # for a terminal: it holds markup as it is
    assert (folder / "r.sqlite").read_bytes() == before, "a file that is only read was changed"
    return made


def _again(record: Any) -> Any:
    """Without a model: only what is small."""
    path = record.recipe.get("path") if isinstance(record.recipe, dict) else None
    return None if path == "nano" and record.kind == "run" and len(str(record.recipe)) < 20 else record.reload()


NAMES = re.compile(r"wb|torch|model|run|model_[0-9a-f]+|run_[0-9a-f]+|sources|record_of")
CALLS = re.compile(r"wb\.(load|run|rerun|records)|torch\.(tensor|float32|bfloat16)|wb\.[A-Z]\w+|\.vector|record_of")


def check_records(made: dict[str, Any], folder: Path, case: Case) -> None:
    """What is shown is no markup; the Python calls nothing but what makes runs; refusals are clear."""
    assert "<img" not in made["html"]
    assert len(made["text"]) < 50_000 and "\u202e" not in made["text"]
    for code in made["code"]:
        for node in ast.walk(ast.parse(code)):
            assert not isinstance(node, ast.Name) or NAMES.fullmatch(node.id), node.id
            assert not isinstance(node, ast.Import | ast.ImportFrom) or ast.unparse(node) in IMPORTS
            called = (
                re.sub(r"^wb\.records\(.*\)\[.*\]", "", ast.unparse(node.func), flags=re.S)
                if isinstance(node, ast.Call)
                else "wb.run"
            )
            assert CALLS.fullmatch(called), called
    for error in made["refused"]:
        assert 0 < len(str(error)) < 5000, str(error)[:300]
        str(error).encode()


IMPORTS = ("import torch", "import workbench as wb", "from workbench.activations import record_of")
ERRORS = (RecordsError, InterventionError, UnknownSite)
KINDS = [
    Kind(
        "file of records",
        3,
        ERRORS,
        make_records,
        read_records,
        check_records,
        seconds=8.0,
        code_of=("<template>", "<unknown>"),
    ),
]
