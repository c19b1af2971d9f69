"""Tokens, names, labels and files that want to be something else: in every view and export they are text, no more.

In a browser: tests/browser/test_hostile.py.
"""

import ast
import builtins
import csv
import io
import json
import random
import shutil
import zipfile

import numpy as np
import pytest

import workbench as wb
from tests.widgets import hostile
from tests.widgets.every_view import VIEWS
from tests.widgets.hostile import BROKEN, IMG, LONG, MARKUP, NAMES, PYTHON, RAN, SHEET, TEXT, TOKENS, UNSEEN, Markup
from workbench.text.harmony.chat import Message
from workbench.widgets import Bench, chats, workspace
from workbench.widgets.export import export, guarded
from workbench.widgets.names import check_name, variable
from workbench.widgets.wire import clean


@pytest.fixture(scope="module")
def bench():
    """With everything in it that a user, a model or a file can bring, in every view."""
    made = hostile.bench(open=list(VIEWS))
    hostile.fill(made)
    yield made
    made.close()


@pytest.fixture
def small():
    """For what changes it."""
    made = Bench(hostile.model(), (1, 2, 3), open=["tokens"])
    yield made
    made.close()


def ran(cell, bench):
    """What came of a cell: its variables, and what ran that should not have."""
    caught = []
    scope = {RAN: caught, "model": bench.model, "print": lambda *words, **how: None}
    builtins.__dict__[RAN] = property(lambda self: caught.append(2))
    try:
        exec(compile(cell, "cell", "exec"), scope)
    finally:
        del builtins.__dict__[RAN]
    return scope, caught


# ---------------------------------------------------------------- HTML


def test_the_model_says_hostile_things_alone(bench):
    ids = bench.base.logits[0].topk(5).indices.unique().tolist()
    first = bench.model.config.d_vocab - len(TOKENS)
    assert all(i >= first or i in map(hostile.byte, BROKEN) for i in ids) and len(ids) > 20


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_makes_an_element_of_a_text_where_there_is_no_script(bench, view):
    page = Markup(bench[view].static())
    assert page.wrong == [] and hostile.turning(page.seen) == []
    if view not in ("history", "generation"):
        assert any(text[:20] in page.seen for text in MARKUP[:10])


def test_an_exported_page_holds_text_alone_and_forbids_the_rest(bench):
    made = export(bench.session, "html")
    assert made.name == "workbench-bench.html"
    page = made.content.decode()
    seen = Markup(page.replace("<!doctype html>", ""))
    assert seen.wrong == [] and hostile.turning(seen.seen) == []
    assert NAMES[0] in seen.seen and "default-src 'none'" in page
    assert all(text in seen.seen for text in MARKUP)
    assert "\\u202eevil" in seen.seen and "\\xff" in seen.seen


def test_what_stands_beside_the_widget_in_a_notebook_is_text_alone(bench):
    page = Markup(bench._beside())
    assert page.wrong == [] and hostile.turning(page.seen) == []
    assert hostile.turning(repr(bench)) == []


@pytest.mark.parametrize("view", VIEWS)
def test_a_figure_holds_no_markup_of_theirs(bench, view):
    made = bench[view].figure()
    drawn = made.to_plotly_json()
    drawn["layout"].pop("meta", None)  # is never drawn
    for text in hostile.strings(drawn):
        assert not any(
            piece in text for piece in ("<img", "<script", "<svg", "<a ", "<iframe", "<style", "<!--", "<b>x")
        )
        assert hostile.turning(text) == [] and "$" not in text
    page = made.to_html(include_plotlyjs=False)
    assert page.count("<script") == page.count("</script>") and RAN not in page.split("<script", 1)[0]
    assert f"</script><script>window.{RAN}" not in page


# ---------------------------------------------------------------- messages


def test_what_crosses_to_the_browser_is_short_visible_and_json(bench):
    asks = {
        "attention": [{"what": "layer", "layer": 1}, {"what": "text"},
                      {"what": "line", "layer": 1, "head": 0, "position": 5}],
        "routing": [{"what": "ribbon"}, {"what": "layer", "layer": 1}, {"what": "unchosen", "layer": 1, "position": 5},
                    {"what": "corpus", "layer": 1, "expert": 0}],
        "patching": [{"kind": "prompts"}, {}],
        "steering": [{}, {"what": "text"}, {"what": "effect"}],
        "logit_lens": [{}, {"part": "cell", "position": 5, "stage": 2}, {"part": "lines"}],
        "generation": [{"next": True}],
        "atlas": [{}, {"what": "contexts"}, {"what": "spread"}, {"what": "effects"}],
        "graph": [{}, {"what": "edits"}],
    }  # fmt: skip
    said = []
    bench.session.send = lambda message, arrays: said.append(message)
    try:
        for view in VIEWS:
            said += [bench[view].data(ask)[0] for ask in asks.get(view, [{}])]
    finally:
        bench.session.send = bench._push
    for text in hostile.strings(json.loads(json.dumps(clean(said), allow_nan=False))):
        assert len(text) <= 2500 and hostile.turning(text) == [], text[:100]


def test_an_error_that_quotes_somebody_is_short_and_visible(small):
    bench, said = small, []
    bench.send, kept = lambda message, buffers=None: said.append(message), bench.send
    try:
        for text in (*UNSEEN, *MARKUP, LONG, "\ud800"):
            for action in (
                {"kind": "answer", "right": text, "wrong": text},
                {"kind": text},
                {"kind": "show", "run": text},
                {"kind": "open", "views": [text]},
                {"kind": "pair", "prompts": [{"name": text, "text": "\ud800"}, {"name": "b", "text": "b"}]},
                {"kind": "load", "text": text},
                {"kind": "option", "view": "tokens", "values": {"colour": text}},
            ):
                bench._act({"id": 1, "view": "bench", "action": action})
            bench._act({"id": 1, "view": "steering", "action": {"kind": "file", "name": f"{text}.npy", "base64": ""}})
            bench._act({"id": 1, "view": text, "action": {"kind": "x"}})
    finally:
        bench.send = kept
    errors = [message["error"] for message in said if message["did"] == "failed"]
    assert len(errors) > 8 * (len(UNSEEN) + len(MARKUP))  # some texts are tokens, which an answer may be
    assert max(map(len, errors)) < 2000
    assert not [error for error in errors if hostile.turning(error)]
    json.dumps(said, ensure_ascii=False).encode()


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [text for text in UNSEEN if text not in ("مرحبا שלום", UNSEEN[4], UNSEEN[5], UNSEEN[12])]
    + ["", " a", "a  b", "a\nb", "\ud800", LONG],
)
def test_a_name_that_cannot_be_seen_is_refused_in_words_that_can(name):
    with pytest.raises(ValueError, match="visible characters") as problem:
        check_name(name)
    assert hostile.turning(str(problem.value)) == [] and len(str(problem.value)) < 300
    with pytest.raises(ValueError):
        Bench(hostile.model(), {name: (1, 2), "b": (1, 3)})


def test_every_name_has_a_variable_of_its_own_that_is_no_other_things():
    odd = [*NAMES, "a b", "a_b", "a-b", "\uff57\uff42", "\ufb01", "fi", "größe", "__import__", "class", "range",
           "print", "left", "prompt_left", "prompt", "run", "1", "x" * 80, "=1", "prompt_=1"]  # fmt: skip
    made = [variable(name) for name in odd]
    assert all(name.isidentifier() and name.isascii() for name in made)
    assert len(set(made)) == len(made)
    assert not set(made) & ({"wb", "torch", "model", "run", "left", "range", "print"} | set(dir(builtins)))
    assert variable("clean") == "clean" and variable("prompt") == "prompt"


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_names_anything_as_a_prompt_might_be_named(bench, view):
    # A prompt "left" would be replaced by what the ablation calls left.
    stored = {node.id for node in ast.walk(ast.parse(bench[view].code()))
              if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}  # fmt: skip
    imported = {
        alias.name
        for node in ast.walk(ast.parse(bench[view].code()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert [name for name in stored if variable(name) == name] == []
    assert [name for name in imported if variable(name) == name and name.islower() and "_" not in name] == []


# ---------------------------------------------------------------- code


@pytest.mark.parametrize("view", [None, *VIEWS])
def test_the_code_of_hostile_names_and_texts_runs_and_runs_nothing_of_theirs(bench, view):
    scope, caught = ran(bench.code(view), bench)
    assert caught == []
    assert np.array_equal(scope["run"].logits, bench.run.logits)
    assert scope["run"].interventions == bench.interventions


CHOSEN = ({"layer": 1, "head": 1}, {"layer": 1, "expert": 0}, {"layer": 1}, {"site": "blocks.1.hook_resid_mid"}, {})


@pytest.mark.parametrize("chosen", CHOSEN)
@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_a_selection_names_the_run_and_runs_nothing_of_theirs(bench, chosen, name):
    selection = wb.Selection(run=name, **{"position": 2, **chosen})
    selection = type(selection)(**selection.fields, _session=bench.session)
    scope, caught = ran(f"{bench.code('tokens')}\n{selection.code()}", bench)
    found = scope["values"]
    found = np.stack(found) if isinstance(found, list) else found
    assert caught == [] and np.allclose(np.asarray(found), selection.values().values)


@pytest.mark.parametrize("text", [*PYTHON, IMG, "\ud7ff\\", "'\"\\", "\r\n\x00\x1a"])
def test_a_prompts_text_is_a_string_in_the_code(text):
    bench = Bench(hostile.model(), text, open=["tokens"])
    scope, caught = ran(bench.code(), bench)
    assert caught == [] and scope["prompt"].tokens.tolist() == bench.base.tokens.tolist()
    bench.close()


def hostile_chats():
    everything = "".join(TOKENS[:-1])
    tool = wb.Tool.from_schema(
        {"name": "look", "description": everything, "parameters": {"type": "object", "properties": {}}}
    )
    whole = (
        wb.Chat().system(identity=everything, date="2026-01-02").developer(everything, [tool]).user(everything)
        .assistant(everything, channel="analysis").call("look", {everything: 1}).tool("look", everything)
        .assistant(everything, complete=False)
    )  # fmt: skip
    system = Message("system", everything)
    odd = (
        Message("user", everything, name=IMG),
        Message("tool", "x", name=PYTHON[0], channel="final"),
        Message("assistant", "x"),
    )
    return [
        whole,
        wb.Chat(system_message=None).user(IMG),
        wb.Chat(system_message=system).user(IMG),
        *(wb.Chat(messages=(m,)) for m in odd),
    ]


@pytest.mark.parametrize("chat", hostile_chats())
def test_a_chat_comes_back_from_its_code_and_from_a_file_whoever_speaks_in_it(chat):
    caught = []
    assert eval(chats.prompt_code(chat), {"wb": wb, "Message": Message, RAN: caught}) == chat
    assert caught == [] and chats.prompt_from_dict(json.loads(json.dumps(chats.prompt_as_dict(chat)))) == chat


def test_the_line_that_loads_a_model_is_safe_in_whatever_folder_it_is(root, tmp_path):
    folder = tmp_path / f"a'); {RAN}.append(1); ('"
    shutil.copytree(root / "data/nano", folder)
    bench = Bench(wb.load(folder), "Mia", open=["tokens"])
    scope, caught = ran(bench.code(), bench)
    assert caught == [] and type(scope["model"]) is wb.HookedGptOss and scope["model"] is not bench.model
    bench.close()


# ---------------------------------------------------------------- CSV


@pytest.mark.parametrize("text", SHEET)
def test_a_spreadsheet_finds_no_formula_at_the_start_of_what_it_takes_for_a_cell(text):
    made = guarded(text)
    for separator in (";", "\t", "\n", ","):
        assert (
            not [cell for cell in made.split(separator) if cell[:1] in tuple("=+-@") and len(cell) > 1]
            or separator == ","
        )
    assert made.replace("'", "") == text.replace("'", "")
    assert guarded("-") == "-" and guarded("a=b") == "a=b" and guarded(-1.5) == -1.5


def test_the_tables_hold_every_text_and_no_formula(bench, tmp_path):
    path = bench.export(tmp_path / "tables.csv")
    assert path.suffix == ".zip"
    with zipfile.ZipFile(path) as archive:
        seen = set()
        for name in archive.namelist():
            assert "/" not in name and ".." not in name
            rows = list(csv.reader(io.StringIO(archive.read(name).decode(), newline="")))
            assert {len(row) for row in rows} == {len(rows[0])}, name
            cells = {cell for row in rows for cell in row}
            seen |= cells
            bad = [cell for cell in cells if cell.strip()[:1] in ("=", "+", "@") and len(cell) > 1]
            assert not bad and not [
                cell for cell in cells if cell.startswith("-") and len(cell) > 1 and not number(cell)
            ]
    assert all(guarded(text) in seen for text in (*MARKUP, *SHEET[:5], f"'{NAMES[0]}"))


def number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------- files


def test_a_workspace_of_hostile_texts_comes_back_as_it_was(bench, tmp_path):
    again = Bench.load(bench.save(tmp_path / "work.json"), bench.model)
    assert workspace.to_json(again.session) == workspace.to_json(bench.session)
    again.close()


def spoilt(value, rng):
    """The same data with one part of it something else."""
    strange = [None, True, -1, 10**20, 1.5, "", IMG, LONG, "\ud800", [], {}, [[]], {"kind": IMG}, "blocks.9.hook_z"]
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {name: item for name, item in value.items() if name != key} | (
                {IMG: value[key]} if rng.random() < 0.5 else {}
            )
        return value | {key: spoilt(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], spoilt(value[at], rng), *value[at + 1 :]]
    return rng.choice(strange)


def test_a_spoilt_workspace_is_refused_in_words_or_is_one_that_works(bench, small):
    other = small
    good, rng, refused = json.loads(workspace.to_json(bench.session)), random.Random(0), 0
    for _ in range(120):
        before = other.session.state
        try:
            workspace.restore(other.session, json.dumps(spoilt(good, rng)))
        except ValueError as problem:
            refused += 1
            assert other.session.state is before and str(problem)
        else:
            workspace.to_json(other.session).encode()
            json.dumps(clean(other.session.state.selection.fields))
    assert 20 < refused < 120  # both ends were met


@pytest.mark.parametrize(
    "name", ["../../<b>.npy", f"{IMG}.json", "\u202enpy.exe.npy", "a" * 5000 + ".npy", "x\ny.json"]
)
def test_a_vectors_file_gives_it_a_name_that_can_be_seen(bench, name):
    import base64

    content = io.BytesIO()
    np.save(content, np.ones(32, np.float32))
    data = content.getvalue() if name.endswith("npy") else json.dumps([1.0] * 32).encode()
    made = bench["steering"].act({"kind": "file", "name": name, "base64": base64.b64encode(data).decode()})
    assert check_name(made["name"], "vector") == made["name"] and made["name"] in bench.session.state.vectors
    assert "/" not in made["name"]


def test_the_text_of_all_tokens_is_what_was_meant():
    ids = hostile.tokenizer().encode(TEXT)
    assert set(ids) >= set(range(hostile.tokenizer().vocab_size - len(TOKENS), hostile.tokenizer().vocab_size))
    assert len(LONG) > 10_000
