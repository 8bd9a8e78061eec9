"""Towers: the encoders that new pictures go through, one for each model that is kept up to date."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from PIL import Image

from app.asking import Encoders
from app.catalog import CatalogService
from app.encoders import Encoder
from app.errors import ModelNotKept
from app.values import Model, Vector

CHANGES = 3
"""How often the models are read again when one of them is dropped meanwhile."""


class Towers:
    """The models of a catalogue with their encoders, the active one first.

    Raises NoModel, ModelMismatch and ModelUnavailable, here and in `renew`.
    """

    def __init__(self, catalog: CatalogService, encoders: Encoders) -> None:
        self._catalog = catalog
        self._encoders = encoders
        self._found: list[tuple[Model, Encoder]] = []
        self.renew()

    def renew(self) -> None:
        """Learn anew which models are kept up to date, and which of them is active."""
        for _ in range(CHANGES):
            with suppress(ModelNotKept):  # dropped since the models were read
                self._found = self._read()
                return
        self._found = self._read()

    def _read(self) -> list[tuple[Model, Encoder]]:
        # Each by its own row: between two readings of which model is active it may change.
        return [(model, self._encoders.of(model.id)) for model in self._catalog.models()]

    @property
    def model(self) -> Model:
        """The active model."""
        return self._found[0][0]

    @property
    def input_side(self) -> int | None:
        """Shorter side in pixels that suffices for all of them; None: no matter."""
        return max((encoder.input_side or 0 for _, encoder in self._found), default=0) or None

    def encode(self, pictures: Sequence[Image.Image]) -> dict[int, list[Vector]]:
        """The pictures' vectors, in order, by the id of the model."""
        return {
            model.id: list(encoder.encode_pictures(list(pictures)))
            for model, encoder in self._found
        }
