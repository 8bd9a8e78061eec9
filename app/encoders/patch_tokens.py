"""Feature maps of CLIP and SigLIP: the patch tokens of their vision transformers.

CLIP's own vector is that of its class token, which has no place; the patch tokens take its last
two steps instead (layer norm and projection), as Zhou et al. do in "Extract Free Dense Labels from
CLIP" (arXiv:2112.01071). SigLIP's vector is an attention over all patch tokens, which is computed
here over those of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch import Tensor

from app.encoders.feature_map import MAP_SIDE, FeatureMap, map_input_size, window_parts
from app.encoders.preprocessing import Preprocessor, resize
from app.types import Region, Vectors
from app.vectors import unit_rows

MAP_PICTURES = 3
"""A map has at most as many pixels as this many pictures of the network's input size."""


class _Pooling(Protocol):
    """The last steps of a vision transformer."""

    def channels(self, tokens: Tensor) -> Tensor:
        """What is averaged over a window, of each token: (n, hidden) to (n, channels)."""

    def vectors(self, means: Tensor) -> Tensor:
        """Vectors (n, dim) of the averages (n, channels)."""


class PatchTokens:
    """The patch tokens of a vision transformer as a feature map."""

    def __init__(
        self, network: Any, pooling: _Pooling, preprocessor: Preprocessor, dim: int
    ) -> None:
        self._vision = network.vision_model
        self._device, self._dtype = network.device, network.dtype
        self._patch = int(network.config.vision_config.patch_size)
        self._pixels = MAP_PICTURES * int(network.config.vision_config.image_size) ** 2
        self._pooling = pooling
        self._preprocessor = preprocessor
        self._dim = dim

    def encode_map(self, picture: Image.Image, side: int = MAP_SIDE) -> FeatureMap:
        """The map of an RGB picture: float32 (rows, columns, channels); a cell is a patch."""
        width, height = map_input_size(picture.size, self._patch, self._pixels, side)
        pixels = resize(picture, (width, height), self._preprocessor.resample)
        values = torch.from_numpy(self._preprocessor.normalised([pixels]))
        values = values.to(self._device, self._dtype)
        rows, columns = height // self._patch, width // self._patch
        with torch.inference_mode():
            output = self._vision(pixel_values=values, interpolate_pos_encoding=True)
            tokens = output.last_hidden_state[0, -rows * columns :]  # CLIP's class token is first
            channels = self._pooling.channels(tokens).float().cpu().numpy()
        return np.ascontiguousarray(channels.reshape(rows, columns, -1))

    def pool_windows(self, feature_map: FeatureMap, windows: Sequence[Region]) -> Vectors:
        """Unit vectors of windows of a map: float32 (n, dim)."""
        means: NDArray[np.float32] = window_parts(feature_map, windows, parts=1)[:, 0]
        with torch.inference_mode():
            vectors = self._pooling.vectors(torch.from_numpy(means).to(self._device, self._dtype))
        return unit_rows(vectors[:, : self._dim].float().cpu().numpy())


def patch_tokens(
    model: SentenceTransformer, preprocessor: Preprocessor | None, dim: int
) -> PatchTokens | None:
    """The patch tokens of a model whose vectors have `dim` elements; None if it is neither CLIP
    nor SigLIP, ends in other modules, or its input cannot be prepared by our own code."""
    network: Any = getattr(model[0], "model", None)
    others = [type(module).__name__ for module in list(model)[1:]]
    vision = getattr(network, "vision_model", None)
    if preprocessor is None or vision is None or set(others) - {"Normalize"}:
        return None
    pooling: _Pooling
    if hasattr(network, "visual_projection") and hasattr(vision, "post_layernorm"):
        pooling = _Projection(network)
    elif isinstance(getattr(getattr(vision, "head", None), "attention", None), _ATTENTION):
        pooling = _AttentionHead(vision.head)
    else:
        return None
    return PatchTokens(network, pooling, preprocessor, dim)


_ATTENTION = torch.nn.MultiheadAttention


class _Projection:
    """CLIP: tokens are normalised, averaged and projected."""

    def __init__(self, network: Any) -> None:
        self._norm = network.vision_model.post_layernorm
        self._projection = network.visual_projection

    def channels(self, tokens: Tensor) -> Tensor:
        normalised: Tensor = self._norm(tokens)
        return normalised

    def vectors(self, means: Tensor) -> Tensor:
        projected: Tensor = self._projection(means)
        return projected


class _AttentionHead:
    """SigLIP: the head's attention, split into sums over tokens.

    Attention is a weighted mean, with exp(logit) as the weight of a token. Both the sum of the
    weighted values and that of the weights add up over the tokens of a window.
    """

    def __init__(self, head: Any) -> None:
        attention = head.attention
        self._head, self._heads = head, int(attention.num_heads)
        self._out = attention.out_proj
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        query, self._key, self._value = weight.chunk(3)
        query_bias, self._key_bias, self._value_bias = bias.chunk(3)
        self._query = (head.probe[0, 0] @ query.T + query_bias).detach()

    def channels(self, tokens: Tensor) -> Tensor:
        keys = self._split(tokens @ self._key.T + self._key_bias)
        values = self._split(tokens @ self._value.T + self._value_bias)
        query = self._query.reshape(self._heads, -1)
        logits = (keys * query).sum(2) / query.shape[1] ** 0.5
        weights = torch.exp(logits - logits.amax(0))
        return torch.cat([(values * weights[:, :, None]).flatten(1), weights], dim=1)

    def vectors(self, means: Tensor) -> Tensor:
        values, weights = means[:, : -self._heads], means[:, -self._heads :]
        # A window may lie where no token of a head has a weight that float32 can hold.
        pooled = (
            self._split(values) / weights.clamp_min(torch.finfo(weights.dtype).tiny)[:, :, None]
        )
        attended = self._out(pooled.flatten(1))
        return torch.as_tensor(attended + self._head.mlp(self._head.layernorm(attended)))

    def _split(self, rows: Tensor) -> Tensor:
        """Rows (n, hidden) by heads: (n, heads, hidden / heads)."""
        return rows.reshape(len(rows), self._heads, -1)
