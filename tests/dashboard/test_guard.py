"""Who is let in: host names on this machine, tokens elsewhere, and headers on everything."""

from collections.abc import Iterable
from typing import Any

import pytest
from werkzeug.test import Client

from headsearch.dashboard.guard import Guard, is_loopback, make_token


def inner(environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environment["PATH_INFO"].encode()]


@pytest.fixture
def locked() -> Client:
    return Client(Guard(inner, "s3cret/ü token", "headsearch_1"))


PATHS = [
    "/",
    "/run/0/trials",
    "/_dash-layout",
    "/_dash-update-component",
    "/assets/style.css",
    "/_reload-hash",
]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8050", "127.0.0.1:8050", "[::1]:8050", "[::1]"])
def test_this_machine_is_let_in_by_its_names(host: str) -> None:
    assert Client(Guard(inner, None, "c")).get("/x", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8050", "127.0.0.1.evil.example", "localhost.evil", "192.168.0.7", ""],
)
def test_another_name_is_refused_though_it_may_point_here(host: str) -> None:
    answer = Client(Guard(inner, None, "c")).get("/x", headers={"Host": host})
    assert answer.status_code == 403
    assert b"/x" not in answer.data


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "query", ["", "?token=", "?token=s3cret", "?token=s3cret/%C3%BC%20tokeN", "?Token=s3cret/%C3%BC%20token"]
)
def test_without_its_token_nothing_is_served(locked: Client, path: str, query: str) -> None:
    for answer in (locked.get(path + query), locked.post(path + query)):
        assert answer.status_code == 403
        assert "Set-Cookie" not in answer.headers


def test_the_token_becomes_a_cookie_that_scripts_cannot_read_and_leaves_the_address(locked: Client) -> None:
    answer = locked.get("/run/0/trials?state=failed&token=s3cret/%C3%BC%20token")
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/run/0/trials?state=failed"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "s3cret" not in cookie
    for path in PATHS:
        assert locked.get(path).status_code == 200, "the cookie is enough from now on"


def test_a_made_up_cookie_is_refused_and_no_redirect_leaves_the_server(locked: Client) -> None:
    locked.set_cookie("headsearch_1", "s3cret/token")
    assert locked.get("/").status_code == 403
    answer = locked.get(
        "/", query_string={"token": "s3cret/ü token"}, environ_overrides={"PATH_INFO": "//evil.example/x"}
    )
    assert answer.headers["Location"] == "/evil.example/x"


def test_every_answer_says_what_may_run(locked: Client) -> None:
    guard = Guard(inner, None, "c", ("'sha256-abc'",))
    for answer in (locked.get("/"), Client(guard).get("/", headers={"Host": "localhost"})):
        policy = answer.headers["Content-Security-Policy"]
        script = next(part for part in policy.split("; ") if part.startswith("script-src"))
        assert "unsafe" not in script
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "http" not in policy, "no other address is allowed"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_loopback_is_told_from_the_rest() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.0.1", "example.org", ""]))
    assert make_token() != make_token()
    assert len(make_token()) >= 32
