"""No password is shown, whatever its characters and wherever it stands."""

import json
import shlex
from pathlib import Path
from urllib.parse import quote

import pytest
from forked import headsearch

from headsearch.errors import RunError
from headsearch.runs.storages import open_storage
from headsearch.secrecy import kept_out, masked, redacted, resolved

ODD = [
    "S3 cret-word",
    "p@ss#1-word",
    "a/b:c?d&e=f%-word",
    "quo'te\"s-word",
    "dollar${x}$-word",
    "üñï-wörd",
    "100%25-word",
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql://me:a/b:c@d@host/db", "mysql://me:***@host/db"),
        ("search.storage=postgresql://me:pw@host/db", "search.storage=postgresql://me:***@host/db"),
        ("postgresql://me:S3 cret@host/db", "postgresql://me:***@host/db"),
        ("a postgresql://me:x y@h/db and http://u:z@w", "a postgresql://me:***@h/db and http://u:***@w"),
        (
            "postgresql://host/db?user=me&password=pw&sslmode=require",
            "postgresql://host/db?user=me&password=***&sslmode=require",
        ),
        ("me:pw@host/db", "me:***@host/db"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("http://localhost:5000/x: ask me@here", "http://localhost:5000/x: ask me@here"),
        ("sqlite:///a:b.db", "sqlite:///a:b.db"),
        ("grpc://host:13000", "grpc://host:13000"),
    ],
)
def test_what_looks_like_a_password_is_hidden(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_the_working_directory_is_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/somewhere/at/work")
    monkeypatch.setenv("OLDPWD", "/somewhere/at/work")
    monkeypatch.setenv("MYSQL_PWD", "hunter22")
    assert redacted("/home/me/space.yaml: no such file; hunter22") == "/home/me/space.yaml: no such file; ***"


@pytest.mark.parametrize("password", ODD)
def test_a_known_password_is_found_however_it_is_written(password: str) -> None:
    kept_out(f"postgresql://me:{quote(password, safe='')}@host/db", "HEADSEARCH_TEST_ONLY")
    for written in (
        password,
        quote(password),
        quote(password, safe=""),
        json.dumps(password),
        repr(password),
        shlex.quote(f"x={password}"),
        f"it's-{password}s",
    ):
        assert "word" not in redacted(f"before {written} after")
        assert "wörd" not in redacted(f"before {written} after")
    assert redacted("before and after") == "before and after"


def test_a_short_password_is_no_part_of_other_words() -> None:
    resolved("postgresql://me:post@host/db", "search.storage")
    assert redacted("postgresql says: 'post' is wrong") == "postgresql says: '***' is wrong"


@pytest.mark.parametrize("password", ODD)
def test_a_variable_is_written_in_percent_where_a_password_stands(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlalchemy

    monkeypatch.setenv("STUDIES_PW", password)
    assert sqlalchemy.make_url(resolved("postgresql://me:${STUDIES_PW}@host/db", "x")).password == password
    by_option = resolved("postgresql://host/db?password=${STUDIES_PW}&user=me", "x")
    assert sqlalchemy.make_url(by_option).query["password"] == password
    monkeypatch.setenv("WHOLE", "sqlite:///a b.db")
    assert resolved("${WHOLE}", "x") == "sqlite:///a b.db"
    assert "word" not in masked(f"postgresql://me:{password}@host/db")


@pytest.mark.parametrize("password", ["p@ss#1-tail", "p@s/s-tail", "p@s?s-tail", "a@b@c-tail"])
def test_a_password_whose_end_cannot_be_told_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(RunError, match="has several @: in a password write %40") as raised:
        open_storage(f"postgresql://me:{password}@127.0.0.1:1/db")
    assert "tail" not in str(raised.value)
    assert "postgresql://me:***@127.0.0.1:1/db" in str(raised.value)


URLS = [
    "postgresql://me:S3 cret@127.0.0.1:1/db",
    "postgresql://me:p@ss#1 cret@127.0.0.1:1/db",
    "mysql://me:S3 cret@127.0.0.1:1/db?nosuch=1",
    "postgresql://127.0.0.1:1/db?user=me&password=S3 cret",
    "nosuch://me:S3 cret@127.0.0.1:1/db",
    "grpc://me:S3 cret@127.0.0.1:1",
    "journal://me:S3 cret@x",
]


@pytest.mark.parametrize("url", URLS)
def test_the_command_line_shows_no_password(url: str, tmp_path: Path) -> None:
    done = headsearch(
        "run", "digits", "--out", tmp_path / "run", "--set", f"search.storage={json.dumps(url)}"
    )
    assert done.returncode == 2
    assert done.stderr.startswith("headsearch: search.storage: ")
    assert done.stderr.count("\n") == 1
    assert "cret" not in done.stdout + done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////tmp/no-such.db?timeout=abc",
        "sqlite:////tmp/no-such.db?nosuch=1",
        "mysql://me:pw@127.0.0.1:1/db?ssl_ca=/no/such/file",
        "mysql://me:pw@127.0.0.1:1/db?charset=nosuch",
        "mysql://me:pw@127.0.0.1:1/db?nosuch=1",
        "mysql://me:pw@127.0.0.1:1/db?connect_timeout=abc",
        "postgresql://me:pw@127.0.0.1:1/db?nosuch=1",
        "postgresql://me:pw@127.0.0.1:1/db?connect_timeout=abc",
        "postgresql://me:pw@127.0.0.1:1/db?sslmode=nosuch",
        "postgresql://me:pw@127.0.0.1:1/db?sslrootcert=/no/such&sslmode=verify-full",
        "postgresql://me:pw@127.0.0.1:abc/db",
        "postgresql://me:pw@[::1/db",
        "postgresql://me:pw@127.0.0.1:99999/db",
        "sqlite:////no/such/folder/study.db",
        "sqlite:////tmp",
    ],
)
def test_options_that_a_driver_does_not_take_are_one_line(url: str) -> None:
    with pytest.raises(RunError) as raised:
        open_storage(url)
    assert str(raised.value).startswith("search.storage: ")
    assert "\n" not in str(raised.value)
