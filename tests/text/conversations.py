"""Random conversations for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from workbench.text import Chat

SPELLINGS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>final", "<|return|>", "<|call|>", "assistant", "\n\n"]

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
texts = st.one_of(words, st.lists(st.one_of(words, st.sampled_from(SPELLINGS)), max_size=4).map("".join))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-99, 99), words),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(words, inner, max_size=2)),
    max_leaves=4,
)
names = st.sampled_from(["get_weather", "get_place", "find"])
systems = st.fixed_dictionaries(
    {"reasoning": st.sampled_from(["low", "medium", "high"])},
    optional={
        "identity": st.sampled_from(["You are a tester.", "You are two\nlines.", ""]),
        "date": st.sampled_from(["2025-06-28", "1999-12-31"]),
        "cutoff": st.sampled_from(["2020-01", ""]),
        "channels": st.sampled_from([("final",), ("analysis", "final"), ()]),
    },
)
schemas = st.lists(
    st.builds(
        lambda name, parameter, required: {
            "name": name,
            "description": "Does it.",
            "parameters": {
                "type": "object",
                "properties": {parameter: {"type": "string"}},
                "required": [parameter] if required else [],
            },
        },
        names,
        st.sampled_from(["city", "n"]),
        st.booleans(),
    ),
    max_size=2,
)
instructions = texts.filter(lambda text: not text.endswith("\n"))  # a template's own empty line follows them


Step = tuple[str, tuple[Any, ...], dict[str, Any]]  # a method of Chat, and what to call it with


def build(steps: list[Step]) -> Chat:
    """The chat that these calls make."""
    chat = Chat()
    for method, arguments, options in steps:
        chat = getattr(chat, method)(*arguments, **options)
    return chat


def step(method: str, *arguments: st.SearchStrategy[Any], **options: Any) -> st.SearchStrategy[list[Step]]:
    return st.tuples(*arguments).map(lambda drawn: [(method, drawn, options)])


def turn(*steps: st.SearchStrategy[list[Step]]) -> st.SearchStrategy[list[Step]]:
    return st.tuples(*steps).map(lambda parts: [step for part in parts for step in part])


channels = st.sampled_from(["analysis", "commentary", "final"])
thinking = step("assistant", texts, channel="analysis")
turns = st.one_of(
    step("user", texts),
    turn(step("user", texts), step("assistant", texts)),
    turn(step("user", texts), thinking, step("assistant", texts)),
    step("assistant", texts, channels),
    step("call", names, st.one_of(json_values, texts)),
    turn(
        step("call", st.just("find"), st.just({"who": "Mia"})),
        step("tool", st.just("find"), st.one_of(json_values, texts)),
    ),
    turn(
        step("assistant", texts, channel="analysis", recipient="python", content_type="code"),
        step("tool", st.just("python"), texts, channel="analysis"),
    ),
    step("developer", instructions),
)
beginnings = turn(
    st.one_of(st.just([]), systems.map(lambda options: [("system", (), options)])),
    st.one_of(st.just([]), step("developer", instructions, schemas)),
)
conversations = turn(beginnings, st.lists(turns, max_size=4).map(lambda parts: [s for part in parts for s in part]))
