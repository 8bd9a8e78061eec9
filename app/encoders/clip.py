"""CLIP and its kin through sentence-transformers: pictures and words in one space."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from PIL import Image
from sentence_transformers import SentenceTransformer

from app.encoders.pixels import Pixels, Prepared, from_settings
from app.errors import ModelUnavailable, NoWords
from app.images import DECODING
from app.values import Vectors

_CODE = "2"
"""Raised by hand whenever this module gives other vectors than before from the same weights."""

_BATCH = 32
_MAX_ASPECT = 8
_LEVELS = 2.01
"""Grey levels of 255 that rounding may make between our pixels and the stock processor's."""
_PROBE = Image.new("RGB", (64, 64), (127, 127, 127))

# What a broken, foreign or half-copied folder has been seen to raise out of the loading code.
_BROKEN = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError,
    safetensors.SafetensorError,
)  # fmt: skip

# Settings that change a vector without changing the weights; the rest of a configuration (versions,
# paths, training options) may differ between two copies of one model.
_TELLING = frozenset({
    "text_config", "vision_config", "hidden_act", "layer_norm_eps", "num_attention_heads",
    "patch_size", "image_size", "eos_token_id",
    "do_resize", "size", "shortest_edge", "longest_edge", "height", "width", "resample",
    "do_center_crop", "crop_size", "do_rescale", "rescale_factor",
    "do_normalize", "image_mean", "image_std",
})  # fmt: skip
_TELLING_WORDS = ("Red wool coat, size 42", "ÉTÉ naïve, 靴 👟", "a" * 3000, "")


class ClipEncoder:
    """A sentence-transformers model that reads pictures, and words if it has a text tower."""

    def __init__(self, model: SentenceTransformer, *, name: str, revision: str | None) -> None:
        """`revision` None: the folder is told apart by its fingerprint."""
        self._model = model
        self._tokenizing = threading.Lock()
        self.name = name
        self.reads_words = bool(model.supports("text"))
        self.input_side = _input_side(model)
        self._pixels = own_pixels(model)
        self.dim = self._encode([_PROBE]).shape[1]
        self.fingerprint = _fingerprint(model, self.reads_words)
        self.revision = revision or self.fingerprint[:12]

    @classmethod
    def load(cls, folder: Path, *, name: str, revision: str | None = None) -> ClipEncoder:
        """The model saved in `folder`, from safetensors only and without running its code.

        Raises ModelUnavailable when the folder holds no model, a pickled or a broken one, or one
        that reads no pictures.
        """
        _refuse_pickles(folder)
        try:
            model = _open(folder)
            _check_vocabulary(model)
            if model.supports("image"):
                return cls(model, name=name, revision=revision)
        except _BROKEN as exc:
            raise ModelUnavailable(
                f"The model in {folder} cannot be loaded ({exc}); copy or download it again."
            ) from exc
        raise ModelUnavailable(f"The model in {folder} reads no pictures; take a CLIP model.")

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """RGB pictures of any size to float32 unit rows (n, dim), in order."""
        return self.encode_prepared([self.prepare(picture) for picture in pictures])

    def prepare(self, picture: Image.Image) -> Prepared:
        """An RGB picture as the tower reads it: uint8 (height, width, 3).

        Of one size for all pictures, unless only the model's own processor knows what it reads.
        """
        tame = _tamed(picture)
        return self._pixels.prepare(tame) if self._pixels else np.array(tame, dtype=np.uint8)

    def encode_prepared(self, prepared: Sequence[Prepared]) -> Vectors:
        """Prepared pictures to float32 unit rows (n, dim), in order."""
        if self._pixels is None:
            return self._encode([Image.fromarray(picture) for picture in prepared])
        rows = [
            self._tower(self._pixels.normalised(prepared[start : start + _BATCH]))
            for start in range(0, len(prepared), _BATCH)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def _tower(self, pixels: NDArray[np.float32]) -> Vectors:
        """What the model's `encode` does with the output of its processor."""
        values = torch.from_numpy(pixels).to(self._model.device)
        with torch.inference_mode():
            features = self._model.forward({"pixel_values": values, "modality": "image"})
            vectors = features["sentence_embedding"][:, : self._model.truncate_dim]
            unit = torch.nn.functional.normalize(vectors, dim=1)
        rows: Vectors = unit.float().cpu().numpy()
        return rows

    def encode_words(self, words: Sequence[str]) -> Vectors:
        """Texts to float32 unit rows (n, dim), in order; NoWords without a text tower.

        What exceeds the tokenizer's limit (77 tokens for CLIP) is cut off.
        """
        if not self.reads_words:
            raise NoWords
        # Bare strings that look like paths or addresses would be opened and fetched.
        # Locked: a fast tokenizer keeps its padding in itself and must not be called in parallel.
        with self._tokenizing:
            return self._encode([{"text": text} for text in words])

    def _encode(self, inputs: Sequence[Image.Image | dict[str, str]]) -> Vectors:
        if not inputs:
            return np.empty((0, self.dim), np.float32)
        rows: Vectors = self._model.encode(
            list(inputs), batch_size=_BATCH, show_progress_bar=False, normalize_embeddings=True
        )
        return rows.astype(np.float32, copy=False)


def _refuse_pickles(folder: Path) -> None:
    """A pickle runs code when loaded; it is ignored beside safetensors, and refused alone."""
    if not (folder / "modules.json").is_file():
        raise ModelUnavailable(
            f"{folder} is no sentence-transformers model: it has no modules.json."
        )
    for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt"):
        for pickled in folder.rglob(pattern):
            if not any(pickled.parent.glob("*.safetensors")):
                raise ModelUnavailable(
                    f"{pickled} is a pickle, which could run any code; save it as safetensors."
                )


def _open(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(
        str(folder),
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True, "dtype": torch.float32},
    )


def _check_vocabulary(model: SentenceTransformer) -> None:
    """Raises LookupError when the tokenizer's files are missing: it then reads every text alike."""
    known = getattr(getattr(model.config, "text_config", None), "vocab_size", 0)
    if model.supports("text") and len(model.tokenizer) < known // 2:
        raise LookupError(f"its vocabulary has {len(model.tokenizer)} entries of {known}")


def _tamed(picture: Image.Image) -> Image.Image:
    """The picture, or the middle of an extremely long one, with sides of at least 4 pixels.

    The processor scales the shorter side to its input and cuts the middle out: 5000 x 1 would
    become a million pixels wide on the way. A side of 1 or 3 it takes for colour channels.
    """
    short = min(picture.size)
    if max(picture.size) > short * _MAX_ASPECT:
        width, height = (min(side, short * _MAX_ASPECT) for side in picture.size)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    if short < 4:
        picture = picture.resize((picture.width * 4, picture.height * 4))
    return picture


def _input_side(model: SentenceTransformer) -> int | None:
    """One and a half times the side the processor scales to: what is lost cannot be measured."""
    processor = getattr(model.processor, "image_processor", model.processor)
    sides = _telling(processor.to_dict()).get("size")
    if not isinstance(sides, Mapping) or not sides:
        return None
    return 3 * max(int(side) for side in sides.values()) // 2


def own_pixels(model: SentenceTransformer) -> Pixels | None:
    """Our preprocessing, if it does what the model's processor does; seen on pictures, not read."""
    processor = getattr(model.processor, "image_processor", model.processor)
    pixels = from_settings(processor.to_dict())
    if pixels is None:
        return None
    for probe in _noise():
        stock = model.preprocess([probe])
        if set(stock) - {"modality"} != {"pixel_values"} or stock.get("modality") != "image":
            return None
        ours = pixels.normalised([pixels.prepare(probe)])
        theirs = stock["pixel_values"].numpy()
        level = pixels.factor / min(pixels.std)
        if ours.shape != theirs.shape or np.abs(ours - theirs).max() > _LEVELS * level:
            return None
    return pixels


def _noise() -> list[Image.Image]:
    """Pictures on which every difference shows: wide, tall, odd, smaller than any input."""
    rng = np.random.default_rng(0)
    shapes = ((97, 331, 3), (500, 377, 3), (31, 29, 3))
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


def _fingerprint(model: SentenceTransformer, reads_words: bool) -> str:
    """sha256 over what decides a vector, equal for copies of one model saved differently."""
    processor = getattr(model.processor, "image_processor", model.processor)
    settings: list[Any] = [_CODE, DECODING, _input_side(model)]
    settings += [_telling(processor.to_dict()), _telling(model.config.to_dict())]
    settings += [module.get_config_dict() for module in list(model)[1:]]
    if reads_words:
        tokens = model.preprocess([{"text": text} for text in _TELLING_WORDS])["input_ids"]
        settings += [sorted(model.tokenizer.get_vocab().items()), tokens.tolist()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=list).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def _telling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change a vector, at every depth."""
    return {
        key: _telling(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if key in _TELLING and value is not None
    }
