"""Encoders: what turns pictures and words into unit vectors, and how one is chosen.

Nothing heavy is imported until an encoder is asked for.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.encoders.base import AUTO, CLIP, EMBEDDED, INT8, Choice, Encoder
from app.errors import ModelUnavailable

if TYPE_CHECKING:
    from app.encoders.compiled_model import CompileOptions

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _LoadRequest:
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
    wanted = _LoadRequest(revision, cache, offline, towers, compiled, streams, int8)
    choice = _chosen(model.removesuffix(INT8) if int8 else model, wanted)
    note = f"{choice.note} Pictures are encoded by {choice.encoder.runs_in}."
    return Choice(choice.encoder, note)


def automatic(model: str) -> bool:
    """Whether this name leaves the choice open: what a database has recorded then decides."""
    return model.removesuffix(INT8) == AUTO


def _chosen(model: str, wanted: _LoadRequest) -> Choice:
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


def _automatic(wanted: _LoadRequest) -> Choice:
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


def _embedded(wanted: _LoadRequest) -> Encoder:
    from app.encoders.efficientnet import EmbeddedEncoder

    return EmbeddedEncoder.load(_towers(wanted), int8=wanted.int8)


def _clip_folder(folder: Path, wanted: _LoadRequest) -> Encoder:
    from app.encoders.clip import ClipEncoder

    name = folder.resolve().name
    return ClipEncoder.load(folder, name=name, towers=_towers(wanted), int8=wanted.int8)


def _clip_hub(name: str, wanted: _LoadRequest) -> Encoder:
    from app.encoders.hub import fetch

    files = fetch(name, revision=wanted.revision, cache=wanted.cache, offline=wanted.offline)

    # After the fetch, so that a machine without the model does not pay for the import.
    from app.encoders.clip import ClipEncoder

    return ClipEncoder.load(
        files.folder, name=name, revision=files.commit, towers=_towers(wanted), int8=wanted.int8
    )


def _towers(wanted: _LoadRequest) -> CompileOptions:
    from app.config import Settings
    from app.encoders.compiled_cache import CompiledCache
    from app.encoders.compiled_model import CompileOptions

    off = None if wanted.compiled else "LOOKALIKE_OPENVINO is off"
    return CompileOptions(
        CompiledCache(wanted.towers or Settings().tower_folder), off, wanted.streams
    )
