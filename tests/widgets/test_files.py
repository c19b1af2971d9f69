"""Workspaces, exports, static forms and frozen notebooks: what leaves the Bench, and what comes back."""

import csv
import io
import json
import zipfile
import zlib
from html.parser import HTMLParser

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import workbench as wb
from workbench.widgets import Bench, chats, static, wire, workspace
from workbench.widgets.export import export
from workbench.widgets.freeze import freeze

HOSTILE = "<img src=x onerror=alert(1)></script><b>\u202eabc\u200b"


class Elements(HTMLParser):
    """The elements that a browser would make, and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


# ---------------------------------------------------------------- workspaces


def test_a_workspace_comes_back_as_it_was(bench, tmp_path):
    bench.add(wb.AblateExpert(1, 3, "zero"))
    bench.vector("up", [1.0] * 128)
    bench.add(wb.Steer("blocks.2.hook_resid_post", "up", 0.5))
    bench.session.toggle(1)
    bench.select(layer=2, head=1, span=(2, 5))
    bench.session.look(open=("attention", "routing"), layout="side")
    bench.session.options("tokens", colour="entropy")
    again = Bench.load(bench.save(tmp_path / "work.json"), bench.model)
    assert again.session.state == bench.session.state
    assert [entry.study for entry in again.session.history.entries] == [
        entry.study for entry in bench.session.history.entries
    ]
    assert torch.equal(again.run.logits, bench.run.logits)
    again.undo()
    again.undo()
    assert again.interventions == (wb.AblateExpert(1, 3, "zero"),)
    again.close()


def test_a_chat_comes_back_with_its_channels_and_tools(nano):
    tool = wb.Tool.from_schema(
        {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}}
    )
    chat = (
        wb.Chat()
        .system(reasoning="low", date="2026-01-02")
        .developer("Be brief.", [tool])
        .user("Where is Mia?")
        .assistant("Thinking.", channel="analysis")
        .call("look", {"at": "park"})
        .tool("look", {"seen": True})
        .assistant("In the", complete=False)
    )
    plain = json.loads(json.dumps(chats.prompt_as_dict(chat)))
    assert chats.prompt_from_dict(plain) == chat
    scope = {"wb": wb}
    assert eval(chats.prompt_code(wb.Chat().user("a'b\n").assistant("c")), scope) == wb.Chat().user("a'b\n").assistant(
        "c"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "JSON"),
        ("[]", "format, study and screen"),
        ("[" * 100_000, "JSON"),
        ('{"format": 99, "study": 1, "screen": 1}', "format 99"),
        ('{"format": 1, "study": [], "screen": {}}', "not as bench.save"),
        ('{"format": 1, "study": {"prompts": []}, "screen": {}, "history": 5}', "not as bench.save"),
    ],
)
def test_what_is_no_workspace_is_refused_in_one_sentence_and_nothing_changes(bench, text, words):
    before = bench.session.state
    with pytest.raises(ValueError, match=words):
        workspace.restore(bench.session, text)
    assert bench.session.state is before


def test_a_workspace_with_one_wrong_field_is_refused_whole(bench):
    good = json.loads(workspace.to_json(bench.session))
    spoilt = [
        ("study", "subject", "nobody"),
        ("study", "chips", [{"on": True, "spec": {"kind": "AblateExpert", "layer": 99, "expert": 0}}]),
        ("study", "chips", [{"on": True, "spec": {"kind": "os.system", "layer": 0}}]),
        ("study", "answer", [1, 10**9]),
        ("study", "vectors", {"v": {"kind": "file", "path": "/etc/passwd"}}),
        ("study", "vectors", {"v": {"kind": "numbers", "values": [float("inf")]}}),
        ("screen", "selection", {"layer": 99}),
        ("screen", "selection", {"colour": 1}),
        ("screen", "options", {"tokens": {"colour": "<b>"}}),
    ]
    before = bench.session.state
    for part, field, value in spoilt:
        made = json.loads(json.dumps(good))
        made[part][field] = value
        with pytest.raises(ValueError):
            workspace.restore(bench.session, json.dumps(made))
        assert bench.session.state is before, (part, field)


def test_a_workspace_of_other_weights_says_so(bench):
    made = json.loads(workspace.to_json(bench.session))
    made["model"]["fingerprint"] = "another"
    workspace.restore(bench.session, json.dumps(made))
    assert "other weights" in bench.session.warning


# ---------------------------------------------------------------- static forms


def test_the_static_form_has_no_scripts_and_no_handlers(bench_of):
    bench = bench_of(f"Mia {HOSTILE} went")
    page = export(bench.session, "html").content.decode()
    made = Elements(page)
    assert made.names <= {
        "html", "head", "meta", "title", "body", "div", "span", "bdi", "table", "tr", "th", "td", "img", "caption",
        "details", "summary", "thead", "tbody", "pre", "code", "b", "i", "p", "ul", "ol", "li", "h3", "h4", "br",
    }  # fmt: skip
    assert not {name for name in made.attributes if name.startswith("on")}
    assert "src=x" not in page.replace("&lt;img src=x", "")


def test_a_picture_is_the_pixels_that_were_given(seed):
    given = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    file = static.png(given)
    start = file.index(b"IDAT")
    length = int.from_bytes(file[start - 4 : start], "big")
    lines = zlib.decompress(file[start + 4 : start + 4 + length])
    read = np.frombuffer(lines, np.uint8).reshape(5, 1 + 21)[:, 1:].reshape(5, 7, 3)
    np.testing.assert_array_equal(read, given)


def test_another_programme_reads_our_pictures(seed, tmp_path):
    image = pytest.importorskip("PIL.Image")
    given = np.random.default_rng(seed).integers(0, 256, (9, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(image.open(io.BytesIO(static.png(given)))), given)


def test_a_large_grid_is_a_picture_and_a_small_one_a_table():
    from workbench.figures.style import SEQUENTIAL

    small = static.grid(np.ones((2, 2)), SEQUENTIAL, 0, 1, ["<a>", "b"], ["c", "d"], "small")
    large = static.grid(np.ones((24, 1000)), SEQUENTIAL, 0, 1, [""] * 24, [""] * 1000, "large")
    assert "<table" in small and "&lt;a&gt;" in small
    assert "<img" in large and "<table" not in large and len(large) < 100_000


# ---------------------------------------------------------------- exports


def test_csv_holds_the_numbers_of_the_view(bench, tmp_path):
    path = bench.export(tmp_path / "tokens.csv", view="tokens")
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    logprobs = bench.base.logits[0].log_softmax(-1)
    for i, row in enumerate(rows[1:], 1):
        expected = -logprobs[i - 1, bench.base.tokens[0, i]]
        assert float(row["surprise"]) == pytest.approx(float(expected), abs=1e-4)
    assert [row["token"] for row in rows] == bench.base.str_tokens()


def test_several_tables_come_in_one_archive(bench, tmp_path):
    bench.session.look(open=("tokens", "history"))
    made = export(bench.session, "csv")
    assert made.mime == "application/zip"
    assert "tokens.csv" in zipfile.ZipFile(io.BytesIO(made.content)).namelist()


def test_a_format_or_a_view_that_is_not_there_is_refused_with_those_that_are(bench, tmp_path):
    with pytest.raises(ValueError, match="html"):
        bench.export(tmp_path / "x.docx")
    with pytest.raises(ValueError, match="tokens"):
        bench.export(tmp_path / "x.csv", view="nothing")


# ---------------------------------------------------------------- the wire


def test_arrays_cross_the_wire_with_their_shape_and_type():
    arrays = {
        "f": np.arange(6.0).reshape(2, 3),
        "i": np.array([1, -2]),
        "b": np.array([True, False]),
        "u": np.uint8([7]),
    }
    described, buffers = wire.packed(arrays)
    for about, buffer, given in zip(described, buffers, arrays.values(), strict=True):
        read = np.frombuffer(buffer, about["dtype"]).reshape(about["shape"])
        np.testing.assert_array_equal(read, given)
    assert [about["dtype"] for about in described] == ["float32", "int32", "uint8", "uint8"]


def test_what_json_cannot_say_becomes_null():
    made = wire.clean({"a": float("nan"), "b": [np.float32("inf"), np.int64(3)], "c": np.array([1.0, np.nan])})
    assert json.loads(json.dumps(made, allow_nan=False)) == {"a": None, "b": [None, 3], "c": [1.0, None]}


def test_words_do_not_cross_as_arrays():
    with pytest.raises(TypeError, match="dtype"):
        wire.packed({"words": np.array(["a"])})


# ---------------------------------------------------------------- frozen notebooks


def test_freezing_leaves_the_static_form_and_takes_the_live_one(tmp_path):
    live = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Bench(nano)"}
    cell = new_code_cell("bench", outputs=[
        new_output("display_data", live), new_output("display_data", {"text/html": "<div>static</div>"}),
        new_output("stream", text="kept\n"),
    ])  # fmt: skip
    alone = new_code_cell("bar", outputs=[new_output("display_data", dict(live))])
    notebook = new_notebook(cells=[new_markdown_cell("# Words"), cell, alone], metadata={"widgets": {"x": 1}})
    path = tmp_path / "book.ipynb"
    nbformat.write(notebook, path)
    assert freeze(path, tmp_path / "out.ipynb") == 2
    made = nbformat.read(tmp_path / "out.ipynb", 4)
    assert "widgets" not in made.metadata and "widget-view" not in (tmp_path / "out.ipynb").read_text()
    assert made.cells[1].outputs[0].data["text/html"] == "<div>static</div>" and len(made.cells[1].outputs) == 2
    assert made.cells[2].outputs[0].data == {"text/plain": "Bench(nano)"}
    assert "widget-view" in path.read_text()


def test_what_is_no_notebook_is_refused(tmp_path):
    (tmp_path / "x.ipynb").write_text("not JSON")
    with pytest.raises(ValueError, match="no notebook"):
        freeze(tmp_path / "x.ipynb")
