"""In a browser, too, hostile tokens, names, labels and files are text, no more; see tests/widgets/hostile.py."""

import pytest
from plotly.offline import get_plotlyjs

from tests.browser.benches import settle
from tests.widgets import hostile
from tests.widgets.every_view import VIEWS
from tests.widgets.hostile import IMG, NAMES, RAN, TEXT, TOKENS

# What our own scripts make.
OURS = """div span bdi button input label select option output textarea canvas header footer section main strong h3
  h4 p ul ol li table thead tbody tr th td caption pre small i b u s em br kbd code mark svg g path line circle rect
  polygon polyline text tspan title details summary fieldset legend dl dt dd progress meter sub sup figure"""
LOOK = """(ours) => {
  const known = new Set(ours.split(/\\s+/)), found = [], say = (what) => found.push(escape(what.slice(0, 120)));
  const turning = /[\\x00-\\x08\\x1b\\x7f\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff]|\\p{Cs}/u;
  const walk = document.createTreeWalker(document.querySelector('.wb-root'), NodeFilter.SHOW_ALL);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    if (node.nodeType === Node.COMMENT_NODE) say(`comment ${node.data}`);
    if (node.nodeType === Node.TEXT_NODE && turning.test(node.data)) say(`text ${node.data}`);
    if (node.nodeType !== Node.ELEMENT_NODE) continue;
    if (!known.has(node.localName)) say(`<${node.localName}>`);
    for (const { name, value } of node.attributes) {
      if (/^on|^(src|srcdoc|href|xlink:href|action|formaction)$/.test(name)) say(`${name}=${value}`);
      if (name === 'style' && /url\\(|@import|expression/.test(value)) say(`style=${value}`);
      if (/^(title|aria-|alt|placeholder)/.test(name) && turning.test(value)) say(`${name}=${value}`);
    }
  }
  const page = document.documentElement;
  return page.scrollWidth > page.clientWidth ? [...found, 'wider than the page'] : found;
}"""
FOREIGN = "#plot :is(script, img, iframe, a:not(.modebar-btn), foreignObject)"


def wrong(page):
    """What is on the page that none of us put there."""
    ran = page.page.evaluate(f"() => '{RAN}' in window ? ['it ran'] : []")
    return ran + page.page.evaluate(LOOK, OURS)


@pytest.fixture(scope="module")
def filled():
    made = hostile.bench(open=None)
    hostile.fill(made)
    yield made
    made.close()


def touch(page, bench):
    """With the keys, into every grid and strip that is on screen: what opens there, opens."""
    for place in page.css(".wb-view :is([role=grid], [role=listbox], [role=tree])").all():
        if place.is_visible():
            place.focus()
            page.press("ArrowRight", "ArrowDown", "Enter")
            page.pump(0.05)
    settle(page, bench)


def test_every_view_shows_hostile_texts_as_text(filled, page_of):
    bench, page, found = filled, page_of(filled, width=600), {}
    settle(page, bench)
    for view in VIEWS:
        if view != "effect":
            bench.session.look(open=[view])
            page.wait(lambda view=view: page.get("tab").count() == 1)
            settle(page, bench)
            found[view] = wrong(page)
            touch(page, bench)
            found[f"{view}, touched"] = wrong(page)
            assert IMG in page.text(".wb-root"), view
    assert {view: problems for view, problems in found.items() if problems} == {}


def test_the_shell_shows_hostile_prompts_names_files_and_errors_as_text(page_of):
    everything = "".join(TOKENS)
    bench = hostile.bench(["tokens"], {NAMES[0]: TEXT, NAMES[1]: hostile.chat(everything)})
    page, found = page_of(bench, theme="dark", width=600), {}
    settle(page, bench)

    def look(what):
        settle(page, bench)
        found[what] = wrong(page)

    look("prompts, chips and history")
    page.click("button", "Edit prompt")
    page.type("textbox", f"text of {NAMES[0]}", "\ud7ff" + everything + "\u202e")
    look("the editor")
    page.click("button", "Run")
    look("what was written there")
    for button in ("Copy code", "Export", "Views"):
        page.click("button", button)
        look(button)
        page.press("Escape")
    page.css(".wb-answer").click()
    page.type("textbox", "Right", everything)
    page.click("button", "Set")
    page.wait(lambda: page.get("alert").count())
    look("an answer that is none")
    page.press("Escape")
    for name, content in (
        (f"{IMG}\u202e.json", f'{{"format": "{IMG}\u202e", "study": 1, "screen": 1}}'),
        ("\u202e.json", everything),
    ):
        page.css("input[type=file]").first.set_input_files(
            {"name": name, "mimeType": "text/plain", "buffer": content.encode()}
        )
        page.wait(lambda: page.css(".wb-notice").count())
        look(f"a file {name!r}")
    assert {view: problems for view, problems in found.items() if problems} == {}
    page.errors.clear()  # the shell writes to the console what it could not do
    bench.close()


PLOT = "figure => { const { data, layout } = JSON.parse(figure); return Plotly.newPlot('plot', data, layout) }"


def test_exported_pages_and_figures_run_nothing_in_a_browser(filled, page_of, tmp_path):
    other, asked = page_of(filled).context.new_page(), []
    other.on("request", lambda request: asked.append(request.url))
    count = "what => document.querySelectorAll(what).length"
    # As a file that somebody opens, without the policy that it brings along.
    content = filled.export(tmp_path / "page.html").read_text("utf-8")
    other.set_content(content.replace("Content-Security-Policy", "x"))
    assert other.evaluate(f"() => '{RAN}' in window") is False
    assert other.evaluate(count, "script, iframe, a, object, embed, input, form, link") == 0
    other.set_content("<div id=plot></div>")
    other.add_script_tag(content=get_plotlyjs())
    for view in VIEWS:
        other.evaluate(PLOT, filled[view].figure().to_json())
        assert other.evaluate(count, "#plot svg text") > 0
        assert other.evaluate(count, FOREIGN) == 0 and other.evaluate(f"() => '{RAN}' in window") is False, view
    assert [url for url in asked if not url.startswith(("data:", "blob:", "about:"))] == []
