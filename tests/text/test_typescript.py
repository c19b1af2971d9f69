"""Tools as TypeScript: the text of OpenAI's harmony library."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.text.samples import PARAMETERS
from workbench.text import HarmonyError, Tool


def fields(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": ["a"]}


TEXT = {"type": "string"}
SCHEMAS = {
    "no parameters": None,
    "anything": {},
    "an empty object": {"type": "object"},
    "no object": TEXT,
    "the weather": PARAMETERS,
    "required and optional": fields(a=TEXT, b=TEXT),
    "all simple types": fields(a=TEXT, b={"type": "integer"}, c={"type": "number"}, d={"type": "boolean"}, e={}),
    "unknown types": fields(a={"type": "foo"}, b={"$ref": "#/d"}, c={"type": "null"}, d={"anyOf": [TEXT]}),
    "several types": fields(a={"type": ["string", "integer", "null"]}, b={"type": ["string"], "nullable": True}),
    "choices": fields(a={"type": "string", "enum": ["x", "y"]}, b={"enum": ["x"]}, c={"type": "integer", "enum": [1]}),
    "odd choices": fields(a={"type": "string", "enum": []}, b={"type": "string", "enum": [1, "a", True]}),
    "or null": fields(
        a={"type": "string", "nullable": True},
        b={"type": "array", "items": TEXT, "nullable": True},
        c={"type": "object", "nullable": True},
        d={"type": "string", "enum": ["x"], "nullable": True},
    ),
    "lists": fields(
        a={"type": "array"},
        b={"type": "array", "items": TEXT},
        c={"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
        d={"type": "array", "items": {"type": "string", "enum": ["u", "v"]}, "default": ["u"]},
        e={"type": "array", "items": fields(a=TEXT)},
        f={"type": "array", "items": {"oneOf": [TEXT, {"type": "number"}]}},
    ),
    "defaults": fields(
        a={"type": "boolean", "default": False},
        b={"type": "number", "default": 1.5},
        c={"type": "object", "default": {"k": [1, "x"]}},
        d={"type": "string", "default": None},
        e={"type": "string", "default": 'é"q'},
        f={"type": "string", "enum": ["x"], "default": "x"},
        g={"type": "string", "enum": ["x"], "default": 5},
    ),
    "comments": fields(
        a={"type": "string", "title": "T", "description": "One\ntwo", "examples": ["e", 3, {"k": 1}], "default": "d"},
        b={"type": "string", "title": "only"},
        c={"type": "boolean", "examples": [True]},
        d={"type": "string", "description": ""},
        e={"type": "string", "examples": []},
    ),
    "nested objects": fields(a=fields(a=fields(a=TEXT | {"description": "deep", "default": "q"}), b=TEXT)),
    "a described object": fields(a={"type": "object", "description": "an object", "properties": {"x": TEXT}}),
    "a described schema": {"type": "object", "description": "All", "title": "T", "properties": {"a": TEXT}},
    "one of several": fields(
        a={"oneOf": [TEXT | {"description": "as text", "default": "x"}, {"type": "integer", "default": 3}]},
        b={"oneOf": [{"type": "string", "enum": ["a", "b"], "default": "a"}, fields(a=TEXT)]},
        c={"oneOf": [TEXT | {"description": "lost"}], "description": "Either", "default": 1},
        d={"oneOf": []},
    ),
    "one of several inside": fields(a=fields(a={"oneOf": [TEXT, {"type": "null", "description": "none"}]})),
    "one of several at the top": {"oneOf": [TEXT, {"type": "number", "description": "as a number"}]},
}


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("description", ["Does it.", "One line.\n\nAnother.", ""])
def test_a_tools_text_is_the_harmony_librarys(
    harmony_library: ModuleType, harmony_encoding: Any, name: str, description: str
):
    library = harmony_library
    tool = library.ToolDescription.new("f", description, SCHEMAS[name])
    content = library.DeveloperContent.new().with_function_tools([tool])
    message = library.Message.from_role_and_content(library.Role.DEVELOPER, content)
    text = harmony_encoding.decode_utf8(harmony_encoding.render(message))
    theirs = text.partition("namespace functions {\n\n")[2].partition("\n\n} // namespace functions")[0]
    ours = Tool.from_schema({"name": "f", "description": description, "parameters": SCHEMAS[name]})
    assert ours.typescript == theirs


def test_both_envelopes_of_a_tool_are_taken():
    bare = {"name": "f", "description": "Does it."}
    assert Tool.from_schema(bare) == Tool.from_schema({"type": "function", "function": bare})


def test_a_tool_without_a_name_is_refused():
    with pytest.raises(HarmonyError, match="no name"):
        Tool.from_schema({"description": "x"})
