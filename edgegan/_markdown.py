"""Text, commands and tables as Markdown, for the pages that training and export write."""

import re
from collections.abc import Iterable

from edgegan.errors import printable


def plain(value: object) -> str:
    """Any text as plain words of a Markdown line or table cell."""
    escaped = re.sub(r"([\\`*_\[\]#|~$!])", r"\\\1", printable(value))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")  # @name would call somebody


def commands(lines: Iterable[str]) -> str:
    """A block of commands, fenced by more backticks than any of them holds in a row."""
    text = "\n".join(map(printable, lines))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of cells that are Markdown already."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))
