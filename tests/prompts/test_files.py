"""Pairs in files: what is stored comes back, and what is unfit is listed, never cut."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.prompts import Loaded, Pair, PromptError, load_pairs, misfit, pairs, save_pairs, token_ids
from workbench.text import Tokenizer

GOOD = {"clean": "Mia met Tom and", "corrupt": "Mia met Sam and", "right": " Tom", "wrong": " Sam"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return wb.load("nano").text


def jsonl(folder: Path, *entries: object) -> Path:
    path = folder / "people.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("task", ["docstring", "channel copying", "indirect object"])
def test_what_is_saved_comes_back(kind: str, task: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    made = pairs(tokenizer, task, 6, 0)
    save_pairs(made, tmp_path / f"pairs.{kind}")
    assert load_pairs(tmp_path / f"pairs.{kind}", tokenizer) == made


def test_token_ids_come_back_from_json_lines_and_do_not_fit_a_csv(tokenizer: Tokenizer, tmp_path: Path) -> None:
    made = [Pair((40, 41), (40, 42), 43, 44, "ids")]
    save_pairs(made, tmp_path / "ids.jsonl")
    assert load_pairs(tmp_path / "ids.jsonl", tokenizer) == load_pairs(tmp_path / "ids.jsonl", None) == made
    with pytest.raises(PromptError, match=r"a CSV holds only text.*write a \.jsonl"):
        save_pairs(made, tmp_path / "ids.csv")


def test_chats_are_stored_as_the_tokens_that_they_render_to(tokenizer: Tokenizer, tmp_path: Path) -> None:
    asked = [wb.Chat().user(f"Where does {person} live?") for person in ("Mia", "Tom")]
    save_pairs([Pair(asked[0], asked[1], " park", " mill")], tmp_path / "chats.jsonl", tokenizer)
    (pair,) = load_pairs(tmp_path / "chats.jsonl", tokenizer)
    assert (pair.clean, pair.corrupt) == tuple(token_ids(chat, tokenizer) for chat in asked)


def test_every_unfit_entry_is_listed_in_one_error_with_its_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        GOOD,
        GOOD | {"corrupt": "Mia met and"},
        GOOD | {"right": " a long answer"},
        {"clean": "Mia", "corupt": "Tom", "right": " a", "wrong": " the"},
        GOOD | {"corrupt": GOOD["clean"]},
        GOOD | {"wrong": " Tom"},
        GOOD | {"right": ["Tom"]},
        ["not", "an", "object"],
        GOOD | {"clean": [5, 99999], "corrupt": [5, 6]},
        GOOD | {"clean": "\ud800", "corrupt": "a"},
    )
    path.write_text(path.read_text(encoding="utf-8") + "{broken\n\n", encoding="utf-8")
    with pytest.raises(PromptError) as caught:
        load_pairs(path, tokenizer)
    text = str(caught.value)
    assert "10 of 11 entries cannot be used; mend them, or pass skip_misaligned=True" in text
    for line, reason in {
        2: "clean is 4 tokens and corrupt 3; they must be as many",
        3: "right ' a long answer' is",
        4: "missing 'corrupt' (there is 'corupt')",
        5: "clean and corrupt are the same tokens",
        6: "right and wrong are the same token",
        7: "right is ['Tom'], expected text, or an id",
        8: "a JSON list, expected an object",
        9: "token id 99999 is out of range: there are 0 to 1023",
        10: "half of a surrogate pair",
        11: "not JSON: Expecting property name",
    }.items():
        assert any(entry.startswith(f"  line {line}: ") and reason in entry for entry in text.split("\n")), reason
    assert [entry.line for entry in caught.value.refused] == list(range(2, 12))


def test_on_request_the_usable_ones_come_beside_the_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = jsonl(tmp_path, GOOD | {"corrupt": "Mia"}, GOOD | {"task": "mine"}, GOOD)
    loaded = load_pairs(path, tokenizer, skip_misaligned=True)
    assert isinstance(loaded, Loaded)
    assert [pair.task for pair in loaded.pairs] == ["mine", "people"]
    assert [(entry.line, "as many" in entry.reason) for entry in loaded.refused] == [(1, True)]
    assert json.loads(loaded.refused[0].entry) == GOOD | {"corrupt": "Mia"}


def test_a_csv_tells_the_line_that_an_entry_starts_in(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = 'clean,corrupt,right,wrong\n"a\nb","a\nc", Tom, Sam\n"Mia","Mia Tom", Tom, Sam\none,two\n'
    path.write_bytes(b"\xef\xbb\xbf" + rows.encode())  # with the mark that spreadsheets put first
    loaded = load_pairs(path, tokenizer, skip_misaligned=True)
    assert [pair.clean for pair in loaded.pairs] == ["a\nb"]
    assert [entry.line for entry in loaded.refused] == [5, 6]
    assert loaded.refused[1].reason == "2 columns, and the header names 4"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"clean": "caf\xe9"}', r"is not UTF-8 text: line 1 holds the byte 0xe9"),
        ("a.csv", b"clean,corrupt\nx,\xff\n", r"is not UTF-8 text: line 2 holds the byte 0xff"),
        ("a.jsonl", b"\x00\x01\x02", r"holds a NUL character"),
        ("a.jsonl", b"\n\n", r"holds no pairs; expected one a line, with the fields clean, corrupt, right, wrong"),
        ("a.csv", b"clean,corrupt,right,wrong\n", r"holds no pairs"),
        ("a.csv", b'clean,corrupt\n"x', r"is not CSV: line 2: unexpected end of data"),
        ("a.txt", b"x", r"pairs are kept as \.jsonl or \.csv, not \.txt"),
    ],
)
def test_a_bad_file_gives_one_clear_error(
    name: str, content: bytes, message: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptError, match=message):
        load_pairs(tmp_path / name, tokenizer)


def test_a_missing_file_or_a_folder_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("nowhere.jsonl", "folder.jsonl"):
        with pytest.raises(PromptError, match=rf"{name} cannot be read"):
            load_pairs(tmp_path / name, tokenizer)


def test_more_than_twenty_are_cut_in_the_text_and_whole_in_the_error(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"and 5 more: they are all in this error's \.refused") as caught:
        load_pairs(jsonl(tmp_path, *[GOOD | {"corrupt": "Mia"}] * 25), tokenizer)
    assert len(caught.value.refused) == 25


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@settings(max_examples=60)
@given(clean=TEXT, corrupt=TEXT, right=TEXT, wrong=TEXT, kind=st.sampled_from(["jsonl", "csv"]))
def test_any_text_is_either_given_back_or_refused_with_the_reason_that_misfit_gives(
    clean: str, corrupt: str, right: str, wrong: str, kind: str, tokenizer: Tokenizer, tmp_path_factory
) -> None:
    pair, path = Pair(clean, corrupt, right, wrong, "any"), tmp_path_factory.mktemp("any") / f"one.{kind}"
    save_pairs([pair], path)
    loaded = load_pairs(path, tokenizer, skip_misaligned=True)
    reason = misfit(pair, tokenizer)
    assert loaded.pairs == ([pair] if reason is None else [])
    assert [entry.reason for entry in loaded.refused] == ([] if reason is None else [reason])
