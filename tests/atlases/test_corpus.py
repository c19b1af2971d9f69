"""Every form of corpus gives the same documents, a few at a time, and what is none is named with its place."""

from __future__ import annotations

import gzip
import itertools
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from workbench.atlases import CorpusError
from workbench.atlases.corpus import LONGEST, documents
from workbench.atlases.documents import Document
from workbench.text import Chat

LOG = [
    {"role": "system", "content": "Answer in French."},
    {"role": "user", "content": [{"type": "text", "text": "Where is "}, {"type": "text", "text": "Mia?"}]},
    {"role": "assistant", "content": "Dans le parc.", "thinking": "She is in the park."},
]
CHAT = Chat().developer("Answer in French.").user("Where is Mia?")
CHAT = CHAT.assistant("She is in the park.", "analysis").assistant("Dans le parc.")


def read(corpus, **given):
    return list(documents(corpus, **given))


def test_a_list_may_hold_texts_chats_ids_mappings_and_documents_together():
    given = ["one", CHAT, [5, 6], torch.tensor([7, 8]), np.array([9]), {"text": "two", "id": 3, "domain": "d"},
             {"messages": LOG, "language": "fr"}, {"tokens": [1, 2]}, Document("three", "mine")]  # fmt: skip
    found = read(given)
    assert [each.content for each in found] == ["one", CHAT, (5, 6), (7, 8), (9,), "two", CHAT, (1, 2), "three"]
    assert [each.id for each in found] == ["0", "1", "2", "3", "4", "3", "6", "7", "mine"]
    assert [each.domain for each in found] == [None] * 5 + ["d"] + [None] * 3
    assert found[6].language == "fr"


def test_a_corpus_is_pulled_a_document_at_a_time():
    pulled = []

    def endless():
        for i in itertools.count():
            pulled.append(i)
            yield f"text {i}"

    assert [each.content for each in itertools.islice(documents(endless()), 3)] == ["text 0", "text 1", "text 2"]
    assert pulled == [0, 1, 2]


def test_files_of_each_kind_and_a_folder_of_them_give_their_documents_in_the_order_of_their_names(tmp_path):
    rows = [{"text": "one", "domain": "d", "language": "en", "id": "first", "more": 1}, {"messages": LOG}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text("\ufeff" + lines + "\n\n", encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "c.txt").write_text("The whole file.\n\nIs one document.\n", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    table = pa.table({"text": ["three", None], "messages": [None, LOG[:1]], "domain": ["p", None]})
    pq.write_table(table, tmp_path / "sub" / "d.parquet")
    (tmp_path / "notes.csv").write_text("not a corpus")
    first = [("first", "one", "d", "en"), ("{}:2", CHAT, None, None)]
    asked = Chat().developer("Answer in French.")
    expected = [
        *[(id.format("a.jsonl"), *rest) for id, *rest in first],
        *[(id.format("b.jsonl.gz"), *rest) for id, *rest in first],
        ("c.txt", "The whole file.\n\nIs one document.\n", None, None),
        ("sub/d.parquet:0", "three", "p", None),
        ("sub/d.parquet:1", asked, None, None),
    ]
    found = read(tmp_path)
    assert [(each.id, each.content, each.domain, each.language) for each in found] == expected
    assert read(str(tmp_path / "a.jsonl")) == found[:2]
    frame = pd.DataFrame({"text": ["x", "y"], "domain": ["d", None]})
    assert [(each.content, each.domain) for each in read(frame)] == [("x", "d"), ("y", None)]


def test_a_very_long_text_is_read_as_several_documents_cut_at_ends_of_lines(tmp_path):
    path = tmp_path / "long.txt"
    text = "".join(f"Line {i}: naïve café – 東京.\n" for i in range(110_000))
    path.write_text(text, encoding="utf-8")
    found = read(path)
    assert len(found) > 2 and "".join(each.content for each in found) == text
    assert all(each.content.endswith("\n") and len(each.content) < LONGEST + 100 for each in found)
    assert [each.id for each in found] == [f"long.txt:{i}" for i in range(len(found))]
    endless = tmp_path / "line.txt"
    endless.write_text("é" * (5 * LONGEST), encoding="utf-8")  # one line, which no cut may tear inside a character
    assert "".join(each.content for each in read(endless)) == "é" * (5 * LONGEST)


def test_a_datasets_dataset_is_read_row_by_row():
    datasets = pytest.importorskip("datasets")
    rows = {"text": ["one", "two"], "domain": ["a", "b"]}
    made = datasets.Dataset.from_dict(rows)
    for each in (made, made.to_iterable_dataset()):
        assert [(one.content, one.domain) for one in read(each)] == [("one", "a"), ("two", "b")]
    with pytest.raises(CorpusError, match=r"DatasetDict holds \['train'\]: pass one"):
        read(datasets.DatasetDict({"train": made}))


def test_domain_and_language_are_what_was_said_and_nothing_else():
    given = ["one", {"text": "two", "domain": "own"}]
    assert [each.domain for each in read(given)] == [None, None, "own"][1:]
    assert [each.domain for each in read(given, domain="d")] == ["d", "own"]
    assert [each.domain for each in read(given, domain=["a", "b"], language="en")] == ["a", "own"]
    assert [each.domain for each in read(given, domain=lambda each: str(each.content)[0])] == ["o", "own"]
    by_domain = {"x": ["one"], "y": [{"text": "two", "domain": "own"}, "three"]}
    assert [each.domain for each in read(by_domain)] == ["x", "own", "y"]
    for few in (["a"], ["a", "b", "c"]):
        with pytest.raises(CorpusError, match=r"domain= .*expected one a document|entries in domain="):
            read(given, domain=few)


WRONG = {
    "not JSON": ('{"text": "one"', "line 2: not JSON"),
    "an array": ("[1, 2]", "line 2: a list, expected an object"),
    "no content": ('{"txt": "one"}', "line 2: it has the fields 'txt': expected 'text', 'messages' or 'tokens'"),
    "a number": ('{"text": 3}', "line 2: text is 3, expected a string"),
    "no messages": ('{"messages": []}', r"line 2: messages is \[\], expected a list"),
    "another role": ('{"messages": [{"role": "bot", "content": ""}]}', r"line 2: messages\[0\]: role is 'bot'"),
    "no tool": ('{"messages": [{"role": "tool", "content": "3"}]}', r"messages\[0\]: a tool's result that names no"),
    "negative id": ('{"tokens": [3, -1]}', "line 2: "),
    "bytes": (b"\xff", "line 2: not UTF-8: the byte 0xff"),
}


@pytest.mark.parametrize("line, said", WRONG.values(), ids=WRONG)
def test_a_bad_line_is_named_with_its_file_and_number_and_can_be_skipped(tmp_path, line, said):
    path = tmp_path / "bad.jsonl"
    raw = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(b'{"text": "good"}\n' + raw + b'\n{"text": "also good"}\n')
    with pytest.raises(CorpusError, match=f"bad.jsonl, {said}".replace("bad.jsonl, messages", ".*messages")):
        read(path)
    assert [each.content for each in read(path, bad="skip")] == ["good", "also good"]


def test_what_is_no_corpus_is_refused_in_words(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("text\n")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "other.parquet")
    for corpus, said in (
        ("no such file", "there is no file or folder 'no such file'"),
        (CHAT, "a Chat is no corpus"),
        (3, "a int is no corpus"),
        ({"text": "one"}, "is one document: expected a list"),
        (tmp_path / "empty", "holds no file that ends in"),
        (tmp_path / "table.csv", "expected a file that ends in"),
        (tmp_path / "torn.parquet", "is no Parquet file"),
        (tmp_path / "other.parquet", "has the columns words: expected text, messages or tokens"),
        ([object()], "0: <object object .* is no document"),
    ):
        with pytest.raises(CorpusError, match=said):
            read(corpus)


def test_tool_calls_in_a_log_keep_their_names_and_results():
    call = {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    log = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": None, "tool_calls": [call]},
           {"role": "tool", "tool_call_id": "c1", "content": "sunny"}]  # fmt: skip
    (found,) = read([{"messages": log}])
    assert found.content == Chat().user("Weather?").call("weather", {"city": "Rome"}).tool("weather", "sunny")
