"""What is deprecated works on, tells each line that uses it once, and must be gone by the version that it names."""

import ast
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

import workbench
from workbench import deprecation
from workbench.deprecation import GoingAway, deprecated, renamed_arguments, renamed_names

ROOT = Path(__file__).resolve().parents[2]
HELPERS = {"deprecated", "renamed_arguments", "renamed_names"}


@pytest.fixture(autouse=True)
def _nobody_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecation, "_told", set())


@deprecated(since="0.2", gone_in="0.4", use="new_sum(a, b)")
def old_sum(a: int, b: int = 1) -> int:
    """The sum."""
    return a + b


@renamed_arguments(since="0.2", gone_in="0.4", n_tokens="max_new_tokens", seed="rng")
def generate(text: str, *, max_new_tokens: int = 8, rng: int = 0) -> tuple[str, int, int]:
    return text, max_new_tokens, rng


def said(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What a call gives, and what it was warned of."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        given = call()
    return given, [f"{warning.category.__name__}: {warning.message}" for warning in heard]


def test_a_deprecated_function_does_its_work_and_names_its_successor_and_its_end():
    given, heard = said(lambda: old_sum(2, b=3))
    assert given == 5
    assert heard == ["GoingAway: old_sum is deprecated since 0.2 and gone in 0.4; use new_sum(a, b)"]
    assert (old_sum.__name__, old_sum.__doc__) == ("old_sum", "The sum.")


def test_each_line_that_calls_it_is_told_once_and_the_warning_points_at_that_line():
    def here() -> int:
        return old_sum(1)

    def there() -> int:
        return old_sum(1)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for call in (here, there, here, there, here):
            call()
    lines = [call.__code__.co_firstlineno + 1 for call in (here, there)]
    assert [(warning.filename, warning.lineno) for warning in heard] == [(__file__, line) for line in lines]


def test_a_deprecated_class_is_still_a_class_and_says_so_when_one_is_made():
    @deprecated(since="0.2", gone_in="0.4", use="Pair")
    class Two:
        def __init__(self, a: int) -> None:
            self.a = a

    class Three(Two):
        pass

    made, heard = said(lambda: Three(3))
    assert isinstance(made, Two) and made.a == 3
    assert len(heard) == 1 and "use Pair" in heard[0]


def test_an_argument_is_taken_under_its_old_name_and_handed_on_under_the_new_one():
    given, heard = said(lambda: generate("a", n_tokens=3, seed=7))  # pyright: ignore[reportCallIssue]
    assert given == ("a", 3, 7)
    assert heard == [
        "GoingAway: generate(n_tokens=…) is deprecated since 0.2 and gone in 0.4; write max_new_tokens=…",
        "GoingAway: generate(seed=…) is deprecated since 0.2 and gone in 0.4; write rng=…",
    ]
    assert said(lambda: generate("a", max_new_tokens=3)) == (("a", 3, 0), [])


def test_an_argument_under_both_names_is_refused():
    with pytest.raises(TypeError, match="given 'n_tokens' and 'max_new_tokens', which is its new name"):
        generate("a", n_tokens=3, max_new_tokens=4)  # pyright: ignore[reportCallIssue]


def test_a_name_that_moved_is_found_in_its_old_module_and_no_other_name_is():
    module = types.ModuleType("old_home")
    module.__getattr__ = renamed_names("old_home", since="0.2", gone_in="0.4", Settings="workbench.model.config.Config")
    given, heard = said(lambda: module.Settings)
    assert given is workbench.Config
    assert heard == [
        "GoingAway: old_home.Settings is deprecated since 0.2 and gone in 0.4; use workbench.model.config.Config"
    ]
    with pytest.raises(AttributeError, match="'old_home' has no attribute 'Nothing'"):
        _ = module.Nothing


def test_where_warnings_are_errors_it_is_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error", GoingAway)
        with pytest.raises(GoingAway):
            old_sum(1)


# ------------------------------------------------------------ nothing outstays its time


def endings(source: str) -> Iterator[tuple[int, str]]:
    """(line, version without it) of everything in a file that is deprecated."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in HELPERS:
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            end = given.get("gone_in")
            assert isinstance(end, ast.Constant), f"line {node.lineno}: write gone_in as a text, for the test to read"
            yield node.lineno, end.value


def overdue(source: str, version: str) -> list[int]:
    """The lines whose deprecated name should be gone in this version."""
    return [line for line, end in endings(source) if Version(version) >= Version(end)]


def test_the_search_finds_a_name_that_outstays_its_time():
    source = '@deprecated(since="0.2", gone_in="0.4", use="b")\ndef a(): ...\n'
    assert [overdue(source, version) for version in ("0.3.9", "0.4.0", "1.0")] == [[], [1], [1]]


def test_nothing_deprecated_is_still_there_in_the_version_that_should_be_without_it():
    files = [path for path in (ROOT / "workbench").rglob("*.py") if path.name != "deprecation.py"]
    late = {str(path.relative_to(ROOT)): overdue(path.read_text("utf-8"), workbench.__version__) for path in files}
    assert not {name: lines for name, lines in late.items() if lines}
