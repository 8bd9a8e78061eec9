"""Encoders: what turns pictures and words into unit vectors, and how one is chosen.

Nothing heavy is imported until an encoder is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from app.errors import ModelUnavailable

if TYPE_CHECKING:
    from PIL.Image import Image

    from app.encoders.pixels import Prepared
    from app.encoders.tower import Towers
    from app.types import Vectors

AUTO = "auto"
EMBEDDED = "embedded"
CLIP = "clip-ViT-B-32"
INT8 = "-int8"
"""What the name of a model ends with that is to be used in 8-bit numbers."""

__all__ = [
    "AUTO",
    "CLIP",
    "EMBEDDED",
    "INT8",
    "Choice",
    "Encoder",
    "automatic",
    "choose_encoder",
    "load_encoder",
]

_log = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for beside the name."""

    revision: str | None
    cache: Path | None
    offline: bool
    towers: Path | None
    compiled: bool
    streams: int
    int8: bool


def load_encoder(
    model: str,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    offline: bool = False,
    towers: Path | None = None,
    compiled: bool = True,
    streams: int = 1,
) -> Encoder:
    """The encoder of `model`: 'auto', 'embedded', a hub name, or a folder on this machine.

    Each may end with '-int8': the same model with pictures in 8-bit numbers, which is another one.
    `revision` is a hub commit (default: the one pinned for the name, else the newest), `cache`
    the folder of downloads (default: that of `huggingface_hub`); `offline` downloads nothing.
    `towers` is the folder of compiled towers (default: that of the settings); with `compiled`
    False torch does all work. `streams` is how many threads will encode at the same time: each of
    their batches then runs on its share of the cores. Raises ModelUnavailable, saying what was
    tried and what to do.
    """
    return choose_encoder(
        model, revision=revision, cache=cache, offline=offline, towers=towers, compiled=compiled,
        streams=streams,
    ).encoder  # fmt: skip


def choose_encoder(
    model: str,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    offline: bool = False,
    towers: Path | None = None,
    compiled: bool = True,
    streams: int = 1,
) -> Choice:
    """Like `load_encoder`, with the reason for the choice, and what runs it.

    'auto' takes CLIP if it is in the cache or can be downloaded, else the embedded encoder. A hub
    that does not answer within four seconds counts as absent; one that does may take its time.
    """
    int8 = model.endswith(INT8) and _folder(model) is None
    wanted = _Wanted(revision, cache, offline, towers, compiled, streams, int8)
    choice = _chosen(model.removesuffix(INT8) if int8 else model, wanted)
    note = f"{choice.note} Pictures are encoded by {choice.encoder.runs_in}."
    return Choice(choice.encoder, note)


def automatic(model: str) -> bool:
    """Whether this name leaves the choice open: what a database has recorded then decides."""
    return model.removesuffix(INT8) == AUTO


def _chosen(model: str, wanted: _Wanted) -> Choice:
    if model == AUTO:
        return _automatic(wanted)
    if model == EMBEDDED:
        return Choice(_embedded(wanted), "The embedded encoder, as asked.")
    folder = _folder(model)
    if folder is not None:
        return Choice(_clip_folder(folder, wanted), f"The model in {folder}, as asked.")
    return Choice(_clip_hub(model, wanted), f"The hub model {model}, as asked.")


def _folder(model: str) -> Path | None:
    """The folder of this name, if it is one."""
    try:
        folder = Path(model).expanduser()
        return folder if model and folder.is_dir() else None
    except (OSError, RuntimeError):  # longer than any path, or in the home of nobody
        return None


def _automatic(wanted: _Wanted) -> Choice:
    try:
        choice = Choice(
            _clip_hub(CLIP, wanted),
            f"{CLIP} was taken: it can be loaded, and it reads words too.",
        )
    except ModelUnavailable as exc:
        note = f"The embedded encoder was taken (pictures only), because {CLIP} is out: {exc}"
        choice = Choice(_embedded(wanted), note)
    _log.info(choice.note)
    return choice


def _embedded(wanted: _Wanted) -> Encoder:
    from app.encoders.embedded import EmbeddedEncoder

    return EmbeddedEncoder.load(_towers(wanted), int8=wanted.int8)


def _clip_folder(folder: Path, wanted: _Wanted) -> Encoder:
    from app.encoders.clip import ClipEncoder

    name = folder.resolve().name
    return ClipEncoder.load(folder, name=name, towers=_towers(wanted), int8=wanted.int8)


def _clip_hub(name: str, wanted: _Wanted) -> Encoder:
    from app.encoders.hub import fetch

    files = fetch(name, revision=wanted.revision, cache=wanted.cache, offline=wanted.offline)

    # After the fetch, so that a machine without the model does not pay for the import.
    from app.encoders.clip import ClipEncoder

    return ClipEncoder.load(
        files.folder, name=name, revision=files.commit, towers=_towers(wanted), int8=wanted.int8
    )


def _towers(wanted: _Wanted) -> Towers:
    from app.config import Settings
    from app.encoders.tower import Towers
    from app.encoders.tower_cache import TowerCache

    off = None if wanted.compiled else "LOOKALIKE_OPENVINO is off"
    return Towers(TowerCache(wanted.towers or Settings().tower_folder), off, wanted.streams)
