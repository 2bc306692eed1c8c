"""Options by name, declared once: of methods, and of what plug-ins bring. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from headsearch.errors import ExperimentError, did_you_mean


class Options(BaseModel):
    """What may be chosen, as fields with their types, bounds and defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Chosen = TypeVar("Chosen", bound=Options)


def checked_options(schema: type[Chosen], given: Mapping[str, Any], key: str, owner: str) -> Chosen:
    """The options that `given` are, checked and completed. `key` is where they stand, `owner` whose they are.

    Raises:
        ExperimentError: an unknown option (the nearest known one is named), or a value out of bounds.
    """
    try:
        return schema.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    option = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        raise ExperimentError(
            f"{key}: {owner} has no option '{option}'{did_you_mean(option, schema.model_fields)}"
        )
    if first["type"] == "missing":
        raise ExperimentError(f"{key}: {owner} needs the option '{option}'")
    where = f"{key}.{option}" if option else key
    raise ExperimentError(f"{where}: {in_our_words(first['msg'])}, got {first['input']!r}")


def in_our_words(message: str) -> str:
    """What pydantic says of a value.

    >>> in_our_words("Input should be greater than 0")
    'expected greater than 0'
    """
    message = message.removeprefix("Value error, ").replace("Input should be ", "expected ")
    return message[0].lower() + message[1:]
