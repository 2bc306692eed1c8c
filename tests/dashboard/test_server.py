"""What strangers can do to the dashboard before they have shown a token, and after: nothing that ends or blocks it, and no traceback."""

import contextlib
import http.client
import json
import logging
import random
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from headsearch.dashboard import server as module
from headsearch.dashboard.app import Runs, make_app
from headsearch.dashboard.requests import BODY_BYTES
from headsearch.dashboard.server import Address, open_server
from headsearch.errors import RunError


@contextlib.contextmanager
def served(run: Path, **options: Any) -> Iterator[Address]:
    server, address = open_server([run], host="127.0.0.1", port=0, refresh=60, **options)
    threading.Thread(target=server.run, daemon=True).start()
    try:
        yield address
    finally:
        server.close()


def get(address: Address, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=300)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_connections_that_say_nothing_cost_no_thread_and_are_closed(
    toy_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(module, "CONNECTIONS", 40)
    monkeypatch.setattr(module, "IDLE_SECONDS", 2)
    with served(toy_run, token="secret") as address:
        before = threading.active_count()
        silent = [socket.create_connection(("127.0.0.1", address.port), 300) for _ in range(120)]
        for connection in silent[::2]:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Le")
        try:
            time.sleep(0.5)
            assert threading.active_count() == before
            assert get(address, "/")[0] == 403, "it still answers"
        finally:
            for connection in silent:
                connection.close()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_a_request_that_is_too_large_is_not_read(toy_run: Path) -> None:
    with (
        served(toy_run, token=None) as address,
        socket.create_connection(("127.0.0.1", address.port), 300) as s,
    ):
        s.sendall(b"POST /_dash-update-component HTTP/1.1\r\nHost: localhost\r\n")
        s.sendall(f"Content-Type: application/json\r\nContent-Length: {20 * BODY_BYTES}\r\n\r\n".encode())
        assert s.recv(12) == b"HTTP/1.1 413"


def test_everything_is_found_below_a_prefix(toy_run: Path) -> None:
    with served(toy_run, token=None, prefix="/team/heads") as address:
        assert address.url.endswith(f":{address.port}/team/heads/")
        status, page = get(address, "/team/heads/")
        assert status == 200
        for asset in re.findall(rb'(?:src|href)="([^"]+)"', page):
            assert asset.startswith(b"/team/heads/")
            assert get(address, asset.decode())[0] == 200
        assert get(address, "/")[0] == 404
        assert get(address, "/team/heads/run/0/head/nope/head.yaml")[0] == 404
    with pytest.raises(RunError, match=r"--prefix a b: not a path; expected e\.g\. /headsearch/"):
        open_server([toy_run], host="127.0.0.1", port=0, token=None, prefix="a b")


@pytest.fixture(scope="module")
def app(toy_run: Path) -> Any:
    return make_app(Runs([toy_run]))


@pytest.mark.parametrize(
    "path",
    ["nothing/nothing.js", "dash/nothing.js", "dash/../app.py", "dash/deps/%00.js", "x/y.exe"],
)
def test_an_unknown_component_is_not_found(app: Any, path: str, caplog: pytest.LogCaptureFixture) -> None:
    assert Client(app.server).get(f"/_dash-component-suites/{path}").status_code == 404
    assert caplog.records == []


def call(app: Any, output: str) -> dict[str, Any]:
    """A request as a page sends it."""
    callback = app.callback_map[output]
    names = output.strip(".").split("...") if output.startswith("..") else [output]
    outputs = [dict(zip(("id", "property"), name.rsplit(".", 1), strict=True)) for name in names]
    return {
        "output": output,
        "outputs": outputs if output.startswith("..") else outputs[0],
        "inputs": [{**each, "value": None} for each in callback["inputs"]],
        "state": [{**each, "value": None} for each in callback["state"]],
        "changedPropIds": [],
    }


VALUES: list[Any] = [None, 0, -1, 10**30, 1.5, True, "", "/", "/run/0/trials", "?a=%ff&b", "\ud800", "x" * 5000, [], [1], ["a"], [[]], {}, {"points": 3},
                     {"points": [{"customdata": {"a": 1}}]}, {"points": [{"customdata": [None]}]}, {"points": []}, {"a": [None]}]  # fmt: skip


def test_wrong_requests_to_callbacks_are_refused_and_never_end_in_a_traceback(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client, chance = Client(app.server), random.Random(0)
    client.get("/_dash-layout")
    whole = {name: call(app, name) for name, found in app.callback_map.items() if "callback" in found}
    for body in whole.values():
        assert client.post("/_dash-update-component", json=body).status_code in (200, 204), body
    caplog.clear()
    statuses = set()
    for _ in range(1500):
        body = json.loads(json.dumps(chance.choice(list(whole.values()))))
        for _ in range(chance.randint(1, 3)):
            match chance.randrange(5):
                case 0:
                    body[chance.choice(list(body))] = chance.choice(VALUES)
                case 1:
                    body.pop(chance.choice(list(body)))
                    break
                case 2:
                    body["output"] = chance.choice([*whole, "no.such", *map(str, VALUES)])
                case _:
                    inputs = body.get(chance.choice(["inputs", "state"]))
                    if isinstance(inputs, list) and inputs and isinstance(inputs[0], dict):
                        chance.choice(inputs)[
                            chance.choice(["value", "value", "value", "id", "property"])
                        ] = chance.choice(VALUES)
        answer = client.post(
            "/_dash-update-component", data=json.dumps(body), content_type="application/json"
        )
        statuses.add(answer.status_code)
        assert answer.status_code in (200, 204, 400), (answer.status_code, body)
        assert b"Traceback" not in answer.data
    assert {200, 400} <= statuses
    for raw in (b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"output": NaN}', b"[" * 100_000):
        answer = client.post("/_dash-update-component", data=raw, content_type="application/json")
        assert answer.status_code == 400
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
