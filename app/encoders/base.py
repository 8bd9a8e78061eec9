"""The protocol that every encoder follows, and the choice of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image

    from app.encoders.preprocessing import Prepared
    from app.types import Vectors


class Encoders(Protocol):
    """Where encoders come from."""

    def active(self) -> Encoder: ...

    def of(self, model_id: int) -> Encoder: ...

    def renew(self) -> None: ...

    def look_ahead(self) -> None: ...


AUTO = "auto"


EMBEDDED = "embedded"


CLIP = "clip-ViT-B-32"


INT8 = "-int8"
"""What the name of a model ends with that is to be used in 8-bit numbers."""


class Encoder(Protocol):
    """A loaded model. Every method may be called from several threads at once."""

    @property
    def name(self) -> str:
        """What the user chose: 'embedded', a hub name, or a folder's base name."""

    @property
    def revision(self) -> str:
        """The commit of a hub model; else what tells two versions of the name apart."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of weights, preprocessing and code version: equal for equal vectors."""

    @property
    def runs_in(self) -> str:
        """The library that encodes pictures here, and the reason if it is not the fast one."""

    @property
    def reads_words(self) -> bool:
        """Whether `encode_words` works."""

    @property
    def input_side(self) -> int | None:
        """Shorter side in pixels below which shrinking a picture costs quality; None: any."""

    def encode_pictures(self, pictures: Sequence[Image]) -> Vectors:
        """RGB pictures of any size, at least 1 x 1, to float32 unit rows (n, dim), in order.

        A picture's vector does not depend on its neighbours, within 1e-5 per element. The same as
        to `prepare` each and to `encode_prepared` them all.
        """

    def prepare(self, picture: Image) -> Prepared:
        """An RGB picture as the network reads it: uint8 (height, width, 3), C-contiguous.

        The work of a decoding thread. What waits for the network takes a fixed memory: all
        pictures have one size, unless only the model's own processor knows what it reads.
        """

    def encode_prepared(self, prepared: Sequence[Prepared]) -> Vectors:
        """Prepared pictures to float32 unit rows (n, dim), in order."""

    def encode_words(self, words: Sequence[str]) -> Vectors:
        """Texts to float32 unit rows (n, dim), in order; a long text is cut at the model's limit.

        A text is never taken for a path or an address. Raises NoWords if the model reads
        pictures only.
        """


@dataclass(frozen=True, slots=True)
class Choice:
    """The encoder that was taken, and a sentence that says which and why."""

    encoder: Encoder
    note: str
