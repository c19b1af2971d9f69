"""Chat templates: the text of transformers, in a sandbox with bounds, and never today's date."""

from __future__ import annotations

from typing import Any

import pytest

from tests.text.conftest import DATE
from tests.text.samples import NOTE, WEATHER, as_openai, call
from workbench.text import DateNeeded, TemplateError, Tokenizer, render_template

USER = {"role": "user", "content": "Où est Mia? <b>&amp;\n"}
ANSWER = {"role": "assistant", "content": "In the park."}
THOUGHT = {"role": "assistant", "content": "In the park.", "thinking": "She went there."}
RESULT = {"role": "tool", "name": "get_weather", "content": {"degrees": 21, "sky": "clear ☀"}}
SPOKEN = {"role": "tool", "name": "get_weather", "content": "clear"}
LOOK = call("get_weather", {"city": "Zürich", "days": 2})

CONVERSATIONS = {
    "a question": [USER],
    "a system prompt": [{"role": "system", "content": "Be brief."}, USER],
    "a developer prompt": [{"role": "developer", "content": "Be brief."}, USER],
    "history": [USER, ANSWER, USER, THOUGHT, USER],
    "an answer with its thinking": [USER, THOUGHT],
    "a call": [USER, LOOK],
    "a call with thinking": [USER, LOOK | {"thinking": "I must look."}],
    "a call with a result": [USER, LOOK | {"thinking": "I must look."}, RESULT],
    "a call with a spoken result": [USER, LOOK, SPOKEN],
    "a call, a result and an answer": [USER, LOOK | {"thinking": "I must look."}, RESULT, THOUGHT],
    "two turns with calls": [USER, LOOK | {"thinking": "a"}, RESULT, ANSWER, USER, LOOK | {"thinking": "b"}, RESULT],
    "two calls": [USER, LOOK, RESULT, call("get_place", {}), RESULT],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("tools", [None, [as_openai(WEATHER), as_openai(NOTE)]], ids=["without tools", "with tools"])
def test_the_text_is_transformers_text(
    tokenizer: Tokenizer, reference: Any, pinned_date: str, name: str, tools: list[Any] | None
):
    for effort in ("low", "medium", "high", None):
        for prompt in (False, True):
            options = {"add_generation_prompt": prompt} | ({"reasoning_effort": effort} if effort else {})
            theirs = reference.apply_chat_template(CONVERSATIONS[name], tools=tools, tokenize=False, **options)
            ours = tokenizer.apply_chat_template(CONVERSATIONS[name], tools=tools, date=pinned_date, **options)
            assert ours == theirs


def test_builtin_tools_and_identity_are_passed_to_the_template(
    gpt_oss: Tokenizer, transformers_tokenizers: dict[str, Any], pinned_date: str
):
    options = {"builtin_tools": ["browser", "python"], "model_identity": "You are a tester."}
    theirs = transformers_tokenizers["gpt_oss"].apply_chat_template([USER], tokenize=False, **options)
    assert "namespace browser" in theirs and "## python" in theirs
    assert gpt_oss.apply_chat_template([USER], date=pinned_date, **options) == theirs


def test_nano_says_what_its_readers_are_promised(nano: Tokenizer):
    assert nano.apply_chat_template([{"role": "user", "content": "Where is Mia?"}], add_generation_prompt=True) == (
        "<|start|>system<|message|>You are nano.\n\nReasoning: medium\n\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
        "<|start|>user<|message|>Where is Mia?<|end|><|start|>assistant"
    )


def test_nanos_second_system_message_is_refused_and_not_forgotten(nano: Tokenizer):
    with pytest.raises(TemplateError, match="Only the first message may be system or developer"):
        nano.apply_chat_template([USER, {"role": "system", "content": "x"}])


def test_a_template_that_prints_the_date_gets_the_one_given_and_never_todays(gpt_oss: Tokenizer):
    assert f"Current date: {DATE}\n" in gpt_oss.apply_chat_template([USER], date=DATE)
    with pytest.raises(DateNeeded, match="pass one"):
        gpt_oss.apply_chat_template([USER])
    with pytest.raises(ValueError, match="'tomorrow' is not a date"):
        gpt_oss.apply_chat_template([USER], date="tomorrow")


def test_a_tokenizer_without_a_template_says_so(without_template: Tokenizer):
    with pytest.raises(TemplateError, match="no chat template"):
        without_template.apply_chat_template([USER])


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% if %}", "not valid Jinja: line 1"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ nothing.there }}", "undefined"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "steps"),
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "calls itself"),
        (
            "{% set n = namespace(x='aaaa') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "characters",
        ),
        (
            "{% set n = namespace(x='aaaa') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
            "characters",
        ),
        (
            "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"
            "{% set n.x = y %}{% endfor %}",
            "characters",
        ),
        ("{{ 'a' * 999999999 }}", "too large"),
        ("{{ 9 ** 999999 }}", "too large"),
        ("{{ '%999999999d' % 1 }}", "too large"),
        ("{% for i in range(90000) %}{{ 'a' * 999 }}{% endfor %}", "characters"),
    ],
)
def test_a_broken_hostile_or_endless_template_is_an_error(template: str, says: str):
    with pytest.raises(TemplateError, match=says):
        render_template(template, {"messages": []})


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}\n  {% if loop.last %}{% break %}{% endif %}\n{{ m.content|tojson }}\n{% endfor %}",
        "{% for m in messages %}{% generation %}{{ m.role ~ ':' }}{% endgeneration %}{% endfor %}",
        "{%- set n = namespace(k=1) -%}\n    {% for m in messages %}{% set n.k = n.k * 2 + 1 %}{% endfor %}\n{{ n.k }}",
        "{{ '%s-%03d' % ('a', 7) }}{{ {'b': [1, 'é<>']} | tojson(indent=2) }}{{ tools is none }}{{ bos_token }}",
    ],
)
def test_other_templates_render_as_in_transformers_too(
    nano: Tokenizer, transformers_tokenizers: dict[str, Any], template: str
):
    ours = Tokenizer(nano.backend, nano.special_names, template).apply_chat_template([USER, ANSWER, USER])
    theirs = transformers_tokenizers["nano"].apply_chat_template(
        [USER, ANSWER, USER], chat_template=template, tokenize=False
    )
    assert ours == theirs
