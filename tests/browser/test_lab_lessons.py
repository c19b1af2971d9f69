"""A lesson in JupyterLab, as a student has it: predict, see, write, be told, come back tomorrow."""

import json

from tests.browser.lab import Lab

START = """\
from workbench import lessons
import plotly.graph_objects as go
lesson = lessons.start("04_attention")
revealed = []

def picture():
    revealed.append(1)
    return go.Figure(go.Bar(y=[1, 3, 2]), layout={"title": "the share of the sink", "height": 260})"""
PREDICT = """\
lesson.predict("whose keys", "Which keys?", choices=["none <b>", "half", "all"], answer="half", reveal=picture,
               because="Half of **them**.")"""
NUMBER = 'lesson.predict("the stack\'s reach", "How far?", number=(0, 99), answer=60, unit="tokens")'
STUB = "def softmax_with_sink(scores, sink): ...\nlesson.check(softmax_with_sink)"
WRONG = "def softmax_with_sink(scores, sink):\n    return scores.softmax(-1)\nlesson.check(softmax_with_sink)"
RIGHT = """\
import torch
def softmax_with_sink(scores, sink):
    column = sink[:, None, None].expand(*scores.shape[:2], 1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1]
lesson.check(softmax_with_sink)"""


def asked(notebook, n=0):
    """The box of a prediction that is there."""
    return notebook.page.locator("[class*=wb-predict-]").nth(n)


def test_a_figure_comes_after_the_commitment_and_a_new_kernel_goes_on(lab: Lab):
    with lab.open([START, PREDICT, NUMBER, STUB]) as notebook:
        notebook.run_all()
        box = asked(notebook)
        button = box.get_by_role("button", name="Commit")
        button.click()
        box.get_by_text("choose an answer first").wait_for()
        assert notebook.value("len(revealed)") == 0 and box.locator(".js-plotly-plot").count() == 0

        # A choice, by the keyboard.
        box.get_by_role("radio", name="none <b>").focus()
        notebook.page.keyboard.press("Space")
        button.click()
        box.locator(".js-plotly-plot").wait_for()
        box.get_by_text("It is half").wait_for()
        box.get_by_text("Half of them.").wait_for()
        assert notebook.value("lesson.predictions['whose keys'].value") == "none <b>"
        assert button.is_disabled() and notebook.value("len(revealed)") == 1
        # The still form beside it is hidden while the live one is there.
        assert notebook.page.locator("[class*=wb-predicted-]").first.is_hidden()

        # A number out of range cannot be given; one in it is committed once.
        number = asked(notebook, 1)
        field = number.get_by_placeholder("a number from 0 to 99 tokens")
        field.fill("250")
        number.get_by_role("button", name="Commit").click()
        number.get_by_text("expected a number from 0 to 99, you gave 250").wait_for()
        field.fill("63")
        number.get_by_role("button", name="Commit").click()
        number.get_by_text("You said 63 tokens, and it is 60 tokens.").wait_for()

        # The check: not written, wrong, right.
        assert "not written yet" in notebook.text(3)
        assert "more column" in notebook.run(WRONG) or "sink" in notebook.run(WRONG)
        assert "right" in notebook.run(RIGHT)

        # Tomorrow, in a new kernel: what was committed is there, answered.
        notebook.save()
        saved = json.dumps(notebook.saved())
        assert "You said" in saved and "none &lt;b&gt;" in saved
        notebook.end_kernel()
        notebook.reopen()
        notebook.run_all()
        asked(notebook).get_by_text("It is half").wait_for()
        assert notebook.value("lesson.predictions['whose keys'].committed")
        assert "1 of" in notebook.text(0) and "2 of" in notebook.text(0)
        notebook.reopen(kernel=False)
        still = notebook.page.locator("[class*=wb-predicted-]").first
        still.wait_for()
        assert "You said none <b>. It is half." in still.inner_text()
