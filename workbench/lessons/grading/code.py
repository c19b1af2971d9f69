"""The code of a notebook, read and never run: which statement binds which name, what a function needs."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Statement:
    """One statement at the top of a cell."""

    node: ast.stmt
    cell: int
    source: str = field(repr=False)  # of the whole cell: an error shows its line
    tags: tuple[str, ...] = ()

    @property
    def binds(self) -> frozenset[str]:
        """The names that it gives a value."""
        return frozenset(_bound(self.node))

    @property
    def changes(self) -> frozenset[str]:
        """The names whose value it alters in place: an item or an attribute set, a method called for its effect."""
        return frozenset(_changed(self.node))

    @property
    def imports(self) -> bool:
        """Whether it is an import."""
        return isinstance(self.node, (ast.Import, ast.ImportFrom))

    @cached_property
    def needs(self) -> frozenset[str]:
        """The global names that it reads, in the bodies of its functions too; not what is local there."""
        table = symtable.symtable(ast.unparse(self.node), "<cell>", "exec")
        here = {each.get_name() for each in table.get_symbols() if each.is_referenced()}
        return frozenset(here.union(*map(_globals, table.get_children())))

    @property
    def is_solution(self) -> bool:
        """Whether it is one of the course's folded solutions."""
        return "solution" in self.tags or any(_is_solution(each) for each in getattr(self.node, "decorator_list", []))


@dataclass(frozen=True)
class Unreadable:
    """A cell that is no Python."""

    cell: int
    source: str = field(repr=False)
    why: str


@dataclass(frozen=True)
class Code:
    """All code of a notebook."""

    statements: tuple[Statement, ...]
    unreadable: tuple[Unreadable, ...] = ()

    def binding(self, name: str) -> list[Statement]:
        """The statements that give a name its value, in the notebook's order."""
        return [each for each in self.statements if name in each.binds]


def read_code(cells: Iterable[Any]) -> Code:
    """The statements of a notebook's code cells. What is no Python is kept apart, and spoils only its own cell."""
    statements: list[Statement] = []
    unreadable: list[Unreadable] = []
    for i, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        source = plain_python("".join(cell["source"]))
        tags = tuple(cell.get("metadata", {}).get("tags", ()))
        try:
            found = [Statement(node, i, source, tags) for node in ast.parse(source).body]
            for each in found:  # what can be parsed can still be no Python, or nested too deep to be walked through
                _ = each.needs, each.binds, each.changes
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            unreadable.append(Unreadable(i, source, _why(error)))
        else:
            statements += found
    return Code(tuple(statements), tuple(unreadable))


def plain_python(source: str) -> str:
    """The source without IPython's own lines (`%timeit`, `!ls`, `?`), each replaced by an empty statement."""
    if source.lstrip().startswith("%%"):
        before, _, rest = source.partition("%%")
        source = f"{before}# {rest}"
    return re.sub(r"^([ \t]*)(?:[%!?]|\w+\s*=\s*[%!]).*$", r"\1pass", source, flags=re.MULTILINE)


def is_stub(node: ast.stmt) -> bool:
    """Whether a function's body is still only its docstring and `...`."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return all(isinstance(each, ast.Pass) or _is_ellipsis(each) for each in body)


def without_solution_mark(node: ast.stmt) -> ast.stmt:
    """The function without its `@lesson.solution`."""
    if isinstance(node, Definition):
        node.decorator_list = [each for each in node.decorator_list if not _is_solution(each)]
    return node


def needed(wanted: Sequence[Statement], given: Sequence[Statement], known: Iterable[str]) -> list[Statement]:
    """Those of the `given` statements that the `wanted` ones need, directly or through each other, in order.

    Args:
        known: names that have their value already.
    """
    by_name: dict[str, list[Statement]] = {}
    for each in given:
        for name in each.binds | each.changes:
            by_name.setdefault(name, []).append(each)
    found: set[int] = set()
    seen = set(known) | {name for each in wanted for name in each.binds}
    open_names = [name for each in wanted for name in each.needs]
    while open_names:
        name = open_names.pop()
        if name in seen:
            continue
        seen.add(name)
        for each in by_name.get(name, []):
            found.add(id(each))
            open_names += each.needs
    return [each for each in given if id(each) in found]


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, Definition):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name
    if not isinstance(node, (*_SCOPES, *_COMPREHENSIONS)):
        for child in ast.iter_child_nodes(node):
            yield from _bound(child)


def _globals(table: symtable.SymbolTable) -> set[str]:
    here = {each.get_name() for each in table.get_symbols() if each.is_global() and each.is_referenced()}
    return here.union(*map(_globals, table.get_children()))


def _changed(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(node.ctx, ast.Load):
        yield from _root(node)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        yield from _root(node.value)
    if not isinstance(node, _SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from _changed(child)


def _root(node: ast.expr) -> Iterator[str]:
    """The name at the beginning of a chain: `a` of `a.b[0].c()`."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Name):
        yield node.id


def _is_solution(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Attribute) and called.attr == "solution"


def _is_ellipsis(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, (ast.Expr, ast.Return)) else None
    return isinstance(value, ast.Constant) and value.value is ...


def _why(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        line = f": `{error.text.strip()}`" if error.text else ""
        return f"line {error.lineno}{line}: {error.msg}"
    return f"{type(error).__name__}: {error}"
