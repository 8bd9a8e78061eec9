"""Reference pages: the line `<!-- from code: NAME -->` is replaced by Markdown from the code.

Nothing is written to the source folder, so nothing there can be out of date.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pygments.lexers.special import TextLexer
from reference.changes import changelog
from reference.commands import commands
from reference.errors import exit_codes, problems
from reference.http import addresses
from reference.metrics import metrics
from reference.python import interface
from reference.settings import settings
from reference.sql import objects
from sphinx.application import Sphinx

MARK = re.compile(r"^<!-- from code: (\w+) -->$", re.MULTILINE)
PARTS: dict[str, Callable[[], str]] = {
    part.__name__: part
    for part in (
        commands, settings, metrics, exit_codes, problems, objects, addresses, interface, changelog
    )
}  # fmt: skip


def insert(_app: Sphinx, _name: str, source: list[str]) -> None:
    """Replace the marks of one page. Raises KeyError for an unknown name."""
    source[0] = MARK.sub(lambda match: PARTS[match[1]](), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", insert)
    app.add_lexer("csv", TextLexer)  # Pygments has none of its own
    return {"parallel_read_safe": True, "parallel_write_safe": True}
