"""Generated JPEG photos of one megapixel with the statistics of real photos."""

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

SPECTRAL_SLOPE = 1.4
"""Amplitudes fall with this power of the frequency: about 1 in natural scenes (Field 1987,
doi:10.1364/JOSAA.4.002379), more with a lens that is not quite sharp. Chosen so that a file has 200
to 300 KB, as photos of this size have."""


def generate_scene(seed: int) -> NDArray[np.uint8]:
    """A picture larger than a photo, with grain: shape (HEIGHT * 5 / 4, WIDTH * 5 / 4, 3)."""
    random = np.random.default_rng(seed)
    height, width = HEIGHT * 5 // 4, WIDTH * 5 // 4
    light, warm, green = (_power_law_noise(random, height, width) for _ in range(3))
    colours = np.stack([light + 0.35 * warm, light + 0.2 * green, light - 0.35 * warm], axis=-1)
    grain = random.normal(0, 2.0, (height, width, 1))
    levels = np.asarray(random.uniform(90, 160, 3) + 42 * colours + grain)
    return levels.clip(0, 255).astype(np.uint8)


def _power_law_noise(random: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Noise whose amplitude falls with the frequency: mean 0, standard deviation 1."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    waves = np.exp(2j * np.pi * random.random(frequency.shape)) / frequency**SPECTRAL_SLOPE
    noise = np.fft.irfft2(waves, (height, width))
    return np.asarray((noise - noise.mean()) / noise.std())


def write_photos(folder: Path, count: int) -> Path:
    """Write `count` different photos and a CSV with one product for each; returns the CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [Image.fromarray(generate_scene(seed)) for seed in range(min(SCENES, count))]
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
