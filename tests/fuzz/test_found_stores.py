"""What fuzzing found in atlases, corpora, records, lessons and zarr folders, and in the patterns of tokenizers."""

from __future__ import annotations

import gzip
import io
import json
import os
import sqlite3
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import workbench as wb
from tests.fuzz import of_atlases, of_lessons, of_records
from tests.fuzz.case import Case, put
from tests.fuzz.kinds import KINDS
from tests.fuzz.of_bench import model
from tests.fuzz.tokenizers import tiny_folder
from workbench.atlases import AtlasError, CorpusError
from workbench.atlases.corpus import documents
from workbench.atlases.database import reading
from workbench.lessons.grading.code import read_code
from workbench.lessons.prediction import Prediction, ask
from workbench.lessons.progress import FILE, Progress
from workbench.provenance import RecordsError, schema
from workbench.sweeps.journal import Journal, JournalError, framed
from workbench.text import Tokenizer, TokenizerError, bounds
from workbench.text.bounds import LINEAR, may_search_long
from workbench.training.bpe import PIECES

DEEP = "[" * 100_000 + "]" * 100_000

# ---------------------------------------------------------------- patterns of a tokenizer


def tokenizer(folder: Path, pattern: str | None = None, **parts: Any) -> Tokenizer:
    for name, data in tiny_folder().items():
        (folder / name).write_bytes(data)
    if pattern is not None:
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        plain = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        parts["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, plain]}
    made = json.loads((folder / "tokenizer.json").read_text()) | parts
    (folder / "tokenizer.json").write_text(json.dumps(made))
    return Tokenizer.from_directory(folder)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(?=(a+)+b)c|a", "[ab]*[^ab]", "(?=a*c)a", "(?=a*a*a*c)a"])
def test_a_pattern_that_backtracks_ends_in_seconds_in_an_error(
    tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bounds, "SECONDS", 0.1)
    made, began = tokenizer(tmp_path, pattern), time.thread_time()
    with pytest.raises(TokenizerError, match=r"takes too long|cannot encode"):
        made.encode("a" * 20_000 + "!")
    assert time.thread_time() - began < 20


def test_an_unknown_pattern_of_linear_time_reads_long_texts_as_the_library_does(tmp_path: Path):
    made, text = tokenizer(tmp_path, r"\w+|\s+|."), "the cat sat on the mat, " * 2000
    assert made.encode(text) == made.backend.encode(text, add_special_tokens=False).ids


def test_nano_and_gpt_oss_are_known_to_be_linear_and_are_not_tried():
    nano = wb.load("nano").tokenizer
    assert nano is not None and PIECES in LINEAR and not may_search_long(nano.backend)


REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "Sequence", "normalizers": [REPLACE] * 40}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 20}},
        {"normalizer": {**REPLACE, "pattern": {"String": ""}, "content": "a" * 1000}},
        {"decoder": {"type": "Sequence", "decoders": [REPLACE] * 40}},
        {"decoder": {**REPLACE, "pattern": {"Regex": "a*"}}},
    ],
    ids=range(5),
)
def test_replacements_that_grow_without_end_are_refused_at_once(tmp_path: Path, parts: dict[str, Any]):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: its "):
        tokenizer(tmp_path, **parts)


# ---------------------------------------------------------------- atlases and corpora


def atlas(folder: Path, change: Callable[[dict[str, bytes], dict[str, str]], None]) -> Path:
    files, links = dict(of_atlases.whole()), dict[str, str]()
    change(files, links)
    put(folder, Case(files, links))
    return folder / "atlas"


@pytest.mark.parametrize(
    "about",
    [DEEP, '{"identity": 5}', "{}"],
)
def test_an_atlas_json_that_is_none_is_refused(tmp_path: Path, about: str):
    with pytest.raises(AtlasError, match=r"atlas\.json"):
        wb.atlas.open(atlas(tmp_path, lambda files, _: files.update({"atlas/atlas.json": about.encode()})))


@pytest.mark.parametrize(
    "change",
    [
        {"n_layers": 10**12},
        {"n_experts": 10**9},
        {"n_slots": 0},
        {"n_slots": 10**6},
        {"interventions": 5},
        {"complete": []},
    ],
    ids=str,
)
def test_an_atlas_of_absurd_sizes_is_refused_before_anything_is_reserved(tmp_path: Path, change: dict[str, Any]):
    about = json.loads(of_atlases.whole()["atlas/atlas.json"]) | change
    with pytest.raises(AtlasError, match="does not describe an atlas"):
        wb.atlas.open(atlas(tmp_path, lambda files, _: files.update({"atlas/atlas.json": json.dumps(about).encode()})))


@pytest.mark.parametrize("name", of_atlases.NAMES)
def test_a_part_names_its_own_files_and_no_others(tmp_path: Path, name: str):
    def change(files: dict[str, bytes], _: dict[str, str]) -> None:
        record = json.loads(files[f"atlas/{of_atlases.LAST}"])
        record["files"] |= {name: record["files"]["routing/000001.parquet"]}
        files[f"atlas/{of_atlases.LAST}"] = json.dumps(record).encode()

    with pytest.warns(UserWarning, match="its record cannot be read"), wb.atlas.open(atlas(tmp_path, change)) as made:
        assert all(part.number != 1 for part in made.parts)


@pytest.mark.parametrize("name", ["build.lock", "routing", "parts", "tokenizer", "vocabulary.parquet", "atlas.json"])
def test_what_is_a_link_in_an_atlas_is_not_written_through(tmp_path: Path, name: str):
    def change(files: dict[str, bytes], links: dict[str, str]) -> None:
        for each in [each for each in files if each == f"atlas/{name}" or each.startswith(f"atlas/{name}/")]:
            del files[each]
        links[f"atlas/{name}"] = "../../elsewhere"

    (tmp_path / "inside").mkdir()
    with pytest.raises(AtlasError, match="leads elsewhere"):
        of_atlases.build(atlas(tmp_path / "inside", change))
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_tables_of_other_columns_end_in_one_error_and_are_still_asked_with_sql(tmp_path: Path):
    def change(files: dict[str, bytes], _: dict[str, str]) -> None:
        name, out = "atlas/routing/000000.parquet", io.BytesIO()
        table = pq.read_table(io.BytesIO(files[name]))
        at = table.column_names.index("expert_0")
        pq.write_table(table.set_column(at, "expert_0", pa.array([200] * len(table), pa.uint8())), out)
        files[name] = out.getvalue()
        record = json.loads(files["atlas/parts/000000.json"])
        record["files"]["routing/000000.parquet"] = [len(out.getvalue()), zlib.crc32(out.getvalue())]
        files["atlas/parts/000000.json"] = json.dumps(record).encode()

    with wb.atlas.open(atlas(tmp_path, change)) as made:
        with pytest.raises(AtlasError, match="do not hold what they should"):
            made.load()
        assert len(made.sql("select * from routing"))


@pytest.mark.parametrize("cut", [20, 60])
def test_a_gz_of_a_corpus_that_is_cut_or_damaged_is_refused(tmp_path: Path, cut: int):
    data = gzip.compress(b"the cat sat\n" * 500)
    for name in ("c.txt.gz", "c.jsonl.gz"):
        for damaged in (data[:cut], data[:15] + b"\xff" * 9 + data[24:]):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(CorpusError):
                list(documents(tmp_path / name))


def test_one_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workbench.atlases.corpus.LONGEST_LINE", 1000)
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "a" * 2000}))
    with pytest.raises(CorpusError, match="line 1 has more than 1,000 bytes"):
        list(documents(tmp_path / "c.jsonl", bad="skip"))


def test_a_parquet_of_values_that_python_cannot_say_is_refused(tmp_path: Path):
    pq.write_table(pa.table({"text": ["a"], "id": pa.array([10**12], pa.timestamp("s"))}), tmp_path / "c.parquet")
    with pytest.raises(CorpusError, match="cannot be read"):
        list(documents(tmp_path / "c.parquet", bad="skip"))


def test_a_call_in_a_chat_log_that_is_no_object_is_refused_with_its_message():
    with pytest.raises(CorpusError, match=r"messages\[0\]"):
        list(documents([{"messages": [{"role": "assistant", "content": "", "tool_calls": [5]}]}]))


# ---------------------------------------------------------------- records


def records(folder: Path, change: str, *given: Any) -> Any:
    path = folder / "r.sqlite"
    path.write_bytes(of_records.valid())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if given:
            connection.execute(change, given)
        else:
            connection.executescript(change)
    return wb.records(path)


def tree_without_end(data: bytes) -> bytes:
    """The file with 6 levels of pages above the records, each with 300 times the one below: 3.6e15 records in 60 KB."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(data)
        # Without the index that records are counted by, they are counted themselves.
        connection.executescript(
            "ALTER TABLE records RENAME TO o; CREATE TABLE records AS SELECT * FROM o; DROP TABLE o"
        )
        connection.execute("VACUUM")
        data = connection.serialize()
        ((root,), (size,)) = (
            connection.execute(query).fetchone()
            for query in ("SELECT rootpage FROM sqlite_master WHERE name='records'", "PRAGMA page_size")
        )
    pages = [data[at : at + size] for at in range(0, len(data), size)]
    leaf, levels = pages[root - 1], 6
    pages += [bytes(size)] * (levels - 1) + [leaf]
    for level, number in enumerate([root, *range(len(pages) - levels + 1, len(pages))]):
        below = len(pages) - levels + 1 + level
        cells = [below.to_bytes(4, "big") + b"\x01"] * 300
        first = size - 5 * len(cells)
        head = bytes([5, 0, 0]) + len(cells).to_bytes(2, "big") + first.to_bytes(2, "big") + b"\0"
        places = b"".join((first + 5 * i).to_bytes(2, "big") for i in range(len(cells)))
        page = head + below.to_bytes(4, "big") + places
        pages[number - 1] = page.ljust(first, b"\0") + b"".join(cells)
    whole = b"".join(pages)
    return whole[:28] + len(pages).to_bytes(4, "big") + whole[32:]


@pytest.mark.parametrize("ask", [len, repr, lambda found: len(found.filter(text="nowhere")), list])
def test_a_file_whose_pages_name_each_other_without_end_is_refused_in_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Any], Any]
):
    monkeypatch.setattr(schema, "SECONDS", (1.0, 0.0))
    (tmp_path / "r.sqlite").write_bytes(tree_without_end(of_records.valid()))
    began = time.thread_time()
    with pytest.raises(RecordsError, match=r"longer to read than a whole file of its size|not in their order"):
        ask(wb.records(tmp_path / "r.sqlite"))
    assert time.thread_time() - began < 10


def test_half_characters_in_records_are_shown_and_stand_in_a_table(tmp_path: Path):
    found = records(
        tmp_path, "UPDATE records SET summary=?, name=CAST(x'c641' AS TEXT)", '{"mean_kl": "\\ud800", "\\ud800": 1}'
    )
    assert "\ufffdA" in repr(found) and next(iter(found.to_dataframe()["mean_kl"])) == "?"


def test_two_records_compared_turn_no_line_round_whatever_their_files_name(tmp_path: Path):
    found = records(tmp_path, "UPDATE records SET summary=? WHERE seq=2", json.dumps({"\u202eabc": 1.0}))
    compared = found.compare(-1, -2)
    assert "abc" in repr(compared)
    assert "\u202e" not in repr(compared) + compared._repr_html_()


def test_why_a_record_cannot_be_made_again_is_short_whatever_its_file_says(tmp_path: Path):
    found = records(tmp_path, "UPDATE records SET missing=?", json.dumps({"specs": {"a" * 100_000: "b" * 100_000}}))
    with pytest.raises(RecordsError, match="not all of it was kept") as refused:
        found[-1].code()
    assert len(str(refused.value)) < 2000


@pytest.mark.parametrize("name", ["id", "domain", "language"])
def test_a_name_with_half_a_character_is_refused_where_it_stands(tmp_path: Path, name: str):
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "the cat", name: "\ud800"}))
    with pytest.raises(CorpusError, match=rf"c\.jsonl.*{name} is .* no character"):
        list(documents(tmp_path / "c.jsonl"))


def test_what_a_journal_is_refused_for_can_be_printed(tmp_path: Path):
    journal = Journal(tmp_path, "study")
    coords = '{"\\ud800": {"dims": ["a"], "data": [0]}}'
    cell = (
        '[["c", {"v": {"at": 0, "dtype": "<f8", "shape": [1], "dims": ["b"], "coords": %s, "name": "v", "attrs": {}}}]]'
    )
    (tmp_path / "study" / "x.cells").write_bytes(framed((cell % coords).encode() + b"\n" + bytes(8)))
    with pytest.raises(JournalError, match="none of ours") as refused:
        list(journal.read())
    assert str(refused.value).encode()


def test_memory_that_is_not_enough_for_a_question_is_an_error_of_the_atlas():
    with pytest.raises(AtlasError, match="compare: memory is not enough"), reading("compare"):
        raise duckdb.OutOfMemoryException("Failed to allocate block")


def test_what_is_made_up_is_the_same_in_every_process():
    program = (
        "import hashlib, sys; from random import Random; from tests.fuzz.kinds import KINDS\n"
        "for kind in KINDS:\n"
        "    cases = [kind.make(None), *(kind.make(Random(f'1 {kind.name} {i}')) for i in range(4))]\n"
        "    said = repr([(sorted(case.files.items()), case.about) for case in cases]).encode()\n"
        "    print(kind.name, hashlib.sha256(said).hexdigest())"
    )
    said = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "WORKBENCH_RECORDS": "off", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": seed},
        )
        for seed in "12"
    ]
    first, second = (process.communicate(timeout=300)[0].decode().splitlines() for process in said)
    assert first == second and len(first) == len(KINDS)


@pytest.mark.parametrize(
    "change",
    [
        each
        for each in of_records.SCHEMAS
        if "VIEW rec" in each or "VIEW env" in each or "VIRTUAL" in each or "TRIGGER" in each
    ],
)
def test_records_whose_file_brings_sql_of_its_own_are_refused_before_it_runs(tmp_path: Path, change: str):
    with pytest.raises(RecordsError, match="which no file of ours has"):
        len(records(tmp_path, change))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "x'; import os; os.system('true') #"),
        ("fingerprint", "0\nimport os"),
        ("recipe", '{"path": 5}'),
        ("recipe", '{"path": "nano", "more": 1}'),
        ("shape", "[-1, 3]"),
        ("shape", "[3]"),
        ("shape", "[1000000, 1000000]"),
        ("specs", "[5]"),
        ("sources", '{"a": 5}'),
        ("about", DEEP),
        ("name", b"\xff"),
        ("sites", "[5]"),
        ("seconds", "x"),
        ("started", 1e308),
        ("about", '{"rerun": {"base": "x y"}}'),
        ("tokens", "text"),
    ],
)
def test_a_column_that_is_not_as_we_write_it_makes_its_record_damaged(tmp_path: Path, column: str, value: Any):
    found = records(tmp_path, f"UPDATE records SET {column}=? WHERE seq=1", value)
    with pytest.raises(RecordsError, match="is damaged") as caught:
        _ = found[-1]
    assert len(str(caught.value)) < 1000 and str(caught.value).isascii()


@pytest.mark.parametrize(
    "path", ["somebody/something", "//example.org/share", "\\\\example.org\\share", "hf://a/b", "\0"]
)
def test_records_of_another_file_fetch_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str):
    module = sys.modules["workbench.activations.records"]
    monkeypatch.setattr(module, "load_once", lambda recipe: pytest.fail(f"loads {recipe}"))
    found = records(tmp_path, "UPDATE records SET recipe=?", json.dumps({"path": path}))
    with pytest.raises(RecordsError, match="fetch nothing"):
        found[-1].reload()
    assert found[-1].reload(model()).provenance["reproduced"] == 1


def test_what_a_run_refuses_of_a_record_is_an_error_of_the_record(tmp_path: Path):
    found = records(
        tmp_path, "UPDATE records SET about=json_set(about, '$.rerun.columns', 'x') WHERE about LIKE '%rerun%'"
    )
    with pytest.raises(RecordsError, match=r"cannot be made again: .*columns="):
        next(each for each in found if each.about.get("rerun")).reload(model())


# ---------------------------------------------------------------- lessons and zarr


@pytest.mark.parametrize(
    "mine",
    [
        [],
        {"predictions": 5},
        {"exercises": {"f": 5}},
        {"exercises": {"f": {"hints": "x"}}},
        {"predictions": {"a": "yes"}},
        {"exercises": {"f": {"attempts": None}}},
    ],
    ids=str,
)
def test_a_progress_file_of_other_types_is_set_aside_and_a_new_one_begins(tmp_path: Path, mine: Any):
    (tmp_path / FILE).write_text(json.dumps({"lessons": {"04_attention": mine}}))
    with pytest.warns(UserWarning, match="it is kept as"):
        Progress("04_attention", tmp_path / FILE).hint("f")
    assert len(list(tmp_path.glob("*.broken-*"))) == 1
    assert Progress("04_attention", tmp_path / FILE).read()["exercises"]["f"]["hints"] == 1


def test_a_progress_file_without_counts_or_with_half_a_character_is_gone_on_with(tmp_path: Path):
    kept = {"04_attention": {"exercises": {"f": {"passed": True}}}, "other": {"x": "\ud800"}}
    (tmp_path / FILE).write_text(json.dumps({"lessons": kept}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Progress("04_attention", tmp_path / FILE).attempt("f", "failed", None)
    whole = json.loads((tmp_path / FILE).read_text())["lessons"]
    assert whole["other"] == {"x": "\ud800"} and whole["04_attention"]["exercises"]["f"]["attempts"] == 1
    (tmp_path / FILE).write_text(DEEP)
    with pytest.warns(UserWarning, match="it is kept as"):
        assert Progress("x", tmp_path / FILE).read() == {"predictions": {}, "exercises": {}}


@pytest.mark.parametrize("value", [10**400, [1], {}, "x", True, None])
def test_a_kept_prediction_that_is_no_answer_is_as_if_none_had_been_made(value: Any):
    question = ask("a", "?", choices=None, number=(0, 10), selection=None, answer=5)
    made = Prediction(question, None, "", lambda *said: None)
    made.restore(value)
    assert not made.committed


@pytest.mark.parametrize(
    "source", ["def f(a, a): ...", "def f():\n  nonlocal x", "x = " + "-" * 20_000 + "1", "a" + ".b" * 3000]
)
def test_a_cell_that_parses_and_is_no_python_spoils_only_itself(source: str):
    cells = [{"cell_type": "code", "source": text, "metadata": {}} for text in (source, "x = 1")]
    code = read_code(cells)
    assert [each.cell for each in code.unreadable] == [0] and code.binding("x")


@pytest.mark.parametrize("there", ["a file", "a link to a folder", "a link to nothing", "a link to itself"])
def test_results_are_put_in_the_place_of_a_file_or_link_and_what_it_leads_to_stays(tmp_path: Path, there: str):
    path, kept = tmp_path / "r.zarr", tmp_path / "kept"
    kept.mkdir()
    (kept / "x").write_text("x")
    if there == "a file":
        path.write_text("x")
    else:
        path.symlink_to({"a link to a folder": kept, "a link to nothing": tmp_path / "no"}.get(there, path))
    with pytest.raises(FileExistsError):
        of_lessons.results().to_zarr(path)
    assert of_lessons.results().to_zarr(path, overwrite=True)["kl"].equals(of_lessons.results().to_xarray()["kl"])
    assert (kept / "x").read_text() == "x" and sorted(each.name for each in tmp_path.iterdir()) == ["kept", "r.zarr"]


def test_a_vocabulary_of_other_things_than_texts_shows_ids(tmp_path: Path):
    def change(files: dict[str, bytes], _: dict[str, str]) -> None:
        out = io.BytesIO()
        pq.write_table(pa.table({"token": pa.array([1, 2], pa.int32()), "text": pa.array([5, None])}), out)
        files["atlas/vocabulary.parquet"] = out.getvalue()

    with wb.atlas.open(atlas(tmp_path, change)) as made:
        assert made.texts([1, 2, 3]) == ["1", "2", "3"]
