"""`lookalike words`: the language by which words are stemmed, and the synonyms."""

from __future__ import annotations

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.operations import synonyms as synonym_service
from app.operations import word_language


@click.group()
def words() -> None:
    """Set the language of the catalogue's words, and extend its synonyms."""


@words.command()
@click.argument("name", required=False)
def language(name: str | None) -> None:
    """Print the language by which words are stemmed, or change it to NAME.

    NAME is a text search configuration of PostgreSQL, such as english, german or simple (words as
    they are). Searches and writes go on during the change.
    """
    with App() as app:
        if name is None:
            click.echo(word_language.current(app.engine))
        elif word_language.change(app.engine, name, note):
            note(f"Words are stemmed by {name} now.")
        else:
            note(f"Words are stemmed by {name} already.")


@words.command()
@as_json
def synonyms(as_json: bool) -> None:
    """List the synonyms: a search for a word finds what it means too."""
    with App() as app:
        pairs = synonym_service.listed(app.engine)
    if as_json:
        print_json([{"word": word, "means": means} for word, means in pairs])
    else:
        print_table(("word", "means"), pairs)


@words.command("add-synonym")
@click.argument("word")
@click.argument("means")
@click.option("--one-way", is_flag=True, help="WORD finds MEANS, and MEANS does not find WORD.")
def add_synonym(word: str, means: str, one_way: bool) -> None:
    """Let searches for WORD find products that have MEANS too, and the reverse.

    Either may be several words in quotes.
    """
    with App() as app:
        added = synonym_service.add(app.engine, word, means, one_way=one_way)
    note(f"{word} finds {means}." if added else f"{word} found {means} already.")


@words.command("remove-synonym")
@click.argument("word")
@click.argument("means")
def remove_synonym(word: str, means: str) -> None:
    """Remove the synonym of WORD and MEANS, in both directions."""
    with App() as app:
        removed = synonym_service.remove(app.engine, word, means)
    note(f"{word} does not find {means} any more." if removed else "There is no such synonym.")
