"""Writes `llms.txt` beside the site: its pages with their first sentences, for programs that read
documentation (https://llmstxt.org), and their Markdown."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

HEAD = (
    "# Lookalike\n\n"
    "> Finds products by picture: PostgreSQL with pgvector is the system of record, a FAISS index "
    "nominates, PostgreSQL orders exactly. Page, command line, HTTP API, SQL, Python.\n"
)


def first_sentence(app: Sphinx, name: str) -> str:
    """The first sentence of a page, without markup."""
    for paragraph in app.env.get_doctree(name).findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        return text if ". " not in text else text.partition(". ")[0] + "."
    return ""


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the file, in the order of the table of contents."""
    if error is not None or app.builder.format != "html":
        return
    names = [name for name in _in_order(app, app.config.root_doc) if name != app.config.root_doc]
    lines = [HEAD, "## Pages\n"]
    for name in dict.fromkeys(names):
        link = f"[{app.env.titles[name].astext()}]({app.builder.get_target_uri(name)})"
        lines.append(f"- {link}: {first_sentence(app, name)}")
    Path(app.outdir, "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _in_order(app: Sphinx, name: str) -> list[str]:
    below = app.env.toctree_includes.get(name, [])
    return [name, *(each for child in below for each in _in_order(app, child))]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
