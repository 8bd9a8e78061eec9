"""Towers: the encoders that new pictures go through, one for each model that is kept up to date."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

from app.catalog.service import CatalogService
from app.encoders.base import Encoder, EncoderProvider
from app.encoders.preprocessing import PreparedPicture
from app.errors import ModelNotKept
from app.types import Model, Vectors

Inputs = tuple[PreparedPicture, ...]
"""A picture as each encoder reads it, in their order."""


@dataclass(frozen=True, slots=True)
class EncoderSet:
    """The models that are kept up to date at one moment with their encoders, the active first."""

    models: tuple[Model, ...]
    encoders: tuple[Encoder, ...]

    @property
    def model(self) -> Model:
        """The active model."""
        return self.models[0]

    @property
    def input_side(self) -> int | None:
        """Shorter side in pixels that suffices for all of them; None: that of the file, as one of
        them would be given it alone."""
        sides = [encoder.input_side for encoder in self.encoders]
        return None if None in sides else max(side or 0 for side in sides)

    def prepare(self, picture: Image.Image) -> Inputs:
        """The picture as each of them reads it."""
        return tuple(encoder.prepare(picture) for encoder in self.encoders)

    def encode(self, pictures: Sequence[Inputs]) -> dict[int, Vectors]:
        """The pictures' vectors, in order, by the id of the model."""
        return {
            model.id: encoder.encode_prepared([inputs[number] for inputs in pictures])
            for number, (model, encoder) in enumerate(zip(self.models, self.encoders, strict=True))
        }


CHANGES = 3
"""How often the models are read again when one of them is dropped meanwhile."""


class MaintainedEncoders:
    """The fleet of a catalogue, and how it is learnt anew.

    Raises NoModel, ModelMismatch and ModelUnavailable, here and in `renew`.
    """

    def __init__(self, catalog: CatalogService, encoders: EncoderProvider) -> None:
        self._catalog = catalog
        self._encoders = encoders
        self.renew()

    def renew(self) -> None:
        """Learn anew which models are kept up to date, and which of them is active."""
        for _ in range(CHANGES):
            with suppress(ModelNotKept):  # dropped since the models were read
                self.now = self._read()
                return
        self.now = self._read()

    def _read(self) -> EncoderSet:
        models = tuple(self._catalog.models())
        # Each by its own row: between two readings of which model is active it may change.
        return EncoderSet(models, tuple(self._encoders.for_model(model.id) for model in models))
