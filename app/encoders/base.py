"""The protocol that every encoder implements, and the names that models are chosen by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image

    from app.encoders.feature_map import FeatureMap
    from app.encoders.preprocessing import PreparedPicture
    from app.types import Region, Vectors

AUTO = "auto"
EMBEDDED = "embedded"
CLIP = "clip-ViT-B-32"
INT8 = "-int8"
"""Suffix of a model's name: the same model with its picture network quantized to 8 bits."""


HALF = {"-bf16": "bfloat16", "-fp16": "float16"}
"""Suffixes of a model's name: the same model in numbers of 16 bits, by their name in torch."""


def split_variant(name: str) -> tuple[str, str]:
    """A model's name without the suffix of a variant, and that suffix; '' if it has none."""
    for suffix in (INT8, *HALF):
        if name.endswith(suffix):
            return name.removesuffix(suffix), suffix
    return name, ""


class Encoder(Protocol):
    """A loaded model. Every method may be called from several threads at once."""

    @property
    def name(self) -> str:
        """'embedded', a hub name, or the base name of a folder, as chosen by the user."""

    @property
    def revision(self) -> str:
        """The commit of a hub model; otherwise a short identifier of the weights."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of weights, preprocessing and code version: equal for equal vectors."""

    @property
    def runtime(self) -> str:
        """The library that encodes pictures in this process; with the reason if it is torch."""

    @property
    def reads_words(self) -> bool:
        """Whether `encode_words` works."""

    @property
    def maps_regions(self) -> bool:
        """Whether `encode_map` and `pool_windows` work."""

    @property
    def input_side(self) -> int | None:
        """Pictures may be shrunk until their shorter side has this many pixels without a loss of
        quality; None if every reduction loses quality."""

    @property
    def batch_size(self) -> int:
        """How many pictures are best encoded at once."""

    def encode_pictures(self, pictures: Sequence[Image]) -> Vectors:
        """RGB pictures of any size, at least 1 x 1, to float32 unit rows (n, dim), in order.

        A picture's vector does not depend on the rest of the batch, within 1e-5 per element. Equal
        to `encode_prepared` of every picture's `prepare`.
        """

    def prepare(self, picture: Image) -> PreparedPicture:
        """An RGB picture as the network's input: uint8 (height, width, 3), C-contiguous.

        Runs in the decoding threads. All prepared pictures have one size, so that a queue of them
        has a known size in memory, unless only the model's own processor can prepare its input.
        """

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        """Prepared pictures to float32 unit rows (n, dim), in order."""

    def encode_map(self, picture: Image) -> FeatureMap:
        """The feature map of an RGB picture: float32 (rows, columns, channels), for
        `pool_windows`. Raises NoRegions if the model has no map."""

    def pool_windows(self, feature_map: FeatureMap, windows: Sequence[Region]) -> Vectors:
        """About the vectors of pictures that show these windows alone: float32 unit rows (n, dim),
        in order. Costs far less than encoding them. Raises NoRegions if the model has no map."""

    def encode_words(self, words: Sequence[str]) -> Vectors:
        """Texts to float32 unit rows (n, dim), in order; a long text is cut at the model's limit.

        A text that the model has no idea of becomes a row of zeros. A text is never interpreted as
        a path or a URL. Raises NoWords if the model encodes pictures only.
        """


@dataclass(frozen=True, slots=True)
class WordReader:
    """What encodes words for the pictures of a model, whose encoder need not be loaded for it.

    `encode` is as `Encoder.encode_words`, `fingerprint` that of the model.
    """

    fingerprint: str
    encode: Callable[[Sequence[str]], Vectors]


class EncoderProvider(Protocol):
    """Gives the encoders of the models that a database records."""

    def active(self) -> Encoder:
        """The encoder of the active model."""

    def for_model(self, model_id: int) -> Encoder:
        """The encoder of a maintained model."""

    def may_read_words(self, model_id: int | None) -> bool:
        """Whether a model (None: the active one) may encode words, without loading it: False only
        where that is known."""

    def word_reader(self, model_id: int | None) -> WordReader | None:
        """What encodes words for a model (None: the active one) without its encoder; None where
        there is no such thing, or the encoder is loaded."""

    def refresh_active(self) -> None:
        """Read again which model is active."""

    def preload(self) -> None:
        """Load the encoders of maintained models in the background, from time to time."""


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """The chosen encoder, and a sentence for the user that names it and the reason."""

    encoder: Encoder
    note: str
