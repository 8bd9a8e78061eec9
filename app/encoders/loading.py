"""Chooses and loads an encoder by the name of its model; imports nothing heavy until then."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from app.encoders.base import (
    AUTO,
    CLIP,
    EMBEDDED,
    HALF,
    INT8,
    Encoder,
    EncoderChoice,
    split_variant,
)
from app.encoders.embedded_versions import NEWEST, SIDES, version_of, weight_files
from app.encoders.presets import full_name
from app.errors import ModelUnavailable

if TYPE_CHECKING:
    from app.encoders.compiled_cache import CompileOptions
    from app.encoders.efficientnet import EmbeddedEncoder
    from app.encoders.efficientnet_pair import PairEncoder

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _LoadOptions:
    """The arguments of `load_encoder`, without the name."""

    revision: str | None
    cache: Path | None
    offline: bool
    compiled_cache: Path | None
    compiled: bool
    streams: int
    device: str
    suffix: str

    @property
    def int8(self) -> bool:
        return self.suffix == INT8


def load_encoder(
    model: str,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    offline: bool = False,
    compiled_cache: Path | None = None,
    compiled: bool = True,
    streams: int = 1,
    device: str = AUTO,
) -> Encoder:
    """The encoder of `model`: 'auto', 'embedded', a preset, a hub name, or a folder here.

    Each may end with '-int8': the same model quantized to 8 bits, which is another model. All but
    the embedded one may end with '-bf16' or '-fp16': in numbers of 16 bits, another model too.
    `revision` is a hub commit (default: the one pinned for the name, else the newest), or a
    recorded revision of the embedded encoder, which selects its version (default: the newest).
    `cache` is the folder of downloads (default: that of `huggingface_hub`); `offline` downloads
    nothing.
    `compiled_cache` is the folder of compiled models (default: that of the settings); with
    `compiled` False torch encodes. `streams` is how many threads will encode at the same time:
    each of their batches then runs on its share of the cores. `device` is 'auto' (a graphics card
    if torch can use one), 'cpu', 'cuda' or 'mps'; the embedded encoder runs on the processor.
    Raises ModelUnavailable with what was tried and what to do.
    """
    return choose_encoder(
        model, revision=revision, cache=cache, offline=offline, compiled_cache=compiled_cache,
        compiled=compiled, streams=streams, device=device,
    ).encoder  # fmt: skip


def choose_encoder(
    model: str,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    offline: bool = False,
    compiled_cache: Path | None = None,
    compiled: bool = True,
    streams: int = 1,
    device: str = AUTO,
) -> EncoderChoice:
    """Like `load_encoder`, with the reason for the choice and the library that runs it.

    'auto' takes CLIP if it is in the cache or can be downloaded, else the embedded encoder. A hub
    that does not answer within four seconds counts as unreachable; a download has no time limit.
    """
    plain, suffix = split_variant(model) if _folder(model) is None else (model, "")
    options = _LoadOptions(
        revision, cache, offline, compiled_cache, compiled, streams, device, suffix
    )
    choice = _choose(plain, options)
    note = f"{choice.note} Pictures are encoded by {choice.encoder.runtime}."
    return EncoderChoice(choice.encoder, note)


def automatic(model: str) -> bool:
    """Whether this name leaves the choice open; the model recorded in the database then decides."""
    return split_variant(model)[0] == AUTO


def _choose(model: str, options: _LoadOptions) -> EncoderChoice:
    if model == AUTO:
        return _choose_automatically(options)
    if model == EMBEDDED:
        return EncoderChoice(_load_embedded(options), "The embedded encoder, as asked.")
    folder = _folder(model) if full_name(model) == model else None
    if folder is not None:
        encoder = _load_clip_folder(folder, options)
        return EncoderChoice(encoder, f"The model in {folder}, as asked.")
    model = full_name(model)
    return EncoderChoice(_load_clip_hub(model, options), f"The hub model {model}, as asked.")


def _folder(model: str) -> Path | None:
    """The folder of this name, if there is one."""
    try:
        folder = Path(model).expanduser()
        return folder if model and folder.is_dir() else None
    except (OSError, RuntimeError):  # longer than any path, or the home of an unknown user
        return None


def _choose_automatically(options: _LoadOptions) -> EncoderChoice:
    try:
        choice = EncoderChoice(
            _load_clip_hub(CLIP, options),
            f"{CLIP} was taken: it can be loaded, and it reads words too.",
        )
    except ModelUnavailable as exc:
        note = (
            f"The embedded encoder was taken (of words it reads names of goods, colours and "
            f"patterns), because {CLIP} cannot be used: {exc}"
        )
        choice = EncoderChoice(_load_embedded(options), note)
    _log.info(choice.note)
    return choice


def _load_embedded(options: _LoadOptions) -> Encoder:
    version = version_of(options.revision)
    if version not in SIDES:
        raise ModelUnavailable(
            f"There is no version {version!r} of the embedded encoder here (revision "
            f"{options.revision}); the newest is {NEWEST}. Update Lookalike."
        )
    if options.suffix in HALF:
        raise ModelUnavailable(
            f"The embedded encoder has no {options.suffix} version; take {EMBEDDED} or "
            f"{EMBEDDED}{INT8}."
        )
    compile_options = _compile_options(options)
    if options.int8:
        return _load_networks(version, compile_options, int8=True)
    from app.encoders.stored_encoder import load_stored, record

    files = weight_files(version)
    load = partial(_load_networks, version, None)
    stored = load_stored(version, files, compile_options, load)
    if stored is not None:
        return stored
    encoder = _load_networks(version, compile_options)
    record(version, encoder, files, compile_options)
    return load_stored(version, files, compile_options, load) or encoder


def _load_networks(
    version: str, compile_options: CompileOptions | None, *, int8: bool = False
) -> PairEncoder | EmbeddedEncoder:
    """The embedded encoder of a version, by torch."""
    if version == NEWEST:
        from app.encoders.efficientnet_pair import PairEncoder

        return PairEncoder.load(compile_options, int8=int8)
    from app.encoders.efficientnet import EmbeddedEncoder

    return EmbeddedEncoder.load(compile_options, int8=int8)


def _load_clip_folder(folder: Path, options: _LoadOptions) -> Encoder:
    from app.encoders.clip import ClipEncoder

    return ClipEncoder.load(
        folder, name=folder.resolve().name, compile_options=_compile_options(options),
        suffix=options.suffix, device=options.device,
    )  # fmt: skip


def _load_clip_hub(name: str, options: _LoadOptions) -> Encoder:
    from app.encoders.hub import fetch

    files = fetch(name, revision=options.revision, cache=options.cache, offline=options.offline)

    # Imported after the fetch, so that a machine without the model does not pay for the import.
    from app.encoders.clip import ClipEncoder

    return ClipEncoder.load(
        files.folder, name=name, revision=files.commit, compile_options=_compile_options(options),
        suffix=options.suffix, device=options.device,
    )  # fmt: skip


def _compile_options(options: _LoadOptions) -> CompileOptions:
    from app.config import Settings
    from app.encoders.compiled_cache import CompiledCache, CompileOptions

    off = None if options.compiled else "LOOKALIKE_OPENVINO is off"
    cache = CompiledCache(options.compiled_cache or Settings().compiled_cache_folder)
    return CompileOptions(cache, off, options.streams)
