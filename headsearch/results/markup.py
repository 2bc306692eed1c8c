"""Results as markup: a table in Markdown, and a piece of HTML as notebooks show it, in the colours of the notebook's own theme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], rule: Sequence[str] = ()) -> str:
    """A table in Markdown; `rule` aligns its columns. The cells are markup."""
    lines = [header, rule or ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def result_html(
    title: str, said: Iterable[str], header: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1
) -> str:
    """The title, a paragraph for each sentence, and the table, whose last columns hold numbers; all text is escaped.

    Args:
        title: in bold.
        said: sentences below it; empty ones are left out.
        header: of the table.
        rows: its cells as text.
        names: how many of the first columns hold names.
    """
    paragraphs = "".join(f"<p style='margin:.3em 0'>{escape(line)}</p>" for line in said if line)
    lines = [_row("th", header, names), *(_row("td", row, names) for row in rows)]
    table = f"<table style='margin:.5em 0'>{''.join(lines)}</table>" if len(lines) > 1 else ""
    return f"<div><p style='margin:.3em 0'><b>{escape(title)}</b></p>{paragraphs}{table}</div>"


def _row(tag: str, cells: Sequence[str], names: int) -> str:
    aligned = (
        f"<{tag} style='text-align:{'left' if place < names else 'right'}'>{escape(cell)}</{tag}>"
        for place, cell in enumerate(cells)
    )
    return f"<tr>{''.join(aligned)}</tr>"
