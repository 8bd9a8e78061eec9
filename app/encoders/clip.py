"""The encoder for CLIP and similar models, through sentence-transformers: pictures and texts."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from app.encoders.base import AUTO, INT8
from app.encoders.clip_fingerprint import fingerprint, input_side, own_preprocessor
from app.encoders.clip_loading import LOADING_ERRORS, missing_package, open_model
from app.encoders.compiled_cache import CompileOptions
from app.encoders.compiled_model import (
    CompiledModel,
    Network,
    compile_network,
)
from app.encoders.compiled_verification import PROBE_COUNT
from app.encoders.devices import Placement, choose_device, in_batches, moved, place
from app.encoders.feature_map import FeatureMap
from app.encoders.patch_tokens import patch_tokens
from app.encoders.preprocessing import PreparedPicture, Preprocessor
from app.encoders.probe_images import probe_images
from app.errors import ModelUnavailable, NoRegions, NoWords
from app.types import Region, Vectors
from app.vectors import unit_rows

_MAX_ASPECT = 8
_UNKNOWN_PREPROCESSING = "only its own processor can prepare its input"
_PROBE = Image.new("RGB", (64, 64), (127, 127, 127))
_PROBE_TEXTS = ("a red coat", "shoe", "winter jacket with a hood, size 42")


class ClipEncoder:
    """A sentence-transformers model that encodes pictures, and texts if it has a text network."""

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        name: str,
        revision: str | None,
        compile_options: CompileOptions | None = None,
        suffix: str = "",
        device: str = AUTO,
    ) -> None:
        """`model` is on the processor, in 32 bits. `revision` None: derived from the fingerprint.

        `compile_options` None: torch encodes pictures. `suffix` makes another model: with '-int8'
        the picture network is quantized to 8 bits, and texts are encoded in 32; with those of HALF
        both networks compute in 16 bits. Raises ModelUnavailable if that model cannot be made, or
        cannot run on `device`.
        """
        self._model = model
        self._tokenizing = threading.Lock()
        self._place = Placement(choose_device(device), "" if suffix == INT8 else suffix)
        self.batch_size = self._place.batch_size
        self.name = name + suffix
        self.reads_words = bool(model.supports("text"))
        self.input_side = input_side(model)
        self._preprocessor = own_preprocessor(model)
        self.dim = self._encode([_PROBE]).shape[1]
        self.fingerprint = fingerprint(model, self.reads_words, self._preprocessor)
        self._move()
        self._tokens = patch_tokens(model, self._preprocessor, self.dim)
        self.maps_regions = self._tokens is not None
        self._compiled = self._compile(compile_options, int8=suffix == INT8)
        self.runtime = f"torch ({_UNKNOWN_PREPROCESSING})"
        if self._compiled is not None:
            self.runtime = str(self._compiled.state)
            self.fingerprint = self._compiled.fingerprint
        self.revision = revision or self.fingerprint[:12]

    def _move(self) -> None:
        """Move the model to its place; in 16 bits it is another model."""
        if self._place.suffix and self._preprocessor is None:
            raise ModelUnavailable(f"{self.name} cannot be made: {_UNKNOWN_PREPROCESSING}.")
        place(self._model, self._place, self._probes)
        if self._place.suffix:
            identity = f"{self.fingerprint} {self._place.suffix}"
            self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()

    def _probes(self) -> list[Vectors]:
        """The vectors of probe pictures and texts by the model as it is now."""
        vectors = [self.encode_words(_PROBE_TEXTS)] if self.reads_words else []
        if self._preprocessor is None:
            return [self._encode([_PROBE]), *vectors]
        pixels = torch.from_numpy(probe_images(PROBE_COUNT, self._preprocessor.shape))
        with torch.inference_mode():
            return [self._network(self._preprocessor)(pixels).numpy(), *vectors]

    def _network(self, preprocessor: Preprocessor) -> nn.Module:
        return _PictureNetwork(self._model, preprocessor).to(self._model.device).eval()

    def _compile(self, options: CompileOptions | None, *, int8: bool) -> CompiledModel | None:
        """None where only the model's own processor can prepare its input."""
        if self._preprocessor is not None:
            if options and not int8 and not self._place.is_default:
                options = replace(options, off=f"the model runs on {self._place}")
            network = Network(
                self._network(self._preprocessor), self._preprocessor.shape, self.fingerprint
            )
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
        suffix: str = "",
        device: str = AUTO,
    ) -> ClipEncoder:
        """The model saved in `folder`, from safetensors only and without running its code.

        Raises ModelUnavailable when the folder holds no model, a pickled or a broken one, or one
        that does not encode pictures.
        """
        try:
            model = open_model(folder)
            if model.supports("image"):
                return cls(
                    model, name=name, revision=revision, compile_options=compile_options,
                    suffix=suffix, device=device,
                )  # fmt: skip
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
        run = self._compiled.run
        rows = in_batches(lambda batch: run(np.stack(batch)), prepared, self.batch_size)
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
            list(inputs), batch_size=self.batch_size, show_progress_bar=False,
            normalize_embeddings=True,
        )  # fmt: skip
        rows = rows.astype(np.float32, copy=False)
        return unit_rows(rows) if self._place.suffix else rows  # 16 bits round the length too


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
        values = moved(pictures, self.model.device).float() * self.scale - self.offset
        values = values.permute(0, 3, 1, 2).contiguous().to(self.model.dtype)
        features = self.model.forward({"pixel_values": values, "modality": "image"})
        vectors = features["sentence_embedding"][:, : self.model.truncate_dim]
        return nn.functional.normalize(vectors.float(), dim=1).cpu()


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
