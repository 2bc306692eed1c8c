"""Who may see the dashboard: a layer in front of the whole application, which nothing is served past.

On a loopback address the `Host` of a request must name this machine; otherwise a page elsewhere could read the dashboard by pointing a name of its own
at 127.0.0.1 (DNS rebinding). On any other address, and whenever a token was asked for, every request needs the token in a cookie, which the address
with `?token=` sets.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from werkzeug.wrappers import Request, Response

Environment = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environment, StartResponse], Iterable[bytes]]

_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
_YEAR = 365 * 24 * 3600


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def make_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Guard:
    """A WSGI application that passes on to another one the requests that are allowed."""

    application: Application
    token: str | None
    """None: requests must be addressed to this machine by name."""
    cookie: str
    """Name of the cookie that holds the token."""
    scripts: Sequence[str] = ()
    """Hashes of the inline scripts that may run."""

    def __call__(self, environment: Environment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        headers = self._headers()

        def start(status: str, given: list[tuple[str, str]], error: Any = None) -> Any:
            return start_response(status, [*given, *headers], error)

        return self._answer(Request(environment))(environment, start)

    def _answer(self, request: Request) -> Application:
        if self.token is None:
            if _hostname(request.environ.get("HTTP_HOST", "")) in _LOCAL:
                return self.application
            return _refusal("This dashboard answers to localhost and 127.0.0.1 alone.")
        given = request.args.get("token")
        if given is not None and hmac.compare_digest(given.encode(), self.token.encode()):
            # Into the cookie, and out of the address: it must not stay in the history or travel on in a link.
            rest = urlencode([item for item in request.args.items(multi=True) if item[0] != "token"])
            where = quote(request.path) + (f"?{rest}" if rest else "")
            answer = Response(status=303, headers={"Location": where})
            answer.set_cookie(self.cookie, self._pass, httponly=True, samesite="Lax", max_age=_YEAR)
            return answer
        shown = request.cookies.get(self.cookie)
        if shown is not None and hmac.compare_digest(shown.encode(), self._pass.encode()):
            return self.application
        return _refusal(
            "This dashboard needs its token: open the address that headsearch dashboard has printed, with ?token= in it."
        )

    @property
    def _pass(self) -> str:
        """What the cookie holds: a digest of the token, since the token itself may not fit into a header."""
        assert self.token is not None
        return hashlib.sha256(f"headsearch {self.token}".encode()).hexdigest()

    def _headers(self) -> list[tuple[str, str]]:
        policy = {
            "default-src": "'none'",
            "script-src": " ".join(["'self'", *self.scripts]),
            # plotly and React set styles of single elements.
            "style-src": "'self' 'unsafe-inline'",
            "img-src": "'self' data: blob:",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        return [
            ("Content-Security-Policy", "; ".join(f"{name} {value}" for name, value in policy.items())),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ]


def _refusal(text: str) -> Response:
    return Response(f"{text}\n", status=403, mimetype="text/plain")


def _hostname(host: str) -> str:
    """Without the port, in lower case."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name.lower()
