"""Steering without a browser: every number against runs and generations of their own; files read with care."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save

import workbench as wb
from workbench.experiments import SteeringVector
from workbench.experiments.directions.vectors import random_direction
from workbench.widgets import workspace
from workbench.widgets.views.steering_choice import lines, rounded_up
from workbench.widgets.views.steering_files import from_file

SITE = "blocks.1.hook_resid_post"
FIXED = {"direction": "token", "token": 688, "layer": 1, "scale": 25.0, "length": 8}


@pytest.fixture
def view(bench):
    bench.session.options("steering", **FIXED)
    return bench.session.views["steering"]


def steered(view, vector, scale=25.0, positions=None, site=SITE):
    """A run with a vector, by itself."""
    run = view.session.base
    made = wb.run(run.model, run.tokens, [wb.Steer(site, "v", scale, positions)], sources={"v": vector})
    assert made.kl is not None and made.flipped_routes is not None
    return made


def towards(view, token=688):
    return view.session.model.unembed.weight[token].detach()


def text(view, specs, vector, length=8):
    model, tokens = view.session.model, view.session.base.tokens
    with model.edited(specs, {"v": vector}):
        return model.generate(tokens, length).finish().new_tokens[0].tolist()


def words(view, ids):
    return [view.session.word(token) for token in ids]


# ---------------------------------------------------------------- numbers


def test_the_effect_is_that_of_a_run_with_the_vector(view):
    found, _ = view.data({"what": "effect"})
    done, base = steered(view, towards(view)), view.session.base
    assert found["kl"] == pytest.approx(float(done.kl[0, -1]), rel=1e-3, abs=1e-6)
    assert found["mean_kl"] == pytest.approx(float(done.kl.mean()), rel=1e-3)
    assert found["flipped"] == int((done.logits.argmax(-1) != base.logits.argmax(-1)).sum())
    assert found["routes"] == int(done.flipped_routes.sum())
    for bar in found["bars"]:
        for key, run in (("before", base), ("after", done)):
            assert bar[key] == pytest.approx(float(run.logits[0, -1].softmax(-1)[bar["id"]]), rel=2e-3, abs=1e-7)


def test_a_slider_that_is_dragged_asks_for_a_scale_that_is_not_kept(view):
    found, _ = view.data({"what": "effect", "scale": -7.5})
    assert found["kl"] == pytest.approx(float(steered(view, towards(view), -7.5).kl[0, -1]), rel=2e-3, abs=1e-6)
    assert view.option("scale") == 25.0


def test_the_controls_are_random_directions_of_the_same_length(view):
    found, _ = view.data({"what": "controls"})
    norm = float(towards(view).norm())
    vectors = [random_direction(128, norm, number) for number in range(8)]
    assert all(float(vector.norm()) == pytest.approx(norm, rel=1e-5) for vector in vectors)
    expected = [float(steered(view, vector).kl[0, -1]) for vector in vectors]
    np.testing.assert_allclose(found["kl"], expected, rtol=2e-3, atol=1e-6)
    assert found["control"]["kl"] == found["kl"][0]


def test_the_length_is_told_beside_the_median_length_of_what_stands_there(view):
    found, _ = view.data({})
    assert found["norm"] == pytest.approx(float(towards(view).norm()), rel=1e-5)
    lengths = view.session.base[SITE][0].norm(dim=-1)
    assert found["stream"] == pytest.approx(float(lengths.quantile(0.5)), rel=1e-4)
    view.session.options("steering", scale=None)
    found, _ = view.data({})
    assert found["scale"] * found["norm"] == pytest.approx(0.5 * found["stream"], rel=0.06)
    assert found["reach"] >= 2 * found["stream"] / found["norm"]


def test_at_selected_positions_the_vector_is_added_there_alone(view):
    view.session.options("steering", where="selected")
    assert "Select a token" in view.data({"selection": {}})[0]["missing"]
    view.session.select(span=(3, 6))
    found, _ = view.data({"what": "effect"})
    assert found["kl"] == pytest.approx(float(steered(view, towards(view), positions=(3, 4, 5)).kl[0, -1]), rel=2e-3)
    asked, _ = view.data({"what": "effect", "selection": {"position": 7}})
    assert asked["kl"] == pytest.approx(float(steered(view, towards(view), positions=(7,)).kl[0, -1]), rel=2e-3)


# ---------------------------------------------------------------- directions


@pytest.mark.parametrize("kind", ["expert", "head"])
def test_what_an_expert_or_a_head_writes_at_the_selected_token_is_a_direction(view, kind):
    view.session.options("steering", direction=kind)
    view.session.select(layer=2, position=6, **{kind: 5})
    whole = wb.run(view.session.model, view.session.base.tokens, [wb.BiasExpert(2, 5, 1e4, (6,))], sites="all")
    sites = {"expert": "mlp.hook_expert_out", "head": "attn.hook_result"}
    vector = whole[f"blocks.2.{sites[kind]}"][0, 6, 0 if kind == "expert" else 5]
    found, _ = view.data({"what": "effect"})
    done = steered(view, vector)
    assert found["kl"] == pytest.approx(float(done.kl[0, -1]), rel=5e-3, abs=1e-6)
    view.session.options("steering", of_layer=2, of_index=5, of_position=6)
    view.session.select(layer=0, position=1)
    assert view.data({"what": "effect"})[0]["study"] == found["study"]


def test_an_expert_that_is_not_chosen_by_hand_is_the_strongest_of_the_token(view):
    view.session.options("steering", direction="expert")
    view.session.select(layer=3, position=4)
    chosen = view.session.base["blocks.3.mlp.hook_expert_indices"][0, 4, 0]
    assert view.data({})[0]["place"]["index"] == int(chosen)


def test_a_difference_of_means_is_taken_where_it_is_added(view):
    view.session.options(
        "steering", direction="difference", positive="Anna is glad\n\nAnna sings\n", negative="Ben is sad"
    )
    found, _ = view.data({"what": "effect"})
    model = view.session.model
    streams = [wb.run(model, each)[SITE][0, -1] for each in ("Anna is glad", "Anna sings", "Ben is sad")]
    vector = (streams[0] + streams[1]) / 2 - streams[2]
    assert found["kl"] == pytest.approx(float(steered(view, vector).kl[0, -1]), rel=2e-3)
    same = {"positive": "Ben is sad", "negative": "Ben is sad"}
    assert "length 0" in view.data({"options": same})[0]["missing"]
    assert "at least one text" in view.data({"options": {"negative": " \n"}})[0]["missing"]


def test_an_answer_belongs_to_the_options_that_the_ask_brings(view):
    asked, _ = view.data({"what": "effect", "options": {"token": 690, "layer": 2}})
    expected = steered(view, towards(view, 690), site="blocks.2.hook_resid_post")
    assert asked["kl"] == pytest.approx(float(expected.kl[0, -1]), rel=2e-3, abs=1e-6)
    with pytest.raises(ValueError, match="no option 'colour'"):
        view.data({"options": {"colour": 1}})


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize("where", ["all", "selected", "generated"])
def test_the_three_texts_are_those_of_generations_with_the_vector_on(view, where):
    view.session.select(position=4)
    view.session.options("steering", where=where, scale=60.0)
    view.act({"kind": "generate"})
    view.session.wait(60)
    texts = view.data({"what": "text"})[0]["texts"]
    n = view.session.base.tokens.shape[1]
    positions = {"all": None, "selected": (4,), "generated": tuple(range(n - 1, n + 8))}[where]
    spec = wb.Steer(SITE, "v", 60.0, positions)
    random = random_direction(128, float(towards(view).norm()))
    expected = {"default": text(view, [], random), "steered": text(view, [spec], towards(view)),
                "control": text(view, [spec], random)}  # fmt: skip
    assert texts["done"] and {name: texts[name]["tokens"] for name in expected} == {
        name: words(view, ids) for name, ids in expected.items()
    }
    for name in ("steered", "control"):
        assert any(texts[name]["differs"]) == (expected[name] != expected["default"])


def test_a_text_that_is_there_is_not_written_again_and_a_longer_one_goes_on(view):
    first = view.act({"kind": "generate"})["job"]
    view.session.wait(60)
    assert first is not None and view.act({"kind": "generate"})["job"] is None
    view.session.options("steering", length=16)
    assert view.act({"kind": "generate"})["job"] is not None
    view.session.wait(60)
    spec = wb.Steer(SITE, "v", 25.0)
    assert view.data({"what": "text"})[0]["texts"]["steered"]["tokens"] == words(
        view, text(view, [spec], towards(view), 16)
    )


# ---------------------------------------------------------------- on the Bench


def test_put_on_the_bench_it_is_a_vector_and_a_chip_in_one_step(bench, view):
    made = view.act({"kind": "put"})
    bench.session.wait(30)
    assert bench.interventions == (wb.Steer(SITE, made["name"], 25.0),)
    torch.testing.assert_close(bench.run.kl, steered(view, towards(view)).kl, atol=1e-5, rtol=2e-3)
    assert view.act({"kind": "put", "scale": 30.0})["id"] == made["id"] and bench.interventions[0].scale == 30.0
    bench.undo()
    bench.undo()
    assert bench.interventions == () and not bench.session.state.vectors
    bench.session.wait(30)


def test_another_direction_of_the_same_name_gets_a_name_of_its_own(bench, view):
    view.session.options("steering", direction="difference", positive="Anna\nBen", negative="Tom")
    first = view.act({"kind": "put"})["name"]
    view.session.options("steering", positive="Anna\nMia")
    assert view.act({"kind": "put"})["name"] == f"{first} (2)" and len(bench.interventions) == 2
    bench.session.wait(30)


def test_generated_tokens_alone_are_nothing_for_the_bench(bench, view):
    view.session.options("steering", where="generated")
    assert view.data({})[0]["cannot_put"]
    with pytest.raises(ValueError, match="no generated tokens"):
        view.act({"kind": "put"})


# ---------------------------------------------------------------- files


def encoded(content):
    return base64.b64encode(content).decode()


def npy(array):
    held = io.BytesIO()
    np.save(held, array, allow_pickle=True)
    return held.getvalue()


NUMBERS = np.linspace(-1, 1, 128).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", npy(NUMBERS)),
        ("a.npy", npy(NUMBERS[None].astype(np.float16))),
        ("A.JSON", json.dumps(NUMBERS.tolist()).encode()),
        ("a.json", json.dumps({"vector": NUMBERS.tolist()}).encode()),
        ("a.safetensors", save({"other": np.zeros(3, np.float32), "happy": NUMBERS})),
    ],
)
def test_a_vector_is_read_from_each_kind_of_file(name, content):
    np.testing.assert_allclose(from_file(name, encoded(content), 128), NUMBERS, atol=1e-3)


def test_what_steering_vector_saves_is_read(tmp_path):
    SteeringVector(SITE, NUMBERS, np.zeros((2, 128), np.float32)).save(tmp_path / "v.safetensors")
    content = (tmp_path / "v.safetensors").read_bytes()
    assert np.array_equal(np.array(from_file("v.safetensors", encoded(content), 128), np.float32), NUMBERS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", encoded(b"x"), "expected a .safetensors, .npy or .json file"),
        ("a.npy", encoded(npy(np.array([{"a": 1}], dtype=object))), "holds no vector that can be read"),
        ("a.npy", encoded(b"not numpy"), "holds no vector that can be read"),
        ("a.npy", encoded(npy(np.array(["a"] * 128))), "expected real numbers"),
        ("a.npy", encoded(npy(NUMBERS[:5])), "holds 5 numbers: this model's d_model is 128"),
        ("a.npy", encoded(npy(NUMBERS * np.nan)), "expected finite numbers"),
        ("a.npy", encoded(npy(NUMBERS * 0)), "not all of them 0"),
        ("a.npy", "*" * 12, "did not arrive whole"),
        ("a.npy", "A" * 6_000_000, "too large for a vector"),
        ("a.json", encoded(b'{"vector": "x"}'), "expected a list of numbers"),
        ("a.json", encoded(b"[" * 100_000), "holds no vector that can be read"),
        ("a.json", encoded(b"\xff\xfe"), "holds no vector that can be read"),
        ("a.safetensors", encoded(b"\xff" * 64), "holds no vector that can be read"),
        ("a.safetensors", encoded(save({"a": NUMBERS, "b": NUMBERS})), "expected one tensor of 128"),
    ],
)
def test_other_files_are_refused_in_words(name, content, message):
    with pytest.raises(ValueError, match=message):
        from_file(name, content, 128)


def test_an_opened_file_is_a_vector_of_the_session(bench, view):
    made = view.act({"kind": "file", "name": "dir/<b>.npy", "base64": encoded(npy(NUMBERS))})
    assert view.option("direction") == "vector" and view.option("vector") == made["name"] == "<b>.npy"
    found, _ = view.data({"what": "effect", "scale": 2.0})
    assert found["kl"] == pytest.approx(float(steered(view, torch.tensor(NUMBERS), 2.0).kl[0, -1]), rel=2e-3, abs=1e-6)


# ---------------------------------------------------------------- without a browser


@pytest.mark.parametrize("where", ["selected", "generated"])
def test_the_code_runs_by_itself_and_finds_the_numbers_and_texts_on_screen(bench, view, where):
    view.session.select(layer=2, position=6, head=1)
    view.session.options("steering", direction="head", where=where, scale=-40.0, length=8)
    view.act({"kind": "generate"})
    view.session.wait(60)
    scope: dict = {}
    exec(bench.code("steering"), scope)
    assert view.data({"what": "effect"})[0]["kl"] == pytest.approx(
        float(scope["steered"].kl[0, -1]), rel=2e-3, abs=1e-6
    )
    assert view.data({"what": "controls"})[0]["kl"][0] == pytest.approx(
        float(scope["control"].kl[0, -1]), rel=2e-3, abs=1e-6
    )
    texts = view.data({"what": "text"})[0]["texts"]
    for ours, theirs in (("default", "default"), ("steered", "steered"), ("control", "random direction")):
        assert "".join(texts[ours]["tokens"]).replace("␣", " ").replace("¶", "\n") == scope["texts"][theirs]
    bars = scope["compared"]
    assert list(bars.run.values) == ["clean", "steered", "random direction"]


def test_the_page_the_table_and_the_figure_show_what_is_on_screen(view):
    view.act({"kind": "generate"})
    view.session.wait(60)
    page, table, figure = view.static(), view.table(), view.figure()
    assert "25 × token" in page and "goes on, steered" in page and "<script" not in page
    np.testing.assert_allclose(
        table.kl.sel(run="steered").values[-1], view.data({"what": "effect"})[0]["kl"], rtol=2e-3
    )
    np.testing.assert_allclose(table.control_kl, view.data({"what": "controls"})[0]["kl"])
    assert [trace.name for trace in figure.data] == ["clean", "steered", "random direction"]
    view.session.options("steering", direction="vector", vector="nothing")
    assert "Open a file" in view.static() and view.code().startswith("# Open a file")


def test_what_is_chosen_is_in_a_saved_workspace(bench, view, bench_of):
    view.act({"kind": "file", "name": "a.npy", "base64": encoded(npy(NUMBERS))})
    view.act({"kind": "put"})
    bench.session.wait(30)
    other = bench_of("something else")
    workspace.restore(other.session, workspace.to_json(bench.session))
    other.session.wait(30)
    there = other.session.views["steering"]
    assert there.data({"what": "effect"})[0]["study"] == view.data({"what": "effect"})[0]["study"]
    torch.testing.assert_close(other.run.kl, bench.run.kl, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"direction": "up"}, "expected one of"),
        ({"token": 5000}, "there are 0 to 1023"),
        ({"layer": -1}, "there are 0 to 3"),
        ({"scale": float("nan")}, "expected a number"),
        ({"scale": True}, "scale=True"),
        ({"length": 7}, "expected one of"),
    ],
)
def test_what_there_is_not_is_refused_in_words(view, values, message):
    with pytest.raises(ValueError, match=message):
        view.session.options("steering", **values)


def test_texts_are_lines_and_the_slider_ends_at_a_round_number():
    assert lines("a\r\n\n b \n") == ["a", " b "]
    assert [rounded_up(value) for value in (0.0, 0.03, 1, 1.1, 43, 60)] == [1.0, 0.05, 1.0, 2.0, 50.0, 100.0]


def test_past_the_end_of_the_default_text_every_token_differs_while_it_is_written(bench_of):
    """With a strong push the default ends after three tokens; the steered text goes on."""
    bench = bench_of("When Ben and Anna went to the forest, Anna gave a hat to")
    bench.session.options("steering", token=688, layer=1, scale=60.0, length=16)
    view, marks = bench["steering"], []
    stream = bench.session.stream

    def seen(name, part, about, arrays):
        if part == "text":
            texts = about["texts"]
            marks.append((len(texts["default"]["tokens"]), texts["default"]["over"], texts["steered"]["differs"]))
        return stream(name, part, about, arrays)

    bench.session.stream = seen
    view.act({"kind": "generate"})
    bench.session.wait(60)
    late = [(n, differs) for n, over, differs in marks if over and len(differs) > n]
    assert late and all(all(differs[n:]) for n, differs in late)
