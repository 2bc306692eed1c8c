"""Passwords: where they stand in a URL, how they come into it from the environment, and that no text shows them.

A secret is known from the moment that its URL is read; `redacted` then finds it in any text, in whatever way it is written there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from headsearch.errors import RunError

HIDDEN = "***"
_ANYWHERE = 8
"""Characters from which a secret is hidden inside longer words too; a shorter one might be a part of innocent ones."""
_REFERENCE = re.compile(r"\$\{(\w+)\}")
_USER = re.compile(r"[\w+.-]+://[^:/@]*:")
_OPTION = re.compile(r"[?&]([^=&]*)=([^&]*)")
_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?$|(?<!^)(?<!^OLD)pwd$|secret$|token$|(api|access)_?key$", re.IGNORECASE
)
_SHAPES = (
    # What looks like a password in a URL, beside a port; up to the last @ before another URL begins.
    (re.compile(r"(://[^\s/:@]*):(?!\*\*\*@|\d+(?:[/\s'\")?]|$))(?:(?!://)[^\n])*@"), rf"\1:{HIDDEN}@"),
    (re.compile(r"(^|//)([^\s/:@]*):(?!//)\S*@"), rf"\1\2:{HIDDEN}@"),
    (re.compile(r"((?:password|passwd|pwd|token|secret)=)[^&\s'\"]*", re.IGNORECASE), rf"\1{HIDDEN}"),
)
_known: set[str] = set()


def redacted(text: str) -> str:
    """The text without any secret that is known, that the environment holds, or that looks like one in a URL."""
    in_environment = (
        value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) > 3
    )
    forms = {form for secret in (*_known, *in_environment) for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        if form not in text:
            continue
        if len(form) >= _ANYWHERE:
            text = text.replace(form, HIDDEN)
        else:
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", HIDDEN, text)
    for shape, hidden in _SHAPES:
        text = shape.sub(hidden, text)
    return text


def masked(setting: str) -> str:
    """A URL by itself, as people may see it."""
    for start, end in reversed(list(_passwords(setting))):
        setting = setting[:start] + HIDDEN + setting[end:]
    return setting


def resolved(setting: str, key: str) -> str:
    """The URL that a setting stands for: `${NAME}` is an environment variable, written in percent where user, password and options stand.

    Raises:
        RunError: a variable is not set; it cannot be told where the password ends. `key` is what the setting is called.
    """
    at, question = setting.rfind("@"), setting.find("?", setting.rfind("@") + 1)

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise RunError(
                f"{key}: '{masked(setting)}' needs the environment variable {match[1]}, which is not set"
            )
        escaped = match.start() < at or -1 < question < match.start()
        return quote(os.environ[match[1]], safe="") if escaped else os.environ[match[1]]

    url = _REFERENCE.sub(value, setting)
    _known.update(url[start:end] for start, end in _passwords(url))
    if _USER.match(url) and url.count("@") > 1:
        raise RunError(
            f"{key}: '{masked(url)}' has several @: in a password write %40, or put it into an environment variable, ${{NAME}}"
        )
    return url


def kept_out(setting: str, name: str) -> str:
    """The setting with references to environment variables in the place of its passwords; the variables are set, in this process.

    Args:
        setting: a URL.
        name: of the variable; a second one has a number.
    """
    for number, (start, end) in reversed(list(enumerate(_passwords(setting)))):
        secret = setting[start:end]
        if secret and "${" not in secret:
            _known.add(secret)
            variable = name if number == 0 else f"{name}_{number + 1}"
            os.environ[variable] = unquote(secret)
            setting = f"{setting[:start]}${{{variable}}}{setting[end:]}"
    return setting


def _passwords(url: str) -> Iterator[tuple[int, int]]:
    """Where passwords begin and end: before the last @, and in options that are named like one."""
    user, at = _USER.match(url), url.rfind("@")
    if user is not None and at >= user.end():
        yield user.end(), at
    for option in _OPTION.finditer(url, at + 1):
        if _SECRET_NAME.search(option[1]):
            yield option.span(2)


def _forms(secret: str) -> set[str]:
    """The ways to write a secret: in percent or not, and within quotes."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    written = {form for each in plain for form in (each, quote(each, safe=""), quote_plus(each), quote(each))}
    quoted = {
        form
        for each in written
        for form in (json.dumps(each)[1:-1], repr(each)[1:-1], shlex.quote(each).strip("'"))
    }
    # Messages are put on one line.
    return {form for each in written | quoted for form in (each, " ".join(each.split())) if form.strip()}
