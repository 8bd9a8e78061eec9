"""`lookalike explain`: draws what made a photo and a product alike."""

from __future__ import annotations

from pathlib import Path

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json
from app.cli.search import PATH, RegionType, read_photo
from app.errors import BadInput
from app.types import Region


@click.command()
@click.argument("photo", type=PATH)
@click.argument("sku")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png",
    help="Write the two pictures with their heat to this file. Default: SKU.png.",
)  # fmt: skip
@click.option(
    "--region", type=RegionType(), help="Use only this part of PHOTO (fractions of its sides)."
)
@as_json
def explain(
    photo: Path, sku: str, output: Path | None, region: Region | None, as_json: bool
) -> None:
    """Draw which parts of PHOTO and of the product SKU make them alike, as a PNG.

    With --json the heat of the cells is printed, and a file written only with --output.
    """
    with App() as app:
        data = read_photo(photo, app.settings.max_image_bytes)
        match = app.explainer.explain(data, sku, region=region)
    if output is None and not as_json:
        output = Path(f"{sku.replace('/', '_')}.png")
    if output is not None:
        _write(output, match.png())
    if as_json:
        print_json({
            "sku": sku, "similarity": match.similarity,
            "photo": match.photo.heat.round(4).tolist(),
            "product": match.product.heat.round(4).tolist(),
        })  # fmt: skip
    note(
        f"{sku} has the similarity {match.similarity:.3f}" + (f"; see {output}." if output else ".")
    )


def _write(output: Path, png: bytes) -> None:
    try:
        output.write_bytes(png)
    except OSError as exc:
        raise BadInput(f"{output} cannot be written ({exc.strerror}); name another file.") from exc
