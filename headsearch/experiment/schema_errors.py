"""Checks plain data against a pydantic schema. What is wrong is one line that names the key, what it holds and what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from headsearch.document import MapNode, ScalarNode, find, shorten
from headsearch.errors import UserError, did_you_mean
from headsearch.experiment.guests import GUEST
from headsearch.options import in_our_words

Schema = TypeVar("Schema", bound=BaseModel)


def checked(
    schema: type[Schema],
    data: Mapping[str, Any],
    label: str,
    kind: type[UserError],
    *,
    root: MapNode | None = None,
    overrides: Sequence[str] = (),
    context: Mapping[str, Any] | None = None,
) -> Schema:
    """`data` as `schema` has it.

    Where it wants a text and finds a number or a flag, the word that was written counts: `name: 1e5` is called 1e5.

    Args:
        schema: what is expected.
        data: what was read.
        label: what messages start with, where no position is known.
        kind: the error that is raised.
        root: the file that `data` was read from, for positions.
        overrides: `key=value` that were put on top.
        context: what validators are told.
    """
    try:
        return schema.model_validate(dict(data), context=context)
    except ValidationError as error:
        refused = error
    meant = dict(data)
    for wrong in refused.errors(include_url=False):
        path, _ = _resolve(schema, wrong["loc"])
        word = _written(path, root, overrides) if wrong["type"] == "string_type" else None
        if word is not None and wrong["input"] is not None:
            meant = _with(meant, path, word)
    try:
        return schema.model_validate(meant, context=context)
    except ValidationError as error:
        raise kind(_one_line(error, schema, label, root, overrides)) from None


def _written(path: Sequence[str], root: MapNode | None, overrides: Sequence[str]) -> str | None:
    """The word that stands for a scalar at `path`."""
    key = ".".join(path)
    for override in reversed(overrides):
        name, _, text = override.partition("=")
        if name.strip() == key:
            return None if text.strip()[:1] in ("[", "{", "'", '"') else text.strip()
    node = find(root, path)[1] if root is not None else None
    return node.text if isinstance(node, ScalarNode) else None


def _with(data: Any, path: Sequence[str], value: str) -> Any:
    """A copy of `data` with `value` at `path`."""
    if not path:
        return value
    if isinstance(data, dict) and path[0] in data:
        return {**data, path[0]: _with(data[path[0]], path[1:], value)}
    if isinstance(data, list):
        return [_with(item, path[1:], value) if str(i) == path[0] else item for i, item in enumerate(data)]
    return data


def _one_line(
    error: ValidationError,
    schema: type[BaseModel],
    label: str,
    root: MapNode | None,
    overrides: Sequence[str],
) -> str:
    """The first thing that `schema` refused."""
    first = error.errors(include_url=False)[0]
    path, section = _resolve(schema, first["loc"])
    key = shorten(".".join(path), 100)
    where = _where(path, label, root, overrides)
    got = first.get("input")
    shown = shorten(repr(got), 100)
    match first["type"]:
        case "extra_forbidden":
            known = _keys_of(section)
            within = [
                f"{name}.{path[-1]}" for name in known if path[-1] in _keys_of(_annotation(section, name))
            ]
            hint = f"; did you mean '{' or '.join(within)}'?" if within else did_you_mean(path[-1], known)
            return f"{where}: unknown key '{key}'{hint}"
        case "literal_error":
            # `no` is a flag in YAML, and is shown as it was written.
            shown = shorten(repr(_written(path, root, overrides) or got), 100)
            return f"{where}: {key}: {shown} is not known{did_you_mean(str(got), _listed(first['ctx']['expected']))}"
        case "union_tag_invalid":
            hint = did_you_mean(str(first["ctx"]["tag"]), _listed(first["ctx"]["expected_tags"]))
            return f"{where}: {key}.kind: {shorten(repr(first['ctx']['tag']), 100)} is not known{hint}"
        case "union_tag_not_found" | "model_attributes_type":
            kinds = _kinds(_annotation(section, path[-1])) if path else {}
            expected = (
                " or ".join(f"{{kind: {kind}}}" for kind in kinds if kind != GUEST) or "keys and values"
            )
            return f"{where}: {key}: expected {expected}, got {shown}"
        case "model_type" | "dict_type":
            return f"{where}: {key}: expected keys and values, got {shown}"
    tail = "" if first["type"] == "value_error" else f", got {shown}"
    return f"{where}: {key + ': ' if key else ''}{in_our_words(first['msg'])}{tail}"


def _where(path: Sequence[str], label: str, root: MapNode | None, overrides: Sequence[str]) -> str:
    """What decided the value at `path`: an override, or a place in the file."""
    for override in reversed(overrides):
        keys = override.partition("=")[0].strip().split(".")
        if list(path[: len(keys)]) == keys:
            return f"--set {shorten(override)}"
    place = find(root, path)[0] if root is not None else None
    return str(place or label)


def _resolve(schema: type[BaseModel], location: Sequence[str | int]) -> tuple[list[str], Any]:
    """A location as the keys that a person wrote, and what the last of them is a key of.

    pydantic puts the kind that was chosen, and the type that was tried, into the path; nobody wrote those.
    """
    path: list[str] = []
    section: Any = schema
    value: Any = schema
    for part in location:
        kinds = _kinds(value)
        if kinds:
            value = kinds.get(str(part))
        elif get_origin(value) not in (Union, UnionType):
            path.append(str(part))
            section, value = value, _annotation(value, str(part))
    return path, section


def _annotation(section: Any, key: str) -> Any:
    if _is_section(section):
        field = section.model_fields.get(key)
        return None if field is None else _inner(field.annotation)
    arguments = get_args(section)
    return _inner(arguments[-1]) if get_origin(section) in (list, dict) else None


def _inner(annotation: Any) -> Any:
    """An annotation without `Annotated` around it, and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _inner(get_args(annotation)[0])
    sections = [member for member in get_args(annotation) if _is_section(member)]
    return sections[0] if len(sections) == 1 and get_origin(annotation) not in (list, dict) else annotation


def _kinds(annotation: Any) -> dict[str, Any]:
    """The sections that a key may hold, by their `kind`; empty where it has no kinds."""
    if _is_section(annotation):
        return {}
    members = [inner for member in get_args(annotation) if _is_section(inner := _inner(member))]
    return {
        GUEST if member.model_fields["kind"].is_required() else member.model_fields["kind"].default: member
        for member in members
        if "kind" in member.model_fields
    }


def _keys_of(section: Any) -> list[str]:
    return list(section.model_fields) if _is_section(section) else []


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _listed(expected: str) -> list[str]:
    """The names in pydantic's `'a', 'b' or 'c'`."""
    return expected.replace("'", "").replace(" or ", ", ").split(", ")
