"""Batches of an ingest: as large as the device of the model takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from app.bootstrap import App
from app.encoders.preprocessing import PreparedPicture
from app.types import Vectors
from ingest.prefetch import ENCODED_AT_ONCE
from support.colours import ColourEncoder
from support.sources import ingest, write_source

PICTURES = 40


class CountingEncoder(ColourEncoder):
    """Records the sizes of its batches."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.sizes: list[int] = []

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        self.sizes.append(len(prepared))
        return super().encode_prepared(prepared)


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(32, [8, ENCODED_AT_ONCE, ENCODED_AT_ONCE]), (256, [PICTURES])]
)
def test_a_graphics_card_gets_the_pictures_of_a_chunk_at_once(
    app: App, tmp_path: Path, batch_size: int, sizes: list[int]
) -> None:
    encoder = CountingEncoder(batch_size)
    ingest(app, write_source(tmp_path, PICTURES), encoder=encoder)
    assert sorted(encoder.sizes) == sizes
