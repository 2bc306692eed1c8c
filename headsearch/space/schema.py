"""The JSON Schema of space files, for editors: generated from the domains and from what the families declare.

It catches what a schema can say (words, types, bounds of literals); what it cannot (definitions that exist, constraint
expressions, bounds the wrong way round) is for `headsearch space validate`.
"""

from __future__ import annotations

from typing import Any, Literal

from headsearch.heads import FAMILIES, Family, Parameter
from headsearch.heads.config import Params
from headsearch.heads.registry import PRESETS
from headsearch.space.parsing import MAX_DEFINITIONS, MAX_MEMBERS, MAX_SLOTS
from headsearch.space.space import FORMAT
from headsearch.space.values import MAX_CHOICES

Schema = dict[str, Any]


def json_schema() -> Schema:
    """The schema, as plain data for JSON (draft 2020-12)."""
    stages: dict[str, tuple[str, Params]] = {**{name: (name, {}) for name in FAMILIES}, **PRESETS}
    definitions: Schema = {
        "ref": _mapping({"ref": _NAME}, ["ref"], "An independent draw of a definition."),
        "same": _mapping({"same": _NAME}, ["same"], "One draw of a definition, shared by all who name it."),
        "scalar": {"type": ["number", "string", "boolean", "null"]},
        "choice": _choice({"$ref": "#/$defs/scalar"}),
        "int": _range("int", {"type": "integer"}),
        "float": _range("float", {"type": "number"}),
        "definition": {"anyOf": [*_refs("scalar", "choice", "int", "float", "head")]},
        "head": {
            "anyOf": [
                *_refs("one_of", "stack", "set", "ref", "same"),
                *_refs(*(f"family_{name}" for name in stages)),
            ]
        },
        "one_of": _mapping(
            {
                "one_of": _HEADS,
                "default": {"type": "string", "description": "Name of the head tried first."},
            },
            ["one_of"],
            "Exactly one of these heads.",
        ),
        "stack": _mapping(
            {"stack": _slots("repeat", MAX_SLOTS, "How many slots, and the head drawn for each of them.")},
            ["stack"],
            "A sequence whose slots are drawn one by one.",
        ),
        "set": _mapping(
            {
                "set": {
                    "anyOf": [
                        {**_HEADS, "maxItems": MAX_MEMBERS, "description": "The heads of the set."},
                        _slots("size", MAX_MEMBERS, "How many heads, and what each of them is drawn from."),
                    ]
                }
            },
            ["set"],
            "Heads that are trained on one base at once; no two may be the same.",
        ),
    }
    definitions |= {
        f"family_{name}": _family(name, FAMILIES[of], params) for name, (of, params) in stages.items()
    }
    top = _mapping(
        {
            "space": {"const": FORMAT, "description": "Format and version of the file."},
            "doc": {"type": "string", "description": "What the space is for."},
            "define": {
                "type": ["object", "null"],
                "additionalProperties": {"$ref": "#/$defs/definition"},
                "maxProperties": MAX_DEFINITIONS,
                "description": "Named domains and heads, for {ref: name} and {same: name}.",
            },
            "head": {"$ref": "#/$defs/head"},
            "constraints": {
                "type": ["array", "null"],
                "items": {"type": "string"},
                "description": "Conditions on every head, such as 'params <= 0.5 * base.params'.",
            },
        },
        ["space", "head"],
        "A search space of headsearch.",
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": FORMAT,
        **top,
        "$defs": definitions,
    }


_NAME: Schema = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}
_HEADS: Schema = {"type": "array", "items": {"$ref": "#/$defs/head"}, "minItems": 1}


def _mapping(properties: Schema, required: list[str], doc: str) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        "description": doc,
    }


def _refs(*names: str) -> list[Schema]:
    return [{"$ref": f"#/$defs/{name}"} for name in names]


def _choice(item: Schema) -> Schema:
    values = {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_CHOICES, "uniqueItems": True}
    return _mapping({"choice": values, "default": item}, ["choice"], "One of these values.")


def _range(keyword: Literal["int", "float"], bound: Schema) -> Schema:
    bounds = {"type": "array", "items": bound, "minItems": 2, "maxItems": 2}
    properties = {keyword: bounds, "log": {"type": "boolean"}, "default": bound}
    if keyword == "float":
        return _mapping(properties, ["float"], "A real number from low to high.")
    properties["step"] = {"type": "integer", "minimum": 1}
    return _mapping(properties, ["int"], "A whole number from low to high.")


def _slots(number: str, most: int, doc: str) -> Schema:
    """So many heads, each drawn from one description."""
    count = _value({"type": "integer", "minimum": 1, "maximum": most})
    return _mapping({number: count, "each": {"$ref": "#/$defs/head"}}, [number, "each"], doc)


def _value(literal: Schema) -> Schema:
    """A literal of the given schema, or a domain of such."""
    options: list[Schema] = [literal, _choice(literal)]
    if literal.get("type") in ("integer", "number"):
        options.append(_range("int", {**literal, "type": "integer"}))
    if literal.get("type") == "number":
        options.append(_range("float", literal))
    return {"anyOf": [*options, *_refs("ref", "same")]}


def _parameter(parameter: Parameter) -> Schema:
    kinds = {"int": "integer", "float": "number", "bool": "boolean", "str": "string"}
    literal: Schema = {"type": kinds[parameter.kind]}
    if parameter.choices is not None:
        literal["enum"] = list(parameter.choices)
    if parameter.low is not None:
        literal["minimum"] = parameter.low
    if parameter.high is not None:
        literal["maximum"] = parameter.high
    options = _value(literal)["anyOf"]
    if parameter.nullable:
        options += [{"type": "null"}, _choice({"anyOf": [literal, {"type": "null"}]})]
    return {"anyOf": options, "description": parameter.doc, "default": parameter.default}


def _family(name: str, family: Family, preset: Params) -> Schema:
    """Stages of a family, under its own name, or under that of a preset with other defaults."""
    body = {
        "type": ["object", "null"],
        "properties": {
            parameter.name: {
                **_parameter(parameter),
                "default": preset.get(parameter.name, parameter.default),
            }
            for parameter in family.parameters
        },
        "additionalProperties": False,
        "description": family.doc,
    }
    return _mapping({name: body}, [name], family.doc)
