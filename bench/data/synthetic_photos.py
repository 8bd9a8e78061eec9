"""Photographs that nobody took: JPEG files of a megapixel with the statistics of real ones."""

from __future__ import annotations

import csv
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 1152, 864
QUALITY = 90
SCENES = 6

FALL = 1.4
"""Power of the frequency by which amplitudes fall: about 1 in scenes (Field 1987,
doi:10.1364/JOSAA.4.002379), more where a lens is not quite sharp. So chosen that a file has the
200 to 300 KB that photographs of this size have."""


def scene(seed: int) -> NDArray[np.uint8]:
    """A picture larger than a photograph: (HEIGHT * 5 / 4, WIDTH * 5 / 4, 3), with some grain."""
    random = np.random.default_rng(seed)
    height, width = HEIGHT * 5 // 4, WIDTH * 5 // 4
    light, warm, green = (_clouds(random, height, width) for _ in range(3))
    colours = np.stack([light + 0.35 * warm, light + 0.2 * green, light - 0.35 * warm], axis=-1)
    grain = random.normal(0, 2.0, (height, width, 1))
    levels = np.asarray(random.uniform(90, 160, 3) + 42 * colours + grain)
    return levels.clip(0, 255).astype(np.uint8)


def _clouds(random: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Noise whose amplitude falls with the frequency, of mean 0 and deviation 1."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    far = np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    waves = np.exp(2j * np.pi * random.random(far.shape)) / far**FALL
    found = np.fft.irfft2(waves, (height, width))
    return np.asarray((found - found.mean()) / found.std())


def write(folder: Path, count: int) -> Path:
    """`count` photographs, no two alike, as products of a CSV; returns the CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [Image.fromarray(scene(seed)) for seed in range(min(SCENES, count))]
    random = np.random.default_rng(1)
    for number in range(count):
        whole = scenes[number % len(scenes)]
        left = int(random.integers(0, whole.width - WIDTH))
        top = int(random.integers(0, whole.height - HEIGHT))
        photo = whole.crop((left, top, left + WIDTH, top + HEIGHT))
        file = BytesIO()
        photo.save(file, "JPEG", quality=QUALITY)
        (folder / f"{number}.jpg").write_bytes(file.getvalue())
    source = folder / "catalogue.csv"
    with source.open("w", encoding="utf-8", newline="") as text:
        rows = csv.writer(text)
        rows.writerow(("sku", "title", "brand", "category", "price", "images"))
        rows.writerows(
            (f"P{n}", f"Photograph {n}", f"b{n % 9}", f"c{n % 5}", n % 90, f"{n}.jpg")
            for n in range(count)
        )
    return source
