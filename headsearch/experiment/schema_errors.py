"""What is wrong with data that a pydantic schema refused, in one line that names the key, what it holds and what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from headsearch.errors import did_you_mean


def one_line(error: ValidationError, schema: type[BaseModel], label: str, lines: Mapping[str, int]) -> str:
    """The first thing that `schema` refused. Starts with `label`, and the line of the key where `lines` knows one."""
    first = error.errors(include_url=False)[0]
    path, section = _resolve(schema, first["loc"])
    key = ".".join(path)
    known = next(
        (lines[".".join(path[:end])] for end in range(len(path), 0, -1) if ".".join(path[:end]) in lines),
        None,
    )
    where = f"{label}:{known}" if known else label
    got = first.get("input")
    match first["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key '{key}'{did_you_mean(path[-1], _keys_of(section))}"
        case "literal_error":
            return f"{where}: {key}: {got!r} is not known{did_you_mean(str(got), _listed(first['ctx']['expected']))}"
        case "union_tag_invalid":
            hint = did_you_mean(str(first["ctx"]["tag"]), _listed(first["ctx"]["expected_tags"]))
            return f"{where}: {key}.kind: {first['ctx']['tag']!r} is not known{hint}"
        case "union_tag_not_found" | "model_attributes_type":
            kinds = " or ".join(f"{{kind: {kind}}}" for kind in _kinds(_annotation(section, path[-1])))
            return f"{where}: {key}: expected {kinds}, got {got!r}"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    shown = "" if first["type"] == "value_error" else f", got {got!r}"
    return f"{where}: {key + ': ' if key else ''}{message}{shown}"


def _resolve(schema: type[BaseModel], location: Sequence[str | int]) -> tuple[list[str], Any]:
    """A location as the keys that a person wrote, and what the last of them is a key of.

    pydantic puts the kind that was chosen into the path of a section that has kinds; nobody wrote that.
    """
    path: list[str] = []
    section: Any = schema
    value: Any = schema
    for part in location:
        kinds = _kinds(value)
        if kinds:
            value = kinds.get(str(part))
            continue
        path.append(str(part))
        section, value = value, _annotation(value, str(part))
    return path, section


def _annotation(section: Any, key: str) -> Any:
    field = section.model_fields.get(key) if _is_section(section) else None
    return None if field is None else field.annotation


def _kinds(annotation: Any) -> dict[str, Any]:
    """The sections that a key may hold, by their `kind`; empty where it has no kinds."""
    if _is_section(annotation):
        return {}
    return {
        member.model_fields["kind"].default: member for member in get_args(annotation) if _is_section(member)
    }


def _keys_of(section: Any) -> list[str]:
    return list(section.model_fields) if _is_section(section) else []


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _listed(expected: str) -> list[str]:
    """The names in pydantic's `'a', 'b' or 'c'`."""
    return expected.replace("'", "").replace(" or ", ", ").split(", ")
