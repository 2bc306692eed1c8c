"""For the built pages: a link to a file of the repository that is not a page becomes its path."""

import re

_OUTWARD = re.compile(r"\[([^\]]+)\]\(\.\./((?!\.\./)[^)]+)\)")


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    return _OUTWARD.sub(_path, markdown) if "/" not in page.file.src_uri else markdown  # type: ignore[attr-defined]


def _path(link: re.Match[str]) -> str:
    text, path = link[1], link[2]
    return text if text == path else f"{text} (`{path}`)"
