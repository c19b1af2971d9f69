"""Specs as data: to JSON and back, to code and back, and refused where they are not what they say."""

import json
import pickle
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import workbench as wb
from workbench.activations import run
from workbench.interventions import KINDS, InterventionError, code, from_json, to_json
from workbench.model import HookedGptOss

INTEGERS, POSITIONS = st.integers(0, 40), st.none() | st.lists(st.integers(0, 99), max_size=3).map(tuple)
BY_FIELD = {
    "layer": INTEGERS, "head": INTEGERS, "expert": INTEGERS, "other": INTEGERS, "seed": INTEGERS,
    "positions": POSITIONS, "source_positions": POSITIONS, "component": st.none() | INTEGERS,
    "site": st.text(max_size=20), "source": st.text(max_size=9), "vector": st.text(max_size=9),
    "amount": st.floats(-9, 9), "factor": st.floats(-9, 9), "scale": st.floats(-9, 9),
    "value": st.none() | st.floats(0, 9),
    "renormalise": st.booleans(), "weights": st.sampled_from(["keep", "recompute"]), "policy": st.just("zero"),
    "operation": st.sampled_from(["remove", "scale", "set"]), "freed": st.sampled_from(["redistribute", "drop"]),
    "what": st.sampled_from(["set", "set_and_weights"]), "layers": POSITIONS, "heads": POSITIONS,
    "edges": st.lists(st.tuples(st.none() | INTEGERS, st.none() | INTEGERS), max_size=3).map(tuple),
}  # fmt: skip
SPECS = st.one_of(
    *(st.builds(kind, **{part.name: BY_FIELD[part.name] for part in fields(kind)}) for kind in KINDS.values())
)


@given(st.lists(SPECS, max_size=4))
def test_json_code_and_pickle_give_the_same_specs_back(specs: list):
    assert from_json(to_json(specs)) == tuple(specs)
    assert eval(code(specs), {"wb": wb}) == specs
    assert pickle.loads(pickle.dumps(specs)) == specs
    assert len(set(specs)) == len(set(map(repr, specs)))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_other_json_is_refused_with_one_error(data: object):
    if data != []:
        with pytest.raises(InterventionError):
            from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('[{"kind": "AblateHed"}]', "entry 0: there is no intervention 'AblateHed'; closest is 'AblateHead'"),
        ('[{"kind": "AblateHead", "layer": 0, "hed": 0}]', "AblateHead has no 'hed'; closest is 'head'"),
        ('[{"kind": "AblateHead", "layer": "0", "head": 0}]', "AblateHead.layer is '0': expected int"),
        ('[{"kind": "AblateHead", "layer": true, "head": 0}]', "AblateHead.layer is True: expected int"),
        ('[{"kind": "AblateHead", "layer": 0}]', "AblateHead needs 'head' too"),
        ('[{"kind": "AblateHead", "layer": 0, "head": 0, "policy": "remove"}]', "policy is 'remove'"),
        ('[{"kind": "__import__"}]', "there is no intervention"),
    ],
)  # fmt: skip
def test_json_that_is_wrong_is_refused_by_what_is_wrong(text: str, message: str):
    with pytest.raises(InterventionError, match=message):
        from_json(text)


def test_a_runs_code_makes_the_run_again(model: HookedGptOss, tokens: Tensor):
    clean = run(model, tokens, sites="all", name="clean")
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, -3:] = False
    specs = [wb.Patch("blocks.0.hook_resid_mid", "clean", (2,)), wb.AblateHead(1, 2)]
    done = run(model, tokens, specs, sources={"clean": clean}, attention_mask=mask, name="patched")
    names = {"model": model, "clean": clean}
    exec(done.code(), names)
    again = names["run"]
    assert torch.equal(again.logits, done.logits) and again.interventions == tuple(specs) and again.name == "patched"


def test_every_kind_is_public_and_says_what_it_does():
    for name, kind in KINDS.items():
        assert getattr(wb, name) is kind and kind.__doc__ and "(" not in kind.__doc__.split("\n")[0][:1]
