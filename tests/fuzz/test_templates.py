"""A chat template is a program of somebody else's: it ends, soon, in little memory, and never gets out."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from tests.fuzz import templates
from tests.fuzz.many import ROOT
from tests.fuzz.of_texts import MESSAGES
from tests.fuzz.tokenizers import template
from workbench.text import TemplateError, render_template
from workbench.text.meter import MAX_CHARS, MAX_SECONDS

ALL_OF_THEM = """
import json, resource, sys, time
from tests.fuzz import templates
from tests.fuzz.of_texts import MESSAGES
from workbench.text import TemplateError, render_template

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
for i, text in enumerate(templates.HOSTILE):
    before, began = peak(), time.thread_time()
    try:
        said = f"{len(render_template(text, {'messages': MESSAGES, 'go': True}, '2025-01-01'))} characters"
    except TemplateError as error:
        said = str(error)
    print(json.dumps([i, said, time.thread_time() - began, peak() - before]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module to ask for the peak")
def test_every_hostile_template_ends_within_seconds_and_some_hundred_megabytes():
    done = subprocess.run([sys.executable, "-c", ALL_OF_THEM], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(templates.HOSTILE)
    for i, said, seconds, megabytes in found:
        # The bound is looked at between operations, and compiling comes before: twice it and a bit is the most.
        assert seconds < 2 * MAX_SECONDS + 1, (templates.HOSTILE[i][:200], said)
        assert megabytes < 800, (templates.HOSTILE[i][:200], said)
        assert "MemoryError" not in said and len(said) < 1000


@pytest.mark.parametrize(
    "text",
    [text for text in templates.HOSTILE if "__" in text or "include" in text or "import" in text or "append" in text][
        :40
    ],
)
def test_what_wants_out_gets_nothing_but_an_error_or_an_empty_place(text: str):
    messages = json.loads(json.dumps(MESSAGES))
    try:
        said = render_template(text, {"messages": messages}, "2025-01-01")
    except TemplateError:
        said = ""
    assert "<class" not in said and "<module" not in said and "root:" not in said and "builtins" not in said
    assert messages == MESSAGES


def test_a_normal_rendering_takes_milliseconds_and_a_long_chat_stays_far_from_every_bound():
    long = [
        {"role": ("user", "assistant")[i % 2], "content": "Where is Mia? She is in the park. " * 20}
        for i in range(1000)
    ]
    render_template(template(), {"messages": MESSAGES[1:2]})
    times = []
    for messages in (MESSAGES[1:2], long):
        began = time.thread_time()
        for _ in range(3):
            render_template(template(), {"messages": messages})
        times.append((time.thread_time() - began) / 3)
    assert times[0] < MAX_SECONDS / 20 and times[1] < MAX_SECONDS / 2


@pytest.mark.parametrize(
    "text",
    [
        "{{ messages[1].content * 20 }}",
        "{{ messages|tojson(indent=4) }}",
        "{{ messages[1].content|upper|replace('A', 'bb')|indent(4) }}",
        "{% for m in messages %}{{ m.content.split('a')|join('/') }}{{ '%-9s|' % m.role }}{% endfor %}",
        "{{ messages|map(attribute='role')|join(', ') }}{{ '{:>9}'.format(messages[0].role) }}",
        "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}",
        "{{ [1, 2, 3]|sum }}{{ range(10)|batch(3)|list }}{{ dict(a=1, b=[2]) }}{{ 'é'.center(9) }}{{ (1, 2) + (3,) }}",
    ],
    ids=range(7),
)
def test_within_the_bounds_the_text_is_jinjas_own(text: str):
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    plain.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    assert render_template(text, {"messages": MESSAGES}) == plain.from_string(text).render(messages=MESSAGES)


def test_the_longest_text_that_is_allowed_is_rendered():
    assert len(render_template("{{ messages }}", {"messages": "a" * (MAX_CHARS - 1)})) == MAX_CHARS - 1
    with pytest.raises(TemplateError, match="characters"):
        render_template("{{ messages }}{{ messages }}", {"messages": "a" * (MAX_CHARS - 1)})
