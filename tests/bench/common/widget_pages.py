"""What the timings of the Bench look for in a page, and what they run in a notebook."""

from __future__ import annotations

from typing import Any

from tests.browser.benches import PROMPT, load_nano

# In seconds since 1970, as time.time() has it.
CLICKED = "addEventListener('click', e => { window.clicked = (performance.timeOrigin + e.timeStamp) / 1000 }, true)"

# Runs the notebook's second cell; the seconds until a Bench is painted that was not there before, with its tokens.
PAINTED = """
async () => {
  document.querySelectorAll('.wb-root').forEach(root => { root.dataset.old = 1 });
  jupyterapp.shell.currentWidget.content.activeCellIndex = 1;
  const begun = performance.now();
  jupyterapp.commands.execute('notebook:run-cell');
  while (!document.querySelector('.wb-root:not([data-old]) .wb-top-strip .wb-token')) {
    if (performance.now() - begun > 60000) throw new Error('no Bench was painted');
    await new Promise(requestAnimationFrame);
  }
  await new Promise(resolve => setTimeout(resolve));
  return (performance.now() - begun) / 1000;
}"""

LAB_CELLS = [
    f"""\
import threading, time
import workbench as wb

model = wb.load("nano")
pair, story = {PROMPT}, "{{}} is in the park. " + "Tom is in the kitchen. " * 30 + "Where is"
asked = []

def sweep():  # a new one, of seconds
    part = ("resid_pre", "attn_out", "mlp_out")[len(asked) % 3]
    bench.session.options("patching", part=part, metric=("probability", "kl")[len(asked) // 3 % 2])
    view = bench["patching"]
    asked.append(view.start(view.sweep(view.study())))

def ended():  # seconds since 1970
    job = asked[-1].wait(30)
    return time.time() - time.monotonic() + job.ended

def forward():
    begun = time.perf_counter()
    for _ in range(5):
        model(bench.base.tokens)
    return (time.perf_counter() - begun) / 5""",
    "bench = wb.Bench(model, pair)\nbench",
]


def to_a_sweep(notebook: Any) -> None:
    """A long pair of prompts in the Bench, and patching in front."""
    notebook.run(
        "bench.session.set_prompts({'clean': story.format('Mia'), 'corrupt': story.format('Tom')}); bench.wait()"
    )
    notebook.page.locator(".wb-root").get_by_role("tab", name="Patching", exact=True).click()
    notebook.js(CLICKED)


def cancel_in_lab(notebook: Any) -> float:
    """Seconds from the click on Cancel until the work has ended."""
    notebook.value("sweep()")
    notebook.wait_value("asked[-1].done > 0", timeout=60)
    stop = notebook.page.locator(".wb-patching .wb-job").get_by_role("button", name="Cancel")
    stop.click()
    return notebook.value("ended()") - notebook.js("window.clicked")


def follows(position: int) -> str:
    """JavaScript that holds when the strip, the effect and three views show a position, and none waits for Python."""
    seen = [
        f"one('.wb-top-strip .wb-selected')?.dataset.i === '{position}'",
        f"one('.wb-effect [aria-label^=\"next token after position {position},\"]')",
        f"says('.wb-lens [role=gridcell]', 'position {position},')",
        f"says('.wb-attention-of', 'at position {position} ')",
        f"says('.wb-routing-ribbon [role=gridcell]', 'position {position},')",
        f"says('.wb-routing', 'at position {position}, layer')",
        "!one('.wb-stale') && !one('.wb-loading')",
    ]
    helpers = "const one = s => document.querySelector(s), says = (s, text) => one(s)?.textContent.includes(text);"
    return f"(() => {{ {helpers} return {' && '.join(seen)} }})()"


def tall_model() -> Any:
    """24 layers, each as small as can be: for a grid of 24 × 1000 the numbers do not matter."""
    from workbench.model import NANO, HookedGptOss, random_weights

    shape = {
        "n_layers": 24,
        "d_model": 32,
        "d_mlp": 8,
        "n_heads": 2,
        "n_key_value_heads": 1,
        "n_experts": 4,
        "d_head": 8,
    }
    return random_weights(HookedGptOss(NANO.with_(**shape, name="24 layers"), load_nano().tokenizer), 0)
