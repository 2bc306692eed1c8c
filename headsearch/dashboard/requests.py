"""What a browser may ask of the pages' callbacks. Anything else is answered with 4xx before it reaches Dash, which would fail with a traceback.

A request names a callback and holds the values of its inputs. Names are compared with those of the callback; values are compared with the annotations
of its function, by `typed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from dash import Dash
from dash.exceptions import DependencyException
from flask import abort, request
from pydantic import BaseModel, Field, ValidationError, validate_call

P = ParamSpec("P")
R = TypeVar("R")

BODY_BYTES = 2**20
"""The largest request that is read. What a page sends is a few hundred bytes."""


class _Property(BaseModel):
    id: str
    property: str
    value: Any = None


class _Call(BaseModel):
    output: str
    outputs: list[_Property] | _Property
    inputs: list[_Property]
    state: list[_Property] = []
    changed: list[str] = Field(default=[], alias="changedPropIds")

    def fits(self, callback: dict[str, Any]) -> bool:
        """Whether it is a call of that callback."""
        outputs = self.outputs if isinstance(self.outputs, list) else [self.outputs]
        names = [f"{output.id}.{output.property}" for output in outputs]
        several = self.output.startswith("..")
        wanted = self.output.removeprefix("..").removesuffix("..").split("...") if several else [self.output]
        return (
            several == isinstance(self.outputs, list)
            and names == wanted
            and _names(callback["inputs"]) == [(given.id, given.property) for given in self.inputs]
            and _names(callback["state"]) == [(given.id, given.property) for given in self.state]
        )


def _names(properties: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(each["id"], each["property"]) for each in properties]


class _WrongValue(Exception):
    """An input of a callback has another type than its function takes."""


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """The function of a callback, which then answers 400 to values that its annotations do not allow."""
    checked = validate_call(function)

    def call(*values: P.args, **named: P.kwargs) -> R:
        try:
            return checked(*values, **named)
        except ValidationError:
            raise _WrongValue from None

    return call


def refuse_what_no_page_asks(app: Dash) -> None:
    """Have `app` answer 4xx to everything that none of its pages sends."""
    server = app.server
    server.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    server.register_error_handler(_WrongValue, lambda _: ("Wrong type of a value.\n", 400))
    server.register_error_handler(DependencyException, lambda _: ("There is no such file.\n", 404))

    @server.before_request  # type: ignore[untyped-decorator]
    def check() -> None:
        if request.method != "POST" or not request.path.endswith("/_dash-update-component"):
            return
        try:
            call = _Call.model_validate_json(request.get_data())
        except ValidationError:
            abort(400)
        callback = app.callback_map.get(call.output)
        # One that runs in the browser has no function here.
        if callback is None or "callback" not in callback or not call.fits(callback):
            abort(400)
