"""`lookalike search`: find products by photo, by product or by words.

Imports little: a page or an API of the same user that runs answers faster than this process could
load what a search needs (`running.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from app.cli import running
from app.cli.output import as_json
from app.errors import BadImage, BadInput

Region = tuple[float, float, float, float]

filters_option = click.option(
    "--filter", "filters", multiple=True, metavar="CONDITION",
    help="Only products that meet the condition: brand=Kestrel, year>=2019, price=10..20, or an"
    " attribute such as material=wool. Repeating a name allows another value.",
)  # fmt: skip

PATH = click.Path(path_type=Path, allow_dash=True)


class RegionType(click.ParamType[Region]):
    """A region as fractions (0 to 1) of the sides of a picture, as in `0.1,0.2,0.6,0.9`."""

    name = "left,top,right,bottom"

    def convert(self, value: Any, param: Any, ctx: Any) -> Region:
        try:
            left, top, right, bottom = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not four numbers such as 0.1,0.2,0.6,0.9.", param, ctx)
        return left, top, right, bottom


@click.command()
@click.argument("photo", required=False, type=PATH)
@click.option("--sku", help="Find products similar to this product.")
@click.option(
    "--text", "words", help="Words to search for; with a PHOTO or --sku, what should be different."
)
@click.option("--k", "k", default=10, show_default=True, help="Maximum number of products.")
@filters_option
@click.option(
    "--also", multiple=True, type=PATH, help="Another photo of the same object; may be repeated."
)
@click.option(
    "--region", type=RegionType(), help="Use only this part of PHOTO (fractions of its sides)."
)
@click.option(
    "--objects", type=click.Choice(["on", "off"]), default="on", show_default=True,
    help="Search PHOTO by the objects in it too, unless the whole has a match beyond doubt.",
)  # fmt: skip
@click.option("--weight", default=0.5, show_default=True, help="Weight of the words, 0 to 1.")
@click.option(
    "--words-by",
    type=click.Choice(["model", "catalogue"]),
    help="Interpret the words by the model or by full-text search. Default: both.",
)
@click.option(
    "--text-language", type=click.Choice(["en", "de"]),
    help="With de, --text is German: words that are English too are read so, misspelt ones too.",
)  # fmt: skip
@click.option(
    "--not-like",
    multiple=True,
    type=PATH,
    help="A photo that results should not resemble; may be repeated.",
)
@click.option("--not-text", help="Words that should not describe the results.")
@click.option(
    "--not-weight",
    default=0.5,
    show_default=True,
    help="Weight of --not-like and --not-text, 0 to 1.",
)
@click.option(
    "--fold/--no-fold", default=True, help="Show duplicate products as one (the default)."
)
@click.option(
    "--near-query", type=float, help="Drop products at most this distance from the query."
)
@click.option(
    "--near-match",
    type=float,
    help="Drop products at most this distance from a better match.",
)
@click.option(
    "--min-similarity", type=float, help="Drop products less similar than this (-1 to 1)."
)
@click.option(
    "--shown", multiple=True, help="A sku of an earlier page, to be left out; may be repeated."
)
@click.option(
    "--facets",
    "with_facets",
    is_flag=True,
    help="Also count the values that the results can be filtered by.",
)
@as_json
def search(
    photo: Path | None, also: tuple[Path, ...], not_like: tuple[Path, ...], **options: Any
) -> None:
    """Find products similar to PHOTO, --sku or --text.

    With - as PHOTO it is read from standard input. For the next page, repeat the search with each
    sku of `shown` in the JSON output as --shown.
    """
    if photo is None and options["sku"] is None and options["words"] is None:
        raise BadInput("Name at least one of: a PHOTO, --sku SKU, --text WORDS.")
    photos = {
        "photo": _read([] if photo is None else [photo]), "also": _read(also),
        "not_like": _read(not_like),
    }  # fmt: skip
    if running.answers(options, photos):
        return
    from app.bootstrap import App
    from app.cli.search_answer import print_answer

    with App() as app:
        print_answer(app, options, photos)


def _read(photos: Sequence[Path]) -> list[bytes]:
    """The contents of files."""
    if not photos:
        return []
    from app.config import Settings

    limit = Settings().max_image_bytes
    return [read_photo(each, limit) for each in photos]


def read_photo(photo: Path, limit: int) -> bytes:
    """The content of a file, at most `limit` + 1 bytes: enough to see that it is too large."""
    if str(photo) == "-":
        return sys.stdin.buffer.read(limit + 1)
    try:
        with photo.open("rb") as file:
            return file.read(limit + 1)
    except OSError as exc:
        raise BadImage(f"The picture {photo} cannot be read: {exc.strerror or exc}.") from exc
