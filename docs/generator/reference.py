"""Pages that are made from the code: every site, every intervention, every public name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

from docs.generator.docstrings import as_markdown, first_sentence
from docs.generator.examples import blocks
from docs.generator.sources import ROOT

# The packages that have a page, in the order of their stages, and what stands under their names.
PACKAGES = {
    "checkpoints": "Load, save, verify and estimate",
    "text": "Chats, tokenizers, roles and channels",
    "model": "The model, its configuration and its sites",
    "activations": "A run and what it keeps",
    "interventions": "Edits as frozen data",
    "dictionaries": "Sparse autoencoders",
    "prompts": "Pairs of prompts",
    "compiled": "Models whose weights are known",
    "sweeps": "Grids of cells, measured in batches",
    "experiments": "A run or a model → labelled data",
    "atlases": "Where a corpus was routed",
    "provenance": "Records of runs",
    "figures": "Labelled data → figures",
    "widgets": "The Bench and its views",
    "lessons": "The course",
}
# Classes that users get back from a function, and that are not in their package's list of names.
ALSO = {
    "atlases": ("workbench.atlases.queries.Atlas", "workbench.atlases.contexts.Context"),
    "sweeps": ("workbench.sweeps.results.Results",),
}
# What a package's own plumbing exports to the packages above it.
INSIDE = {
    "provenance": "Entry Held Maker Part Result Vector Whole flush held id_of on place quiet recording submit trouble "
    "PLACE",
    "interventions": "KINDS Context all_edits check_all edits as_dict from_dict code",
}
_LINE = 92  # characters of a signature on one line
_EXAMPLES = """
??? example "What the examples begin with"

    ```python
    import numpy as np

    import workbench as wb
    from workbench import experiments, interventions, prompts, text
    from workbench.experiments import Circuit, Node, Receiver

    model = wb.load("nano")
    pair = prompts.pairs(model, "indirect object", n=1)[0]
    run = wb.run(model, pair.clean, sites="all")
    ```
"""


@cache
def names(package: str) -> dict[str, Any]:
    """The public names of a package, and what they are."""
    module = import_module(f"workbench.{package}")
    listed = {name: getattr(module, name) for name in module.__all__}
    for path in ALSO.get(package, ()):
        inside, _, name = path.rpartition(".")
        if hasattr(found := import_module(inside), name):
            listed[name] = getattr(found, name)
    hidden = set(INSIDE.get(package, "").split())
    return {name: what for name, what in listed.items() if name not in hidden}


@cache
def places() -> dict[str, str]:
    """Name → package of the page where it stands, the lowest stage that makes it."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        for name, what in names(package).items():
            home = getattr(what, "__module__", "") or ""
            if name not in found or home.startswith(f"workbench.{package}"):
                found[name] = package
    return found


def spelled(name: str, package: str) -> str:
    """How a user writes it."""
    import workbench

    return f"wb.{name}" if name in workbench.__all__ else f"{package}.{name}"


def api_page(package: str) -> str:
    """Every public name of a package, with its signature and its docstring."""
    module = import_module(f"workbench.{package}")
    title, *rest = (inspect.getdoc(module) or "").split("\n\n")
    head = f"# workbench.{package}\n\n{PACKAGES[package]}.\n\n{as_markdown(title, _link)}\n"
    table = [part for part in rest if part.startswith("|")]
    files = f'??? info "The files"\n\n{_indented(table[0])}\n' if table else ""
    files += _EXAMPLES if ">>>" in "".join(map(_doc, names(package).values())) else ""
    here = {name: what for name, what in names(package).items() if places()[name] == package}
    return "\n".join([head, files, *(_entry(name, what, package) for name, what in here.items())])


def index_page() -> str:
    """All public names on one page, each with its first sentence."""
    lines = ["# Every public name\n", "What stands under `import workbench as wb` is written `wb.…`.\n"]
    for package, about in PACKAGES.items():
        lines.append(
            f"## {package}\n\n{about}: [workbench.{package}]({package}.md).\n\n| name | what it is |\n|---|---|"
        )
        for name, what in names(package).items():
            if places()[name] == package:
                lines.append(f"| [`{spelled(name, package)}`]({package}.md#{anchor(name)}) | {_cell(_about(what))} |")
        lines.append("")
    return "\n".join(lines)


def sites_page() -> str:
    """Every site of nano, from the model's own table."""
    from workbench.model import GPT_OSS_20B, NANO
    from workbench.model.sites import BLOCK, OUTER, STANDARD_SITES, Sites

    text = [
        "# Every site of the model\n",
        "A *site* is a place where the model can be read and edited. This page is made from the table in the code "
        "(`workbench/model/sites.py`); `model.sites` prints the same for a loaded model. Names are TransformerLens' "
        "where it has one.\n",
        f"nano has {NANO.n_layers} layers and {len(Sites(NANO.n_layers))} sites; gpt-oss-20b has "
        f"{GPT_OSS_20B.n_layers} and {len(Sites(GPT_OSS_20B.n_layers))}. Sites marked ● are kept by `wb.run` unless "
        'you ask for others (`sites="all"`, a name, several, or a function of the name). All sites that hold real '
        "numbers can be edited by a hook, and have gradients.\n",
        '!!! note "Reading the shapes"\n\n    `batch` and `pos` are your rows and tokens. The other axes are given '
        "for nano and for gpt-oss-20b. Axes named `head` have the number of query heads, `kv_head` that of the "
        "key-value heads that they share; `slot` is a token's route: slot 0 is the expert with the largest weight.\n",
        "## In every layer\n",
        "Put `blocks.0.` and so on before the name.\n",
        _sites_table(BLOCK, STANDARD_SITES, NANO, GPT_OSS_20B),
        "\n## Once, outside the layers\n",
        _sites_table(OUTER, STANDARD_SITES, NANO, GPT_OSS_20B),
    ]
    return "\n".join(text) + "\n"


def _sites_table(sites: dict[str, Any], standard: tuple[str, ...], *configs: Any) -> str:
    rows = ["| site | | dims | nano | 20b | what it holds |", "|---|---|---|---|---|---|"]
    for name, (dims, meaning) in sites.items():
        shapes = (" × ".join(_length(dim, config) for dim in dims if dim not in ("batch", "pos")) for config in configs)
        kept = "●" if name.endswith(standard) else ""
        place = f'<span id="{name.replace(".", "-")}"></span>'
        rows.append(f"| {place}`{name}` | {kept} | {' '.join(dims)} | {' | '.join(shapes)} | {_cell(meaning)} |")
    return '<div class="wb-sites" markdown="1">\n\n' + "\n".join(rows) + "\n\n</div>\n"


def _length(dim: str, config: Any) -> str:
    lengths = {
        "head": config.n_heads, "kv_head": config.n_key_value_heads, "d_head": config.d_head, "one": 1,
        "d_model": config.d_model, "d_mlp": config.d_mlp, "slot": config.experts_per_token, "expert": config.n_experts,
    }  # fmt: skip
    return str(lengths.get(dim, dim.removesuffix("_pos")))


def interventions_page() -> str:
    """Every kind of intervention, from its class."""
    from workbench.interventions import KINDS

    kinds = KINDS if isinstance(KINDS, dict) else {kind.__name__: kind for kind in KINDS}
    text = [
        "# Every intervention\n",
        "An intervention is frozen data: it names layers, experts, heads and positions and holds no tensor. "
        "`wb.run(model, text, [spec, …])` carries some out, `to_json` and `from_json` keep them "
        "([how to](../howto/interventions.md)). This page is made from the classes.\n",
        "| | what it does |\n|---|---|",
        *(f"| [`wb.{name}`](#{anchor(name)}) | {_cell(_about(kind))} |" for name, kind in kinds.items()),
        "",
    ]
    for name, kind in kinds.items():
        rows = "\n".join(f"| `{f.name}` | `{_type(f.type, kind)}` | {_default(f)} |" for f in fields(kind))
        doc = as_markdown(inspect.getdoc(kind) or "", _link)
        text.append(f"## {name} {{ #{anchor(name)} }}\n\n{doc}\n\n| field | type | default |\n|---|---|---|\n{rows}\n")
    return "\n".join(text)


def _type(annotation: Any, kind: type) -> str:
    """A field's type; of a name for some choices, the choices."""
    meant = vars(import_module(kind.__module__)).get(annotation) if isinstance(annotation, str) else None
    if get_origin(meant) is Literal:
        return " | ".join(repr(choice) for choice in get_args(meant))
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return text


def _default(field: Any) -> str:
    from dataclasses import MISSING

    return "needed" if field.default is MISSING else f"`{field.default!r}`"


# ---------------------------------------------------------------- one name
def anchor(name: str) -> str:
    """The anchor of a name on its page. Case is kept apart: ``Atlas`` is a class, ``atlas`` a function."""
    return f"class-{name}" if name[:1].isupper() else name


def _entry(name: str, what: Any, package: str) -> str:
    used = f"\n\nUsed in: {', '.join(links)}." if (links := list(_used(spelled(name, package), name))) else ""
    head = f"## {name} {{ #{anchor(name)} }}\n\n"
    if isinstance(what, ModuleType):
        inside = [name for name, part in vars(what).items() if inspect.isfunction(part) and name[0] != "_"]
        parts = [f"{_signature(name, getattr(what, name))}\n\n{_about(getattr(what, name))}\n" for name in inside]
        return f"{head}{as_markdown(_doc(what), _link)}\n\n" + "\n".join(parts)
    if not callable(what) and inspect.getdoc(what) is None:
        return f"{head}`{what!r:.200}`\n"
    doc = as_markdown(_doc(what), _link)
    if inspect.isclass(what):
        return f"{head}{_signature(name, what)}\n\n{doc}{used}\n\n{_members(what)}"
    called = what if inspect.isroutine(what) else type(what)
    if called is not what:  # an object such as wb.atlas, wb.view or a preset
        shown = _signature(name, what) if callable(what) else f"```python\n{what!r:.400}\n```"
        return f"{head}{shown}\n\n{doc}{used}\n\n{_members(called)}"
    return f"{head}{_signature(name, what)}\n\n{doc}{used}\n"


def _doc(what: Any) -> str:
    doc = inspect.getdoc(what) or ""
    # A dataclass without a docstring gets its signature for one.
    return "" if doc.startswith(f"{getattr(what, '__name__', '?')}(") else doc


def _about(what: Any) -> str:
    return first_sentence(_doc(what))


def _members(kind: type) -> str:
    """The methods and properties that a class itself defines."""
    made = []
    for name, member in vars(kind).items():
        wrapped = isinstance(member, property | classmethod | staticmethod)
        if name.startswith("_") or not (inspect.isfunction(member) or wrapped) or not (doc := inspect.getdoc(member)):
            continue
        if isinstance(member, property):
            made.append(f"### .{name} {{ #{anchor(kind.__name__)}-{name} }}\n\n{as_markdown(doc, _link)}\n")
            continue
        function = member if inspect.isfunction(member) else member.__func__
        head = f"### .{name}() {{ #{anchor(kind.__name__)}-{name} }}"
        made.append(f"{head}\n\n{_signature(name, function, method=True)}\n\n{as_markdown(doc, _link)}\n")
    return "\n".join(made)


def _signature(name: str, what: Any, method: bool = False) -> str:
    try:
        signature = inspect.signature(what)
    except (TypeError, ValueError):
        return ""
    parameters = list(signature.parameters.values())[1 if method else 0 :]
    parts = list(_parameters(parameters))
    returned = signature.return_annotation
    gives = "" if returned in (inspect.Signature.empty, "None", None) else f" -> {_annotation(returned)}"
    one = f"{name}({', '.join(parts)}){gives}"
    if len(one) > _LINE:
        one = f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){gives}"
    return f"```python\n{one}\n```"


def _parameters(parameters: list[inspect.Parameter]) -> Iterator[str]:
    starred = False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        starred = starred or parameter.kind is parameter.VAR_POSITIONAL
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        text = f"{stars}{parameter.name}"
        typed = parameter.annotation is not parameter.empty
        if typed:
            text += f": {_annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f"{' = ' if typed else '='}{_value(parameter.default)}"
        yield text


def _value(default: Any) -> str:
    if inspect.isfunction(default):
        return default.__name__
    text = repr(default)
    return "…" if text.startswith("<") else text


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text).strip("'\"") if "Literal" not in text else text


def _link(name: str) -> str:
    """A name as a link to where it stands, as code if it has no page."""
    short = name.rpartition(".")[2]
    package = places().get(short)
    return f"[`{short}`]({package}.md#{anchor(short)})" if package else f"`{short}`"


@cache
def _howtos() -> list[tuple[str, str, str]]:
    """(page, its title, its code) of every how-to."""
    found = []
    for path in sorted((ROOT / "docs" / "pages" / "howto").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        title = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
        found.append((path.name, title[1] if title else path.stem, "\n".join(block.code for block in blocks(text))))
    return found


def _used(spelling: str, name: str) -> Iterator[str]:
    """Links to the how-tos whose code calls it."""
    for page, title, code in _howtos():
        if re.search(rf"\b{re.escape(spelling)}\b|\bimport [^\n]*\b{name}\b", code):
            yield f"[{title}](../../howto/{page})"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _cell(text: str) -> str:
    """Text inside a table."""
    return as_markdown(text, _link) if text else ""


def commands_page() -> str:
    """What each command of `workbench` says of itself."""
    import argparse

    from workbench.cli import parser

    whole = parser()
    made = next(action for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    about = {choice.dest: choice.help for choice in made._choices_actions}
    text = ["# Every command\n", "`workbench COMMAND --help` says the same.\n"]
    for name, command in made.choices.items():
        command.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=96)
        text.append(f"## workbench {name}\n\n{about.get(name, '')}\n\n```text\n{command.format_help()}```\n")
    return "\n".join(text)
