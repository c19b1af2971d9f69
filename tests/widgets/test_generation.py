"""The generation tree: its numbers against whole forward passes, its shape against what a tree is."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.experiments.observe.continuations import NextToken, drawn
from workbench.widgets import Bench
from workbench.widgets.views.generation_tree import ROOT, Tree, difference

PROMPT = "Mia went to the park. Tom went to the"
SPEC = wb.AblateLayer(1)


@pytest.fixture
def made(bench_of):
    return bench_of(PROMPT)


def whole(model: wb.HookedGptOss, tokens, specs=()) -> np.ndarray:
    """Probabilities after a text, from one whole pass."""
    return wb.run(model, model.as_batch(list(tokens))[0], specs).logits[0, -1].softmax(-1).numpy()


def test_the_next_token_is_that_of_a_whole_pass_whatever_was_read_before(nano):
    tokens = nano.to_tokens(PROMPT)[0].tolist()
    next_token = NextToken(nano)
    asked = [(tokens, ()), (tokens[:5], ()), ([*tokens, 7], ()), ([*tokens, 7, 9], ()), ([*tokens, 7, 9], [SPEC]),
             ([*tokens, 7, 9, 3], [SPEC]), (tokens, [wb.AblateHead(0, 1, positions=(3,))])]  # fmt: skip
    for text, specs in asked:
        np.testing.assert_allclose(np.exp(next_token.after(text, specs)), whole(nano, text, specs), atol=2e-5)
    assert not any(point.fwd_hooks for point in nano.hook_dict.values())


def test_a_text_that_cannot_be_read_leaves_no_half_read_one(nano):
    tokens = nano.to_tokens(PROMPT)[0].tolist()
    next_token = NextToken(nano)
    next_token.after(tokens)
    with pytest.raises(ValueError):
        next_token.after([*tokens, 1], [wb.AblateExpert(99, 0)])
    np.testing.assert_allclose(np.exp(next_token.after([*tokens, 1])), whole(nano, [*tokens, 1]), atol=2e-5)
    with pytest.raises(ValueError, match="no text"):
        next_token.after([])


def test_draws_follow_the_distribution_at_their_temperature(seed):
    p = np.array([0.5, 0.3, 0.15, 0.05])
    generator = np.random.default_rng(seed)
    for temperature in (0.5, 1.0, 2.0):
        expected = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        counts = np.bincount([drawn(np.log(p), temperature, generator) for _ in range(4000)], minlength=4) / 4000
        assert np.abs(counts - expected).max() < 5 * math.sqrt(0.25 / 4000)
    assert drawn(np.log(p), 0.0, generator) == 0
    with pytest.raises(ValueError, match="temperature"):
        drawn(np.log(p), -1.0, generator)


def test_greedy_growth_is_what_the_model_generates(made):
    view = made["generation"]
    view.go_on(ROOT, 8).result(60)
    expected = made.model.generate(PROMPT, 8, temperature=0.0).finish().new_tokens[0].tolist()
    tree = view.tree
    assert [node.token for node in tree.path(view.at)] == expected
    data, _ = view.data({})
    text = [*tree.prompt]
    for node in tree.path(view.at):
        p = whole(made.model, text)
        found = data["nodes"][str(node.id)]
        assert found["p"] == pytest.approx(float(p[node.token]), abs=2e-5) and found["rank"] == 1
        assert found["entropy"] == pytest.approx(float(-(p * np.log(p + 1e-30)).sum()), abs=1e-3)
        text.append(node.token)


def test_a_fork_under_an_intervention_carries_it_on_its_edges(made):
    view = made["generation"]
    view.go_on(ROOT, 3).result(60)
    fork = view.tree.path(view.at)[0].id
    made.add(SPEC)
    made.session.wait(60)
    view.act({"kind": "choose", "node": fork})
    shown = view.data({"next": True})[0]["next"]
    tokens = view.tree.tokens(fork)
    before, after = whole(made.model, tokens), whole(made.model, tokens, [SPEC])
    for token in shown["tokens"]:
        assert token["before"] == pytest.approx(float(before[token["id"]]), abs=2e-5)
        assert token["after"] == pytest.approx(float(after[token["id"]]), abs=2e-5)
    assert shown["kl"] == pytest.approx(float((before * np.log(before / after)).sum()), abs=1e-3)
    new = view.act({"kind": "step", "token": shown["tokens"][0]["id"]})["node"]
    assert view.tree.nodes[new].specs == (SPEC,) and view.tree.nodes[new].parent == fork
    assert len(view.tree.leaves()) == 2
    view.act({"kind": "compare", "node": new})
    view.act({"kind": "compare", "node": view.tree.leaves()[0]})
    assert view.data({})[0]["difference"]["shared"] >= 1


def test_the_same_token_under_the_same_interventions_is_one_node(made):
    view = made["generation"]
    first = view.act({"kind": "step", "node": ROOT, "token": 5})["node"]
    assert view.act({"kind": "step", "node": ROOT, "token": 5})["node"] == first
    made.add(SPEC)
    assert view.act({"kind": "step", "node": ROOT, "token": 5})["node"] != first


def test_cancel_keeps_the_tokens_that_are_there(made):
    view = made["generation"]
    seen: list[int] = []

    def stop(job) -> None:
        seen.append(job.done)
        if job.done >= 3:
            job.cancel()

    job = view.go_on(ROOT, 400)
    while job.done < 3 and not job.future.done():
        pass
    job.cancel()
    job.wait(60)
    grown = len(view.tree.nodes)
    assert job.state in ("cancelled", "done") and 3 <= grown <= 400
    assert view.at in view.tree.leaves()


def test_a_tree_survives_the_workspace_and_its_numbers_are_measured_again(made, tmp_path):
    view = made["generation"]
    view.go_on(ROOT, 4).result(60)
    numbers = view.data({})[0]["nodes"]
    again = Bench.load(made.save(tmp_path / "work.json"), made.model)
    again.session.wait(60)
    again["generation"].data({})
    again.session.wait(60)
    found = again["generation"].data({})[0]["nodes"]
    for id, node in numbers.items():
        assert found[id]["p"] == pytest.approx(node["p"], abs=2e-5)
    again.close()


def test_another_prompt_has_an_empty_tree_and_the_first_its_own(made):
    view = made["generation"]
    view.go_on(ROOT, 2).result(60)
    made.session.set_prompts({"prompt": "Tom"})
    assert not view.tree.nodes
    made.undo()
    assert len(view.tree.nodes) == 2


def test_a_vector_of_the_same_name_that_became_another_gives_other_numbers(made, nano):
    view, session = made["generation"], made.session
    vectors = [nano.unembed.weight[i].detach().float() for i in (7, 40)]
    steer = wb.Steer("blocks.1.hook_resid_post", "v", scale=30.0)

    def shown() -> list[float]:
        return [token["after"] for token in view.data({"next": True})[0]["next"]["tokens"]]

    for vector in vectors:
        session.set_vector("v", {"kind": "numbers", "values": vector.tolist()})
        if steer not in made.interventions:
            made.add(steer)
        session.wait(60)
        edited = wb.run(nano, PROMPT, [steer], sources={"v": vector}).logits[0, -1].softmax(-1)
        assert shown() == pytest.approx(edited.topk(len(shown())).values.tolist(), abs=2e-5)


def test_what_was_drawn_after_one_prompt_is_never_put_after_another(made, monkeypatch):
    view, real = made["generation"], made["generation"]._distribution
    changed = []

    def change_first(prompt, after, specs):
        found = real(prompt, after, specs)
        if not changed:
            changed.append(made.session.set_prompts({"prompt": "Tom went"}))
        return found

    monkeypatch.setattr(view, "_distribution", change_first)
    view.go_on(ROOT, 3).wait(60)
    assert changed and not view.tree.nodes


def test_a_branch_that_was_taken_away_and_one_in_its_place_are_told_apart(made):
    view = made["generation"]
    for token in (5, 6):
        view.act({"kind": "step", "token": token})
    tree, node = view.tree, view.at
    whole_text = (*tree.tokens(node), 9)
    view.act({"kind": "remove", "node": 1})
    for token in (7, 8):
        view.act({"kind": "step", "token": token})
    assert view.at == node and view.tree.tokens(node) != whole_text[:-1]  # the same number, another text
    view._plant(node, whole_text, (9,), ())
    assert [each.token for each in view.tree.nodes.values()] == [7, 8]


def test_what_is_not_there_is_refused(made):
    view = made["generation"]
    for action in ({"kind": "step", "node": 9}, {"kind": "step", "node": 0, "token": 10**9}, {"kind": "dance"},
                   {"kind": "choose", "node": "a"}):  # fmt: skip
        with pytest.raises(ValueError):
            view.act(action)
    for options in ({"length": 0}, {"length": 10**6}, {"temperature": -1.0}, {"tree": {"nodes": 1}}):
        with pytest.raises(ValueError):
            made.session.options("generation", **options)


def test_every_form_of_the_view_says_the_tree(made):
    view = made["generation"]
    view.go_on(ROOT, 3).result(60)
    assert view.table().sizes["node"] == 3 and len(view.figure().data) == 2
    assert made.session.word(view.tree.path(view.at)[0].token).strip("␣") in view.static()
    scope: dict = {}
    exec(made.code("generation"), scope)
    assert scope["generated"].new_tokens[0].tolist() == scope["chosen"]


# ---------------------------------------------------------------- the tree itself

growth = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=40)


def grown(steps) -> Tree:
    tree = Tree((1, 2))
    for parent, token in steps:
        tree, _ = tree.add(parent % (len(tree.nodes) + 1), token)
    return tree


@given(growth)
def test_rows_hold_every_node_once_and_children_stand_right_of_their_parents(steps):
    tree = grown(steps)
    rows = tree.rows()
    assert sorted(id for row in rows for id in row) == sorted(tree.nodes)
    for row in rows:
        assert all(tree.nodes[after].parent == before for before, after in itertools.pairwise(row))


@given(growth)
def test_a_tree_comes_back_from_its_data(steps):
    tree = grown(steps)
    assert Tree.from_data(tree.as_data()) == tree


@given(growth, st.integers(0, 40))
def test_without_a_node_everything_after_it_is_gone_and_nothing_else(steps, which):
    tree = grown(steps)
    id = which % (len(tree.nodes) + 1)
    left = tree.without(id)
    gone = set(tree.nodes) - set(left.nodes)
    assert gone == {node for node in tree.nodes if id == ROOT or id in [n.id for n in tree.path(node)]}


@given(growth)
def test_the_difference_of_two_paths_is_where_their_tokens_part(steps):
    tree = grown(steps)
    leaves = tree.leaves()
    if len(leaves) < 2:
        return
    first, second = tree.path(leaves[0]), tree.path(leaves[-1])
    made = difference(first, second)
    a, b = ([node.token for node in path] for path in (first, second))
    assert a[: made["shared"]] == b[: made["shared"]]
    assert a[made["shared"] : made["shared"] + 1] != b[made["shared"] : made["shared"] + 1] or a == b
