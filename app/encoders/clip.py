"""CLIP and its kin through sentence-transformers: pictures and words in one space."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from app.encoders.base import INT8
from app.encoders.clip_fingerprint import fingerprint, input_side, own_pixels
from app.encoders.clip_loading import BROKEN, open_model, refuse_pickles
from app.encoders.compiled_model import CompiledModel, CompileOptions, Network, build
from app.encoders.preprocessing import Pixels, Prepared
from app.errors import ModelUnavailable, NoWords
from app.types import Vectors

_BATCH = 32
_MAX_ASPECT = 8
_FOREIGN = "only its own processor knows what it reads"
_PROBE = Image.new("RGB", (64, 64), (127, 127, 127))


class ClipEncoder:
    """A sentence-transformers model that reads pictures, and words if it has a text tower."""

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        name: str,
        revision: str | None,
        towers: CompileOptions | None = None,
        int8: bool = False,
    ) -> None:
        """`revision` None: the folder is told apart by its fingerprint.

        `towers` None: torch does all work. `int8`: pictures in 8-bit numbers, another model; words
        stay in 32 bits. Raises ModelUnavailable where it cannot be made.
        """
        self._model = model
        self._tokenizing = threading.Lock()
        self.name = name + INT8 if int8 else name
        self.reads_words = bool(model.supports("text"))
        self.input_side = input_side(model)
        self._pixels = own_pixels(model)
        self.dim = self._encode([_PROBE]).shape[1]
        self.fingerprint = fingerprint(model, self.reads_words, self._pixels)
        self._tower = self._built(towers, int8)
        self.runs_in = str(self._tower.state) if self._tower else f"torch ({_FOREIGN})"
        if self._tower is not None:
            self.fingerprint = self._tower.fingerprint
        self.revision = revision or self.fingerprint[:12]

    def _built(self, towers: CompileOptions | None, int8: bool) -> CompiledModel | None:
        """None where only the model's own processor knows what the tower reads."""
        if self._pixels is not None:
            whole = _Whole(self._model, self._pixels).to(self._model.device).eval()
            if towers and not int8 and self._model.device.type != "cpu":
                towers = replace(towers, off=f"the model runs on {self._model.device.type}")
            return build(Network(whole, self._pixels.shape, self.fingerprint), towers, int8=int8)
        if int8:
            raise ModelUnavailable(f"{self.name} cannot be made: {_FOREIGN}.")
        return None

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        name: str,
        towers: CompileOptions | None = None,
        revision: str | None = None,
        int8: bool = False,
    ) -> ClipEncoder:
        """The model saved in `folder`, from safetensors only and without running its code.

        Raises ModelUnavailable when the folder holds no model, a pickled or a broken one, or one
        that reads no pictures.
        """
        refuse_pickles(folder)
        try:
            model = open_model(folder)
            if model.supports("image"):
                return cls(model, name=name, revision=revision, towers=towers, int8=int8)
        except BROKEN as exc:
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
        if self._tower is None:
            return self._encode([Image.fromarray(picture) for picture in prepared])
        rows = [
            self._tower.run(np.stack(prepared[start : start + _BATCH]))
            for start in range(0, len(prepared), _BATCH)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

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


class _Whole(nn.Module):
    """What the model's `encode` does with pictures: uint8 (n, height, width, 3) to unit rows."""

    scale: Tensor
    offset: Tensor

    def __init__(self, model: SentenceTransformer, pixels: Pixels) -> None:
        super().__init__()
        self.model = model
        std = torch.tensor(pixels.std)
        self.register_buffer("scale", pixels.factor / std)
        self.register_buffer("offset", torch.tensor(pixels.mean) / std)

    def forward(self, pictures: Tensor) -> Tensor:
        values = pictures.to(self.model.device).float() * self.scale - self.offset
        values = values.permute(0, 3, 1, 2).contiguous()
        features = self.model.forward({"pixel_values": values, "modality": "image"})
        vectors = features["sentence_embedding"][:, : self.model.truncate_dim]
        return nn.functional.normalize(vectors, dim=1).float().cpu()


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
