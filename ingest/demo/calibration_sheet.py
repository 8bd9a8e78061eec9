"""Make app/encoders/calibration.jpg: pictures of products from which int8 towers take their ranges.

    python ingest/demo/calibration_sheet.py

They are the demo's: drawn, as a studio and as customers would photograph them.
"""

from __future__ import annotations

import tempfile
from itertools import chain
from pathlib import Path

from PIL import Image

from app.encoders.quantization import SHEET, SIDES, TILE
from ingest.demo import draw_catalogue


def main() -> None:
    across, down = SIDES
    with tempfile.TemporaryDirectory(prefix="lookalike-") as name:
        draw_catalogue(Path(name))
        pictures = chosen(Path(name), across * down)
        sheet = Image.new("RGB", (across * TILE, down * TILE))
        for number, path in enumerate(pictures):
            with Image.open(path) as picture:
                # Squashed as the embedded encoder does it; a tower reads it at its own size.
                tile = picture.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (number % across * TILE, number // across * TILE))
    sheet.save(SHEET, "JPEG", quality=85, optimize=True)
    print(f"{SHEET}: {len(pictures)} pictures, {SHEET.stat().st_size:,} bytes")


def chosen(folder: Path, count: int) -> list[Path]:
    """Half from the catalogue and half of what customers took, evenly from all of them."""
    half = count // 2
    kinds = [sorted((folder / name).iterdir()) for name in ("images", "queries")]
    return list(chain.from_iterable(each[:: max(1, len(each) // half)][:half] for each in kinds))


if __name__ == "__main__":
    main()
