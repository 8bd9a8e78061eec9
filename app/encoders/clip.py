"""The encoder for CLIP and similar models, through sentence-transformers: pictures and texts."""

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
from app.encoders.clip_fingerprint import fingerprint, input_side, own_preprocessor
from app.encoders.clip_loading import LOADING_ERRORS, missing_package, open_model
from app.encoders.compiled_cache import CompileOptions
from app.encoders.compiled_model import (
    CompiledModel,
    Network,
    compile_network,
)
from app.encoders.feature_map import FeatureMap
from app.encoders.patch_tokens import patch_tokens
from app.encoders.preprocessing import PreparedPicture, Preprocessor
from app.errors import ModelUnavailable, NoRegions, NoWords
from app.types import Region, Vectors

_BATCH = 32
_MAX_ASPECT = 8
_UNKNOWN_PREPROCESSING = "only its own processor can prepare its input"
_PROBE = Image.new("RGB", (64, 64), (127, 127, 127))


class ClipEncoder:
    """A sentence-transformers model that encodes pictures, and texts if it has a text network."""

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        name: str,
        revision: str | None,
        compile_options: CompileOptions | None = None,
        int8: bool = False,
    ) -> None:
        """`revision` None: derived from the fingerprint.

        `compile_options` None: torch encodes pictures. `int8`: the picture network is quantized to
        8 bits, which makes another model; texts are encoded in 32 bits. Raises ModelUnavailable
        if the int8 model cannot be built.
        """
        self._model = model
        self._tokenizing = threading.Lock()
        self.name = name + INT8 if int8 else name
        self.reads_words = bool(model.supports("text"))
        self.input_side = input_side(model)
        self._preprocessor = own_preprocessor(model)
        self.dim = self._encode([_PROBE]).shape[1]
        self.fingerprint = fingerprint(model, self.reads_words, self._preprocessor)
        self._tokens = patch_tokens(model, self._preprocessor, self.dim)
        self.maps_regions = self._tokens is not None
        self._compiled = self._compile(compile_options, int8)
        self.runtime = f"torch ({_UNKNOWN_PREPROCESSING})"
        if self._compiled is not None:
            self.runtime = str(self._compiled.state)
            self.fingerprint = self._compiled.fingerprint
        self.revision = revision or self.fingerprint[:12]

    def _compile(self, options: CompileOptions | None, int8: bool) -> CompiledModel | None:
        """None where only the model's own processor can prepare its input."""
        if self._preprocessor is not None:
            module = _PictureNetwork(self._model, self._preprocessor)
            module = module.to(self._model.device).eval()
            if options and not int8 and self._model.device.type != "cpu":
                options = replace(options, off=f"the model runs on {self._model.device.type}")
            network = Network(module, self._preprocessor.shape, self.fingerprint)
            return compile_network(network, options, int8=int8)
        if int8:
            raise ModelUnavailable(f"{self.name} cannot be made: {_UNKNOWN_PREPROCESSING}.")
        return None

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        name: str,
        compile_options: CompileOptions | None = None,
        revision: str | None = None,
        int8: bool = False,
    ) -> ClipEncoder:
        """The model saved in `folder`, from safetensors only and without running its code.

        Raises ModelUnavailable when the folder holds no model, a pickled or a broken one, or one
        that does not encode pictures.
        """
        try:
            model = open_model(folder)
            if model.supports("image"):
                return cls(
                    model, name=name, revision=revision, compile_options=compile_options, int8=int8
                )
        except ImportError as exc:
            raise ModelUnavailable(missing_package(folder, exc)) from exc
        except LOADING_ERRORS as exc:
            raise ModelUnavailable(
                f"The model in {folder} cannot be loaded ({exc}); copy or download it again."
            ) from exc
        raise ModelUnavailable(f"The model in {folder} reads no pictures; take a CLIP model.")

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """RGB pictures of any size to float32 unit rows (n, dim), in order."""
        return self.encode_prepared([self.prepare(picture) for picture in pictures])

    def prepare(self, picture: Image.Image) -> PreparedPicture:
        """An RGB picture as the network's input: uint8 (height, width, 3).

        All have one size, unless only the model's own processor can prepare its input.
        """
        limited = _limit_aspect(picture)
        if self._preprocessor is None:
            return np.array(limited, dtype=np.uint8)
        return self._preprocessor.prepare(limited)

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        """Prepared pictures to float32 unit rows (n, dim), in order."""
        if self._compiled is None:
            return self._encode([Image.fromarray(picture) for picture in prepared])
        rows = [
            self._compiled.run(np.stack(prepared[start : start + _BATCH]))
            for start in range(0, len(prepared), _BATCH)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def encode_map(self, picture: Image.Image) -> FeatureMap:
        """The patch tokens of an RGB picture: float32 (rows, columns, channels); NoRegions where
        the model has none that can be read. torch computes them."""
        if self._tokens is None:
            raise NoRegions
        return self._tokens.encode_map(_limit_aspect(picture))

    def pool_windows(self, feature_map: FeatureMap, windows: Sequence[Region]) -> Vectors:
        """Unit vectors of windows of a map: float32 (n, dim); NoRegions as in `encode_map`."""
        if self._tokens is None:
            raise NoRegions
        return self._tokens.pool_windows(feature_map, windows)

    def encode_words(self, words: Sequence[str]) -> Vectors:
        """Texts to float32 unit rows (n, dim), in order; NoWords without a text network.

        What exceeds the tokenizer's limit (77 tokens for CLIP) is cut off.
        """
        if not self.reads_words:
            raise NoWords
        # As dictionaries, because the library opens or fetches plain strings that could be paths
        # or URLs. Locked, because a fast tokenizer stores its padding in itself and must not be
        # called in parallel.
        with self._tokenizing:
            return self._encode([{"text": text} for text in words])

    def _encode(self, inputs: Sequence[Image.Image | dict[str, str]]) -> Vectors:
        if not inputs:
            return np.empty((0, self.dim), np.float32)
        rows: Vectors = self._model.encode(
            list(inputs), batch_size=_BATCH, show_progress_bar=False, normalize_embeddings=True
        )
        return rows.astype(np.float32, copy=False)


class _PictureNetwork(nn.Module):
    """The model's `encode` of pictures: uint8 (n, height, width, 3) to unit rows."""

    scale: Tensor
    offset: Tensor

    def __init__(self, model: SentenceTransformer, preprocessor: Preprocessor) -> None:
        super().__init__()
        self.model = model
        std = torch.tensor(preprocessor.std)
        self.register_buffer("scale", preprocessor.factor / std)
        self.register_buffer("offset", torch.tensor(preprocessor.mean) / std)

    def forward(self, pictures: Tensor) -> Tensor:
        values = pictures.to(self.model.device).float() * self.scale - self.offset
        values = values.permute(0, 3, 1, 2).contiguous()
        features = self.model.forward({"pixel_values": values, "modality": "image"})
        vectors = features["sentence_embedding"][:, : self.model.truncate_dim]
        return nn.functional.normalize(vectors, dim=1).float().cpu()


def _limit_aspect(picture: Image.Image) -> Image.Image:
    """The picture, or the centre of an extremely long one, with sides of at least 4 pixels.

    The processor resizes the shorter side to its input and crops the centre: 5000 x 1 would become
    a million pixels wide in between. A side of 1 or 3 pixels it interprets as colour channels.
    """
    short = min(picture.size)
    if max(picture.size) > short * _MAX_ASPECT:
        width, height = (min(side, short * _MAX_ASPECT) for side in picture.size)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    if short < 4:
        picture = picture.resize((picture.width * 4, picture.height * 4))
    return picture
