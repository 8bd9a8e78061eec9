"""The encoders that new pictures go through: one for each maintained model.

A fitted model and the one that it follows share a network, which encodes a picture once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

from app.catalog.service import CatalogService
from app.encoders.base import Encoder, EncoderProvider
from app.encoders.preprocessing import PreparedPicture
from app.encoders.projected_encoder import base_of, from_base
from app.errors import ModelNotMaintained
from app.types import Model, Vectors

Inputs = tuple[PreparedPicture, ...]
"""A picture preprocessed for each network of a set, in their order."""

READ_ATTEMPTS = 4
"""How often the models are read when one of them is dropped at the same time."""


@dataclass(frozen=True, slots=True)
class EncoderSet:
    """The maintained models at one moment, the active one first, and their encoders."""

    models: tuple[Model, ...]
    encoders: tuple[Encoder, ...]

    @property
    def model(self) -> Model:
        """The active model."""
        return self.models[0]

    @property
    def input_side(self) -> int | None:
        """The shorter side in pixels that suffices for all encoders; None: the full size."""
        sides = [encoder.input_side for encoder in self.encoders]
        return None if None in sides else max(side or 0 for side in sides)

    @property
    def batch_size(self) -> int:
        """How many pictures are best encoded at once."""
        return max(encoder.batch_size for encoder in self.encoders)

    @property
    def networks(self) -> dict[str, Encoder]:
        """The encoders without the maps of fitted models, once each, by fingerprint."""
        return {base.fingerprint: base for base in map(base_of, self.encoders)}

    def prepare(self, picture: Image.Image) -> Inputs:
        """The picture preprocessed for each network."""
        return tuple(network.prepare(picture) for network in self.networks.values())

    def encode(self, pictures: Sequence[Inputs]) -> dict[int, Vectors]:
        """The pictures' unit vectors by model id, in the order of the pictures."""
        vectors = {
            fingerprint: network.encode_prepared([inputs[number] for inputs in pictures])
            for number, (fingerprint, network) in enumerate(self.networks.items())
        }
        return {
            model.id: from_base(encoder, vectors[base_of(encoder).fingerprint])
            for model, encoder in zip(self.models, self.encoders, strict=True)
        }


class MaintainedEncoders:
    """Keeps the current EncoderSet of a catalogue.

    Its constructor and `refresh` raise NoModel, ModelMismatch and ModelUnavailable.
    """

    def __init__(self, catalog: CatalogService, encoders: EncoderProvider) -> None:
        self._catalog = catalog
        self._encoders = encoders
        self.refresh()

    def refresh(self) -> None:
        """Read again which models are maintained, and load their encoders."""
        for _ in range(READ_ATTEMPTS - 1):
            with suppress(ModelNotMaintained):  # dropped since the models were read
                self.current = self._read()
                return
        self.current = self._read()

    def _read(self) -> EncoderSet:
        models = tuple(self._catalog.models())
        # By model id: which model is active may change between two reads.
        return EncoderSet(models, tuple(self._encoders.for_model(model.id) for model in models))
