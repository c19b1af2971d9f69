"""Runs the cell that a Bench copies as code, in a fresh namespace."""

from __future__ import annotations

import ast
from typing import Any


def ran(cell: str, **given: Any) -> tuple[Any, dict[str, Any]]:
    """The value of the cell's last expression, as a notebook would show it, and its variables."""
    tree, namespace = ast.parse(cell), dict(given)
    last = tree.body.pop()
    assert isinstance(last, ast.Expr), ast.unparse(last)
    exec(compile(tree, "cell", "exec"), namespace)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace), namespace
