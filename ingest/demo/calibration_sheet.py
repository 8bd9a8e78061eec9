"""Draws `app/encoders/calibration.jpg`, the pictures that calibrate int8 quantization.

    python -m ingest.demo.calibration_sheet

The sheet is a grid of pictures of the demo catalogue: half studio photos, half customers' photos.
Their activations give the ranges of the quantized network.
"""

from __future__ import annotations

import tempfile
from itertools import chain
from pathlib import Path

from PIL import Image

from app.encoders.quantization import CALIBRATION_SHEET, COLUMNS, ROWS, TILE_SIDE
from app.images.decoding import decode
from ingest.demo import draw_catalogue


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        draw_catalogue(Path(folder))
        paths = choose(Path(folder), COLUMNS * ROWS)
        sheet = Image.new("RGB", (COLUMNS * TILE_SIDE, ROWS * TILE_SIDE))
        for number, path in enumerate(paths):
            # The aspect ratio is not kept, as in the embedded encoder's preprocessing.
            picture = decode(path.read_bytes())
            tile = picture.resize((TILE_SIDE, TILE_SIDE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (number % COLUMNS * TILE_SIDE, number // COLUMNS * TILE_SIDE))
    sheet.save(CALIBRATION_SHEET, "JPEG", quality=85, optimize=True)
    size = CALIBRATION_SHEET.stat().st_size
    print(f"{CALIBRATION_SHEET}: {len(paths)} pictures, {size:,} bytes")


def choose(folder: Path, count: int) -> list[Path]:
    """Paths of `count` pictures: half of catalogue images, half of queries, evenly spaced."""
    half = count // 2
    kinds = [sorted((folder / name).iterdir()) for name in ("images", "queries")]
    return list(chain.from_iterable(each[:: max(1, len(each) // half)][:half] for each in kinds))


if __name__ == "__main__":
    main()
