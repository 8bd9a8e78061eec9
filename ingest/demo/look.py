"""The appearance of one product: its paints and the random numbers of its shape."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ingest.demo.paint import INK, STEEL, Colour, Paint, shaded


@dataclass(frozen=True, slots=True)
class Appearance:
    """A product's main paint, its trim colour and the seed of its proportions."""

    paint: Paint
    trim: Colour
    seed: int

    def form(self) -> np.random.Generator:
        """A generator with the same numbers at every call, so that a product keeps its shape."""
        return np.random.default_rng(self.seed)

    def plain(self, factor: float = 1.0) -> Paint:
        """The main colour without its pattern, darker below 1."""
        return replace(self.paint, colour=shaded(self.paint.colour, factor), pattern="plain")

    def second(self, factor: float = 1.0, gloss: float = 0.15) -> Paint:
        """The trim colour, darker below 1."""
        return Paint(shaded(self.trim, factor), gloss=gloss)


METAL = Paint(STEEL, gloss=0.7)
BLACK = Paint(INK, gloss=0.25)
RUBBER = Paint((0.16, 0.16, 0.17), gloss=0.1)
