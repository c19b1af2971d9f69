"""Interventions as JSON, workspaces of the Bench, and what a browser says to it."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import workbench as wb
from tests.fuzz import mutate
from tests.fuzz.case import Case, Kind
from tests.fuzz.tokenizers import tiny
from workbench.interventions import InterventionError, as_dict, check_all, code, from_json, to_json
from workbench.model import NANO, HookedGptOss, random_weights
from workbench.model.sites import UnknownSite
from workbench.widgets import Bench, workspace
from workbench.widgets.asks import Asks

TEMPLATES = ("<template>", "<unknown>")

# ---------------------------------------------------------------- interventions

SPECS = (
    wb.AblateSite("blocks.1.attn.hook_z", positions=(1, 2), component=1),
    wb.AblateHead(1, 2),
    wb.AblateAttention(0),
    wb.AblateMLP(1),
    wb.AblateLayer(1, positions=(0,)),
    wb.AblatePosition((1,)),
    wb.AblateExpert(1, 2, "zero"),
    wb.AblateExpert(0, 1, "mean", source="corrupt"),
    wb.ForceExpert(1, 1, (2,)),
    wb.SwapExperts(1, 0, 1),
    wb.BiasExpert(1, 0, 2.5),
    wb.ReweightExpert(1, 0, 0.5),
    wb.EditSink(1, None, "scale", 0.5),
    wb.KnockOut(1, ((3, 1), (None, 2))),
    wb.Patch("blocks.1.hook_resid_post", "corrupt", (1,), (2,)),
    wb.PatchExpert(1, 1, "corrupt"),
    wb.Steer("blocks.1.hook_resid_post", "up", 2.0),
    wb.FreezeRouting("corrupt", layers=(1,)),
    wb.FreezePatterns("corrupt", heads=(0,)),
)


def make_specs(rng: Random | None) -> Case:
    if rng is None:
        return Case({"specs.json": to_json(SPECS).encode()})
    tree = [as_dict(spec) for spec in rng.sample(SPECS, rng.choice((1, 1, 2, 4)))]
    data = mutate.tree_of(rng, tree).encode("utf-8", "surrogatepass")
    return Case({"specs.json": mutate.bytes_of(rng, data) if rng.random() < 0.2 else data})


def read_specs(folder: Path, case: Case) -> Any:
    return from_json(case.files["specs.json"])


def check_specs(found: Any, folder: Path, case: Case) -> None:
    """The same again from what it is written as, in JSON and in Python; and a model takes it or says why not."""
    assert repr(from_json(to_json(found))) == repr(found)
    ast.parse(code(found))
    try:
        check_all(found, NANO, 8, {})
    except (InterventionError, UnknownSite) as error:
        assert str(error)


# ---------------------------------------------------------------- a Bench


@cache
def model() -> HookedGptOss:
    shape = {"d_model": 32, "d_head": 8, "d_mlp": 16, "n_layers": 2, "n_experts": 4, "n_heads": 4}
    return random_weights(HookedGptOss(NANO.with_(**shape, d_vocab=tiny().vocab_size), tiny()), 0)


class Now(Asks):
    """Answers on this thread."""

    def put(self, message: Any, answer: Any) -> None:
        self._answer({"did": "data", "id": message.get("id"), "view": message.get("view")}, None, answer)


@cache
def bench() -> Bench:
    made = Bench(model(), {"clean": "the cat", "corrupt": "the dog"}, interventions=[wb.AblateExpert(1, 2, "zero")])
    made.vector("up", [1.0] * 32)
    made.add(wb.Steer("blocks.1.hook_resid_post", "up", 0.5))
    made.select(layer=1, head=1, span=(1, 3))
    made._asks = Now(made._push)
    made.wait(60)
    from_json(to_json(SPECS))  # which evaluates our own annotations, once
    return made


@cache  # of the Bench that nothing was said to yet
def whole() -> dict[str, Any]:
    return json.loads(workspace.to_json(bench().session))


@cache
def restored() -> Bench:
    made = Bench(model(), "the cat", open=["tokens"])
    made.wait(60)
    return made


def make_workspace(rng: Random | None) -> Case:
    data = json.dumps(whole()) if rng is None else mutate.tree_of(rng, whole())
    made = data.encode("utf-8", "surrogatepass")
    return Case({"work.json": mutate.bytes_of(rng, made) if rng is not None and rng.random() < 0.15 else made})


def read_workspace(folder: Path, case: Case) -> Bench:
    """As ``Bench.load``, on a session that is there already; refused, it must stay as it was."""
    session = restored().session
    before = session.state
    try:
        text = workspace.read(folder / "work.json")
        workspace.prompts_of(text)
        workspace.restore(session, text)
    except ValueError:
        assert session.state is before, "refused, and changed"
        raise
    return restored()


def check_workspace(found: Bench, folder: Path, case: Case) -> None:
    """Saved and opened again, it is the same; its runs end; and it can be looked at."""
    session = found.session
    state = session.state
    text = workspace.to_json(session)
    workspace.restore(session, text)
    assert session.state == state or workspace.to_json(session) == text
    for job in session.jobs:
        job.cancel()
    session.wait(30)


HELLO = [{"do": "hello"}]
ACTS = [
    {"kind": "select", "layer": 1, "head": 2, "span": [1, 2]},
    {"kind": "select", "position": 1, "token": 3},
    {"kind": "prompt", "text": "the cat"},
    {"kind": "prompt", "messages": [{"role": "user", "text": "hi"}]},
    {"kind": "prompt", "tokens": [1, 2, 3], "name": "clean"},
    {"kind": "pair", "prompts": [{"name": "clean", "text": "the cat"}, {"name": "corrupt", "text": "the dog"}]},
    {"kind": "answer", "right": "a", "wrong": 5},
    {"kind": "subject", "name": "clean"},
    {"kind": "show", "run": "clean"},
    {"kind": "open", "views": ["tokens", "history"]},
    {"kind": "layout", "layout": "side"},
    {"kind": "add", "spec": {"kind": "AblateHead", "layer": 1, "head": 2}, "label": "x", "subject": "clean"},
    {"kind": "chip_toggle", "id": 1},
    {"kind": "chip_remove", "id": 1},
    {"kind": "chips_clear"},
    {"kind": "undo"},
    {"kind": "redo"},
    {"kind": "again"},
    {"kind": "goto", "id": 1},
    {"kind": "cancel", "job": 1},
    {"kind": "resume", "job": 1},
    {"kind": "option", "view": "tokens", "values": {"colour": "entropy"}},
    {"kind": "code"},
    {"kind": "code", "view": "attention"},
    {"kind": "export", "format": "csv", "view": "tokens"},
    {"kind": "save"},
    {"kind": "load", "text": "{}"},
]
OF_VIEWS = {
    "attention": [
        {"what": "layer", "layer": 1},
        {"what": "text"},
        {"what": "line", "layer": 1, "head": 0, "position": 2},
    ],
    "routing": [
        {"what": "ribbon"},
        {"what": "layer", "layer": 1},
        {"what": "unchosen", "layer": 1, "position": 2},
        {"kind": "ban", "layer": 1, "expert": 2, "position": None},
        {"kind": "swap", "layer": 1, "expert": 2, "other": 3, "position": 2},
        {"kind": "force", "layer": 1, "expert": 2, "position": 1},
        {"kind": "reweight", "factor": 2, "layer": 1, "expert": 3, "position": None},
    ],
    "patching": [
        {"kind": "prompts"},
        {"kind": "drag", "part": "resid_pre", "layer": 1, "source_position": 1, "position": 2},
        {},
    ],
    "steering": [
        {},
        {"what": "text"},
        {"kind": "unembedding", "token": 7},
        {"kind": "numbers", "values": [0.5] * 32},
        {"kind": "put", "scale": 3.0},
        {"kind": "file", "name": "a.npy", "base64": "aaaa"},
    ],
    "logit_lens": [
        {},
        {"part": "cell", "position": 2, "stage": 1},
        {"part": "lines"},
        {"kind": "follow", "token": "a"},
    ],
    "ablation": [{}, {"kind": "toggle", "parts": "head", "layer": 0, "index": 1}],
    "generation": [{"next": True}, {"kind": "step", "node": 0, "token": 5}],
    "graph": [{}, {"what": "edits"}, {"kind": "knock_out", "edge": ["embed@1", "logits@2"]}],
    "tokens": [{}],
    "history": [{}],
    "effect": [{}],
}


def make_ask(rng: Random | None) -> Case:
    if rng is None:
        return Case({}, about={"do": "hello"})
    view = rng.choice(["bench", "bench", "bench", *OF_VIEWS])
    said = rng.choice(ACTS if view == "bench" else OF_VIEWS[view])
    do = "act" if "kind" in said else "ask"
    message: dict[str, Any] = {"do": do, "id": rng.randrange(9), "view": view, "slot": rng.choice((None, "a", 1))}
    message["action" if do == "act" else "ask"] = said
    text = mutate.tree_of(rng, message, rng.choice((0, 1, 1, 2, 3)))
    try:
        return Case({}, about=json.loads(text))
    except (ValueError, RecursionError):
        return Case({}, about={"do": "hello"})  # not JSON: it never arrives


class Silent(AssertionError):
    """Nothing was answered."""


def read_ask(folder: Path, case: Case) -> list[Any]:
    live, said = bench(), []
    whole()
    live.send = lambda message, buffers=None: said.append(message)
    live._heard(live, case.about, [])  # raises nothing, whatever it is
    return said


def check_ask(said: list[Any], folder: Path, case: Case) -> None:
    """What is answered is JSON; an error is in our words; what was begun ends; the model is as it was."""
    live = bench()
    json.dumps(said, allow_nan=False, ensure_ascii=False).encode()
    does = case.about.get("do") if isinstance(case.about, dict) else None
    assert said or does not in ("hello", "act", "ask"), "nothing was answered"
    for error in [
        message["error"] for message in said if message.get("error") and message["did"] in ("failed", "data")
    ]:
        assert error and len(error) < 3000
        first = error.split(":")[0]
        assert not (first.endswith(("Error", "Exception", "Failed")) and first.isidentifier()), error
        assert "is not what it needs: " in error or not any(
            piece in error
            for piece in (
                "object has no attribute",
                "not subscriptable",
                "not iterable",
                "unsupported operand",
                "unhashable",
                "positional argument",
                "unexpected keyword",
                "list indices",
                "not supported between",
            )
        ), error
    for job in live.session.jobs:
        job.cancel()
    live.session.wait(30)
    failed = [
        job for job in live.session.jobs if job.state == "failed" and job.error and "Error:" in job.error.split(" ")[0]
    ]
    assert not failed, failed[0].error
    assert not live.model.list_hooks()
    if len(live.session.history.entries) > 30 or len(live.session.state.prompt(live.session.state.subject).tokens) > 30:
        workspace.restore(live.session, json.dumps(whole()))
        live.session.wait(30)


KINDS = [
    Kind("interventions in JSON", 16, (InterventionError,), make_specs, read_specs, check_specs),
    Kind(
        "workspace file",
        7,
        (ValueError,),
        make_workspace,
        read_workspace,
        check_workspace,
        seconds=8.0,
        code_of=TEMPLATES,
    ),
    Kind("message of a browser", 8, (Silent,), make_ask, read_ask, check_ask, seconds=8.0, code_of=TEMPLATES),
]
