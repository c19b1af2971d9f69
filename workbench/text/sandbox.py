"""Jinja's immutable sandbox, in which every operation also has a bound on its time and its size.

Jinja's own keeps a template from Python's inside, and from changing what it is given. It does not keep it from
working for hours or filling the memory: one filter can ask for 10 GB. Here each operation that can make more than it
is given is measured before it is done (see meter.py). Filters that no chat needs and that have no such measure
(urlize, wordwrap, striptags, xmlattr, pprint) are not there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sized
from functools import wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from workbench.text.meter import meter

_GONE = ("urlize", "wordwrap", "striptags", "xmlattr", "pprint")
_UNSAFE = {  # methods that make as much as they are told to, and that no chat needs
    str: {"translate", "maketrans", "encode", "expandtabs"},
    int: {"to_bytes", "from_bytes"},
}
_WIDE = re.compile(r"\d{5,}|\*")  # of "%99999999d", "%*d", "{:99999999}"
_PIECES = 2_000_000  # of a text that is split: each takes 60 bytes
_TIMES = 100_000_000  # comparisons of characters in one search from the right, or strip
_MOST = 100_000  # columns or slices
_FORM = 10_000  # characters before %


def environment() -> Sandbox:
    """With the settings, extensions and helpers that transformers gives to chat templates."""
    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    filters, tests, known = _tables(sandbox)
    filters["tojson"] = _to_json
    for name in _GONE:
        del filters[name]
    for kinds in (filters, tests):
        kinds.update({name: _bounded(name, function) for name, function in kinds.items()})
    del known["lipsum"]
    safe_range = known["range"]

    def short_range(*ends: int) -> range:
        return safe_range(*map(_short, ends))

    known.update(raise_exception=_raise_exception, namespace=_Namespace, range=short_range)
    return sandbox


def _tables(sandbox: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    return sandbox.filters, sandbox.tests, sandbox.globals  # which Jinja leaves without types


class Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox; what it runs passes by the :class:`Meter` of its thread."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Bounds(self).visit(source), *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        unsafe = next((names for kind, names in _UNSAFE.items() if isinstance(obj, kind)), ())
        return attr not in unsafe and super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        meter().tick()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            args = _measured(__obj.__name__, owner, args, kwargs)
        return meter().made(super().call(__context, __obj, *args, **kwargs), new=False)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter().tick()
        if operator == "**" or (operator == "*" and _is_large(left, right)):  # before it is computed
            raise jinja2.TemplateError(f"it computes a value that is too large, with {operator}")
        if operator == "%" and isinstance(left, str):
            _measure_percent(left, right)
        return meter().made(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        text: Any = value.__self__
        options: dict[str, Any] = (
            {"escape": text.escape} if hasattr(text, "escape") else {}
        )  # Jinja's Markup, where it escapes
        kind = _EscapeFormatter if options else _Formatter

        @wraps(wrapped)
        def formatted(*args: Any, **kwargs: Any) -> str:
            if value.__name__ == "format_map":
                args, kwargs = (), args[0]
            return type(text)(kind(self, **options).vformat(text, args, kwargs))

        return formatted

    @property
    def step(self) -> None:
        # A property, because a call would pass through the sandbox's checks each time.
        meter().tick()

    def concat(self, parts: Iterable[str]) -> str:
        # What Jinja joins the output of macros, blocks and {% set %} blocks with.
        return meter().made(_joined(parts))

    def bounded(self, value: Any) -> Any:
        """What a literal, a comparison, a slice or ~ has made."""
        return meter().made(value)


class _Bounds(NodeTransformer):
    """Puts `environment.step` into each loop, macro and block, and `environment.bounded(…)` around what makes values
    without a call."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self.environment = environment

    def visit_For(self, node: nodes.Node) -> nodes.Node:
        return self._counted(node)

    visit_Macro = visit_CallBlock = visit_Block = visit_For

    def visit_Concat(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return self._bounded(node)

    visit_Compare = visit_List = visit_Dict = visit_Concat

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return self._bounded(node) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return self._bounded(node) if isinstance(node.arg, nodes.Slice) and node.ctx == "load" else node

    def _bounded(self, node: nodes.Expr) -> nodes.Node:
        # EnvironmentAttribute is no name, so a template cannot shadow it.
        bounded = nodes.EnvironmentAttribute("bounded")
        return nodes.Call(bounded, [node], [], None, None, lineno=node.lineno).set_environment(self.environment)

    def _counted(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(nodes.EnvironmentAttribute("step"), lineno=node.lineno))
        return node


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}` marks what the assistant wrote; here it only shows its content."""

    tags = {"generation"}  # noqa: RUF012  (Jinja declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    # Its own would write out all that it holds: itself, without end.
    def __repr__(self) -> str:
        return "<Namespace>"


class _Formatter(SandboxedFormatter):
    """str.format, field by field."""

    size = 0

    def format_field(self, value: Any, format_spec: str) -> Any:
        meter().tick()
        if _WIDE.search(format_spec):
            raise jinja2.TemplateError("it computes a value that is too large, with format")
        self.size += meter().weight(value)
        meter().refuse(self.size)
        return super().format_field(value, format_spec)


class _EscapeFormatter(_Formatter, SandboxedEscapeFormatter):
    pass


# ---------------------------------------------------------------- measures, before anything is made


def _joined(parts: Iterable[str]) -> str:
    held: list[str] = []
    size = 0
    for part in parts:
        size += len(part)
        held.append(part)
        meter().refuse(size)
        if not len(held) % 1024:
            meter().look()
    return "".join(held)


def _short(end: Any) -> Any:
    if isinstance(end, int) and abs(end) > 2**31:  # numbers of one hash, in a set, take for ever
        raise jinja2.TemplateError(f"it counts to {end:.3g}")
    return end


def _is_large(left: Any, right: Any) -> bool:
    repeated, times = (left, right) if isinstance(left, Sized) else (right, left)
    if not isinstance(times, int) or not isinstance(repeated, Sized):
        return False
    meter().refuse(meter().weight(repeated) * times)
    return False


def _measure_percent(form: str, values: Any) -> None:
    if len(form) > _FORM:
        raise jinja2.TemplateError(f"it formats with more than {_FORM:,} characters before %")
    if any(_WIDE.search(spec) for spec in re.findall(r"%(?:\([^)]*\))?([^a-zA-Z%(]*)", form)):
        raise jinja2.TemplateError("it computes a value that is too large, with %")
    meter().refuse(len(form) + form.count("%") * meter().weight(values))


def _measured(name: str, text: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a method of str, or of the filter of that name, if what it makes of them is within bounds."""
    sizes = [value for value in (*args, *kwargs.values()) if isinstance(value, int)]
    words = [value for value in (*args, *kwargs.values()) if isinstance(value, str)]
    if name in ("center", "ljust", "rjust", "zfill", "truncate"):
        meter().refuse(max(map(abs, sizes), default=0))
    elif name == "replace" and len(words) == 2:
        meter().refuse(len(text) + text.count(words[0]) * len(words[1]))
    elif name == "indent":
        meter().refuse(len(text) + (1 + text.count("\n")) * max([*map(abs, sizes), *map(len, words)], default=4))
    elif name == "join" and args:
        items = list(args[0])
        meter().refuse(len(text) * len(items) + sum(map(meter().weight, items)), "a text")
        return (items, *args[1:])
    elif name in ("split", "rsplit", "splitlines", "list"):
        _measure_pieces(name, text.count(words[0]) if words and words[0] else len(text) // 2)
    if words and name in ("strip", "lstrip", "rstrip", "trim", "rfind", "rindex", "rsplit", "rpartition"):
        _measure_search(name, len(text) * len(words[0]))
    return args


def _measure_pieces(name: str, pieces: int) -> None:
    if pieces > _PIECES:
        raise jinja2.TemplateError(f"it takes a text into more than {_PIECES:,} pieces, with {name}")


def _measure_search(name: str, times: int) -> None:
    if times > _TIMES:
        raise jinja2.TemplateError(f"it searches for too long, with {name}")


def _bounded(name: str, function: Any) -> Any:
    """A filter or a test that is counted, and whose result is within bounds."""
    wants = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

    # With a context Jinja does not compute it while it compiles, where its results would become source text.
    @jinja2.pass_context
    def bounded(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter().tick()
        parts = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        before = (parts[wants],) if wants else ()
        value, args, kwargs = _measured_filter(name, value, args, kwargs, context)
        return meter().made(function(*before, value, *args, **kwargs), new=False)

    return bounded


def _measured_filter(name: str, value: Any, args: Any, kwargs: Any, context: Context) -> Any:
    sizes = [abs(each) for each in (*args, *kwargs.values()) if isinstance(each, int)]
    if name in ("batch", "slice", "round") and max(sizes, default=0) > (300 if name == "round" else _MOST):
        raise jinja2.TemplateError(f"it asks for {max(sizes):.3g}, with {name}")
    if name == "sum" and any(not isinstance(each, int | float) for each in [*args[1:], kwargs.get("start", 0)]):
        raise jinja2.TemplateError("it adds up what is no number, with sum")
    if name == "format":
        _measure_percent(str(value), kwargs or args)
    elif name == "join":
        value, args, kwargs = _measured_join(value, args, kwargs, context)
    elif name in ("indent", "center", "replace", "truncate", "trim", "list") and isinstance(value, str):
        _measured(name, value, args, kwargs)
    elif name == "replace":
        return _measured_filter(name, str(value), args, kwargs, context)
    return value, args, kwargs


def _measured_join(value: Any, args: Any, kwargs: Any, context: Context) -> Any:
    between = str(args[0] if args else kwargs.get("d", ""))
    attribute = args[1] if len(args) > 1 else kwargs.get("attribute")
    items = list(value)
    if attribute is not None:
        items = list(map(make_attrgetter(context.environment, attribute), items))
    _measured("join", between, (items,), {})
    return items, (between,), {}


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes <, > and & for HTML; chat templates expect plain JSON.
    if len(str(indent)) > 8 or len(str(separators)) > 40 or (isinstance(indent, int) and indent > 100):
        raise jinja2.TemplateError("it indents or separates too much, with tojson")
    made = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    if indent is None:
        meter().weight(value)
        return made.encode(value)
    return _joined(made.iterencode(value))


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
