"""A tool's JSON schema in the TypeScript-like form that harmony shows to the model.

Follows OpenAI's harmony library to the letter, its odd corners included (nested objects are indented and closed on
their last field's level, a described object repeats its description), because this is the text gpt-oss was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

Schema = Mapping[str, Any]

_NAMES = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean"}


def tool_type(name: str, description: str, parameters: Schema | None) -> str:
    """One tool: its description as comment lines, then `type name = (_: {…}) => any;`."""
    comment = "".join(f"// {line}\n" for line in description.splitlines())
    arguments = "" if parameters is None else f"_: {_type(parameters, '')}"
    return f"{comment}type {name} = ({arguments}) => any;"


def _type(schema: Schema, indent: str) -> str:
    """The type of a value; `indent` is what its own further lines begin with."""
    if "oneOf" in schema:
        return "".join(f"\n{indent} | {variant}" for variant in _variants(schema, indent))
    kind = schema.get("type")
    null = " | null" if schema.get("nullable") else ""
    if isinstance(kind, list):
        kinds = cast("list[str]", kind)
        return " | ".join("number" if entry == "integer" else entry for entry in kinds) + null
    if kind == "object":
        return _object(schema, indent) + null
    if kind == "array":
        items = schema.get("items")
        return (f"{_type(items, indent)}[]" if items else "Array<any>") + null
    if kind == "string" and schema.get("enum"):
        return " | ".join(f'"{value}"' for value in schema["enum"] if isinstance(value, str)) + null
    return _NAMES[kind] + null if kind in _NAMES else "any"


def _object(schema: Schema, indent: str) -> str:
    lines = [f"{indent}// {schema['description']}"] if "description" in schema else []
    lines.append("{")
    required: Sequence[str] = schema.get("required") or ()
    properties: Mapping[str, Schema] = schema.get("properties") or {}
    for name, field in properties.items():
        lines += _field(name if name in required else f"{name}?", field, indent)
    return "\n".join([*lines, indent + "}"])


def _field(name: str, schema: Schema, indent: str) -> Iterator[str]:
    yield from (indent + comment for comment in _comments(schema))
    deeper = indent + "    "
    if "oneOf" not in schema:
        default = f" // default: {_default(schema)}" if "default" in schema else ""
        yield f"{indent}{name}: {_type(schema, deeper)},{default}"
        return
    if "default" in schema:
        yield f"{indent}// default: {_default(schema)}"
    yield f"{indent}{name}:"
    yield from (f"{indent} | {variant}" for variant in _variants(schema, indent))
    yield f"{indent},"


def _comments(schema: Schema) -> Iterator[str]:
    if "title" in schema:
        yield f"// {schema['title']}"
        yield "//"
    if "description" in schema:
        yield f"// {schema['description']}"
    if schema.get("examples"):
        yield "// Examples:"
        yield from (f'// - "{example}"' for example in schema["examples"] if isinstance(example, str))


def _default(schema: Schema) -> str:
    value = schema["default"]
    if isinstance(value, str):
        return value if schema.get("enum") else f'"{value}"'
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _variants(schema: Schema, indent: str) -> Iterator[str]:
    for variant in schema["oneOf"]:
        # A described field keeps its own description and drops those of its variants.
        described = "description" in variant and "description" not in schema
        notes = [variant["description"]] if described else []
        notes += [f"default: {_default(variant)}"] if "default" in variant else []
        yield _type(variant, indent + "   ") + (f" // {' '.join(notes)}" if notes else "")
