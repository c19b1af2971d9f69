"""A model that says nothing but hostile tokens, a Bench full of hostile names, and what is looked for afterwards."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from typing import Any

import torch
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

import workbench as wb
from tests.browser.benches import atlas_of
from tests.widgets.every_view import work
from workbench.model import NANO, HookedGptOss, random_weights
from workbench.text import Tokenizer
from workbench.widgets import Bench

RAN = "__pwned"  # what would be set if any of this ran, in the page and in Python
IMG = f"<img src=x onerror=window.{RAN}=1>"
MARKUP = (
    IMG,
    f"</script><script>window.{RAN}=1</script>",
    f'"><svg onload=window.{RAN}=1>',
    f"' onmouseover='window.{RAN}=1' x='",
    f'<a href="javascript:window.{RAN}=1">go</a>',
    f"javascript:window.{RAN}=1",
    f"</style><style>*{{display:none}}@import url(//127.0.0.9/{RAN})",
    f"<iframe srcdoc='<script>parent.{RAN}=1</script>'></iframe>",
    "<b>",
    "<!--",
    "]]>",
    "&lt;b&gt;&#60;i&#62;",
    "%{customdata[0]}%{x}<extra></extra>",
    "$\\href{javascript:alert(1)}{x}$",
    f"![x](http://127.0.0.9/{RAN}) [go](javascript:alert(1)) `code` **bold** <http://127.0.0.9>",
    f"${{window.{RAN}=1}}",
    f"{{{{constructor.constructor('window.{RAN}=1')()}}}}",
    f"url(http://127.0.0.9/{RAN})",
)
PYTHON = (
    f"'); {RAN}.append(1); ('",
    f'"""); {RAN}.append(1); ("""',
    f"\n{RAN}.append(1)\n",
    f"\\'); {RAN}.append(1)  #",
    f"{{{RAN}.append(1)}}",
    f"__import__('builtins').{RAN}",
)
UNSEEN = (
    "\u202eevil\u202c",
    "\u2066\u2067\u2068\u2069",
    "\u200b\u200d\ufeff\u2060",
    "\u202d" * 20,
    "a" + "\u0301" * 300,
    "\u0489" * 40,
    "مرحبا שלום",
    "\u2028\u2029\x85",
    "\x00\x07\x1b[31m\x7f",
    "\t\r\n  \u00a0",
    "\U000e0041\ufff9\ue000",
    "👩‍👩‍👧‍👦" * 3,
    "﷽" * 5,
)
SHEET = ("=1+1", "=cmd|' /C calc'!A0", "+1", "-2+3", "@SUM(1)", "\t=1", "a;=1", '","=1')
LONG = "<i>" * 3334  # 10,002 characters
TOKENS = (*MARKUP, *PYTHON, *UNSEEN, *SHEET, LONG)
SPECIAL = "startoftext endoftext return constrain channel start end message call".split()
# A role that is markup, a byte that is no UTF-8, half a character, and everything else.
TEXT = f"<|start|>{IMG}<|message|>{''.join(TOKENS)}<|end|><|start|>user<|message|>\u20ac"
BROKEN = (0xE2, 0x82, 0xFF, 0xC0)
NAMES = ("=<img src=x onerror=window.__pwned=1>", "x']; __pwned.append(1); ['\\")


@cache
def tokenizer() -> Tokenizer:
    """A token a byte, harmony's special tokens, and a token for each hostile text."""
    backend = Backend(BPE({letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    backend.pre_tokenizer, backend.decoder = ByteLevel(add_prefix_space=False), ByteDecoder()
    backend.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in SPECIAL])
    backend.add_tokens([AddedToken(text, normalized=False) for text in TOKENS])
    return Tokenizer(backend, {"eos_token": "<|return|>"}, wb.load("nano").tokenizer.chat_template)


def byte(value: int) -> int:
    """The token of one byte."""
    made = [i for i in range(256) if tokenizer().token_bytes(i) == bytes([value])]
    return made[0]


@cache
def model() -> HookedGptOss:
    """Random weights; of its vocabulary the hostile tokens, and bytes that are no UTF-8, are always the likeliest."""
    reader, shape = tokenizer(), {"d_model": 32, "d_head": 8, "d_mlp": 16, "n_layers": 3, "n_experts": 4}
    config = NANO.with_(
        **shape,
        n_heads=4,
        d_vocab=reader.vocab_size,
        name=f"{IMG}\u202e",
        eos_token_ids=(reader.special["<|return|>"],),
    )
    made = random_weights(HookedGptOss(config, reader), 0)
    said = torch.zeros(reader.vocab_size, dtype=torch.bool)
    said[reader.vocab_size - len(TOKENS) :] = True
    said[[byte(value) for value in BROKEN]] = True
    with torch.no_grad():
        made.unembed.weight[~said] = 0
        made.unembed.weight *= 8
    return made


def prompts() -> dict[str, tuple[int, ...]]:
    """Two of one length, under hostile names, with pieces that are no UTF-8."""
    first = [*tokenizer().encode(TEXT), *(byte(value) for value in BROKEN), *(byte(value) for value in b"ab")]
    return {NAMES[0]: tuple(first), NAMES[1]: (*first[:-1], byte(ord("c")))}


def bench(open: list[str] | None = None, what: Any = None) -> Bench:
    """On the two prompts, with interventions, a vector and steps in the history that are named in a hostile way."""
    made = Bench(model(), prompts() if what is None else what, open=open)
    session = made.session
    session.add(wb.AblateHead(1, 2), label=PYTHON[2] + IMG)
    made.vector(PYTHON[0], [1.0] * 32)
    session.add(wb.Steer("blocks.1.hook_resid_post", PYTHON[0], 0.5))
    if what is None:
        session.add(wb.Patch("blocks.0.hook_resid_post", NAMES[1], (2,)))
    session.wait(60)
    return made


# ---------------------------------------------------------------- what must not be there

SVG = "data:image/svg+xml;base64,"
ELEMENTS = {
    "html", "head", "meta", "title", "body", "div", "span", "bdi",
    "table", "caption", "thead", "tbody", "tr", "th", "td",
    "img", "svg", "g", "path", "line", "circle", "rect", "polygon",
    "text",
    "p", "ul", "ol", "li", "b", "strong", "br", "code", "pre", "figure", "figcaption", "h3",
}  # fmt: skip


class Markup(HTMLParser):
    """What a browser would make of a page.

    Attributes:
        wrong: elements, attributes and styles that none of ours is.
        seen: its text.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.seen = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ELEMENTS:
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            if not harmless(tag, name, value or ""):
                self.wrong.append(f"<{tag} {name}={value!r:.80}>")
            elif (value or "").startswith(SVG):  # a browser runs no script in it, and none is in it
                inside = Markup(base64.b64decode((value or "").removeprefix(SVG)).decode())
                self.wrong += inside.wrong
                self.seen += inside.seen

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"<!-- {data[:80]}")

    def handle_data(self, data: str) -> None:
        self.seen += data


def harmless(tag: str, name: str, value: str) -> bool:
    """Whether an attribute neither runs nor fetches anything."""
    if name.startswith("on") or name in ("srcdoc", "href", "xlink:href", "action", "formaction", "background"):
        return False
    if name == "src":
        return tag == "img" and value.startswith(("data:image/png;base64,", SVG))
    if name == "style":
        return not re.search(r"url\(|expression|@import|[<>\\]|/\*", value)
    return name not in ("title", "alt", "aria-label") or not turning(value)


def turning(text: str) -> list[str]:
    """Characters in a text that turn or hide what is around them, or cannot be written as UTF-8."""
    return [
        hex(ord(char))
        for char in text
        if re.match("[\u202a-\u202e\u200b-\u200f\u2028\u2029\x00-\x08\x1b\x7f\ud800-\udfff\ufeff]", char)
    ]


def strings(data: Any) -> Iterator[str]:
    """All strings in nested data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        yield from (found for pair in data.items() for part in pair for found in strings(part))
    elif isinstance(data, list | tuple):
        yield from (found for item in data for found in strings(item))
    elif type(data).__module__ == "numpy" and data.dtype.kind in "OU":
        yield from strings(data.tolist())


def fill(bench: Bench) -> None:
    """Have every view do what it can, so that all of it is there to be shown."""
    session = bench.session
    bench.select(layer=1, position=5, expert=int(session.site(session.base, "blocks.1.mlp.hook_expert_indices")[5, 0]))
    bench["routing"].use_texts({f"{IMG}\u202e": [TEXT], PYTHON[1]: ["".join(SHEET)]})
    session.options("logit_lens", target=tokenizer().vocab_size - 2, pinned=[1, 5])
    session.options("steering", direction="difference", positive=IMG, negative=PYTHON[0], length=8)
    session.options("generation", length=4)
    bench.atlas = atlas_of(bench.model, corpus())
    found = bench["atlas"].contexts[0]
    session.options("atlas", context=[found.document, found.position])
    work(bench)


def corpus() -> list[dict[str, Any]]:
    """Documents of which everything is hostile that somebody can say of one."""
    texts = [TEXT, "".join(SHEET), "".join(TOKENS[:40]), TEXT]
    return [
        {"text": text, "domain": f"{IMG}\u202e{i}", "language": PYTHON[i], "id": MARKUP[i + 1]}
        for i, text in enumerate(texts)
    ]


def chat(text: str) -> wb.Chat:
    """Everybody says it."""
    said = wb.Chat().system(identity=text).developer(text).user(text).assistant(text, channel="analysis")
    return said.assistant(text, channel="commentary", recipient=f"functions.{text}").tool(text, text).user(text)
