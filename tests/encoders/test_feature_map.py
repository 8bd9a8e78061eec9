"""Feature maps: means of windows, and the vectors that encoders pool from their map."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.encoders.base import Encoder
from app.encoders.efficientnet import SIDE, EmbeddedEncoder
from app.encoders.feature_map import map_input_size, window_parts
from app.encoders.loading import load_encoder
from app.encoders.preprocessing import Preprocessor
from app.search.windows import window_grid
from support.small_clip import save_small_clip

pytestmark = pytest.mark.xdist_group("clip")

CLOSE = 1e-4
"""Largest difference of an element of a unit vector: float32 sums in another order."""

WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def embedded() -> EmbeddedEncoder:
    return EmbeddedEncoder.load()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load_encoder(str(save_small_clip(tmp_path_factory.mktemp("models") / "small-clip")))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Large blocks of random colours, which look the same at every size of the input."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


@pytest.mark.parametrize(
    ("size", "pixels", "expected"),
    [
        ((400, 400), 10**6, (384, 384)),
        ((400, 300), 10**6, (512, 384)),
        ((30, 40), 10**6, (384, 512)),
        ((5000, 100), 10**6, (768, 384)),
        ((400, 400), 2 * 288**2, (384, 384)),
        ((400, 300), 2 * 288**2, (448, 352)),
        ((30, 40), 2 * 288**2, (352, 448)),
        ((5000, 100), 2 * 288**2, (576, 288)),
    ],
)
def test_the_shorter_side_is_384_unless_the_map_would_cost_more_than_allowed(
    size: tuple[int, int], pixels: int, expected: tuple[int, int]
) -> None:
    assert map_input_size(size, 32, pixels) == expected


@given(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), st.integers(100_000, 400_000))
def test_a_map_has_at_most_the_pixels_allowed_and_nearly_the_ratio(
    size: tuple[int, int], pixels: int
) -> None:
    width, height = map_input_size(size, 32, pixels)
    assert width * height <= pixels and width % 32 == height % 32 == 0
    ratio = min(max(size) / min(size), 2)
    assert max(width, height) / min(width, height) == pytest.approx(ratio, rel=0.15)


edge = st.integers(0, 40)


@given(left=edge, right=edge, top=edge, bottom=edge, parts=st.integers(1, 3))
def test_the_mean_of_a_window_counts_cells_by_the_share_it_covers(
    left: int, right: int, top: int, bottom: int, parts: int
) -> None:
    if left >= right or top >= bottom:
        return
    features = np.random.default_rng(1).random((5, 8, 3), dtype=np.float32)
    # Each cell as 24 x 15 equal pixels: windows and their strips begin and end between pixels.
    fine = features.astype(np.float64).repeat(24, axis=0).repeat(15, axis=1)
    window = (left / 40, top / 40, right / 40, bottom / 40)
    [means] = window_parts(features, [window], parts)
    rows = np.linspace(top * 3, bottom * 3, parts + 1)
    for number, mean in enumerate(means):
        if rows[number] == int(rows[number]) and rows[number + 1] == int(rows[number + 1]):
            strip = fine[int(rows[number]) : int(rows[number + 1]), left * 3 : right * 3]
            assert np.abs(mean - strip.mean((0, 1))).max() < 1e-5


def test_the_whole_map_at_the_size_of_the_input_pools_to_the_encoders_own_vector(
    embedded: EmbeddedEncoder,
) -> None:
    picture = noise(300, 300)
    [pooled] = embedded.pool_windows(embedded.encode_map(picture, SIDE), [WHOLE])
    [own] = embedded.encode_pictures([picture])
    assert np.abs(pooled - own).max() < CLOSE


def test_windows_pool_to_unit_vectors_in_order_and_the_map_keeps_the_ratio(
    embedded: EmbeddedEncoder,
) -> None:
    feature_map = embedded.encode_map(noise(400, 300))
    assert feature_map.shape == (12, 16, 1280) and feature_map.dtype == np.float32
    windows = [(0.0, 0.0, 0.5, 0.5), (0.5, 0.25, 1.0, 1.0), WHOLE]
    vectors = embedded.pool_windows(feature_map, windows)
    assert vectors.shape == (3, 512) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    again = [embedded.pool_windows(feature_map, [window])[0] for window in windows]
    assert np.abs(vectors - np.stack(again)).max() < CLOSE


def test_clip_pools_its_patch_tokens_to_unit_vectors(clip: Encoder) -> None:
    assert clip.maps_regions
    feature_map = clip.encode_map(noise(80, 60))
    assert feature_map.shape == (6, 8, 32), "three times the pixels of its input, 8 in a patch"
    vectors = clip.pool_windows(feature_map, [WHOLE, (0.1, 0.1, 0.4, 0.9)])
    assert vectors.shape == (2, clip.dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_siglips_whole_map_at_the_size_of_the_input_pools_to_its_own_vector() -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    from app.encoders.patch_tokens import patch_tokens

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    torch.manual_seed(0)
    network = SiglipVisionModel(
        SiglipVisionConfig(**shape, num_attention_heads=2, image_size=32, patch_size=8)
    ).eval()
    whole = SimpleNamespace(
        vision_model=network.vision_model if hasattr(network, "vision_model") else network,
        device=network.device,
        dtype=network.dtype,
        config=SimpleNamespace(vision_config=network.config),
    )
    half = (0.5, 0.5, 0.5)
    preprocessor = Preprocessor(None, (32, 32), Image.Resampling.BICUBIC, 1 / 255, half, half)
    tokens = patch_tokens([SimpleNamespace(model=whole)], preprocessor, 32)  # type: ignore[arg-type]
    assert tokens is not None
    picture = noise(32, 32)
    [pooled] = tokens.pool_windows(tokens.encode_map(picture, side=32), [WHOLE])
    pixels = torch.from_numpy(preprocessor.normalised([preprocessor.prepare(picture)]))
    with torch.inference_mode():
        own = network(pixel_values=pixels).pooler_output[0]
    assert np.abs(pooled - torch.nn.functional.normalize(own, dim=0).numpy()).max() < CLOSE


def test_no_windows_have_no_means() -> None:
    assert window_parts(np.zeros((3, 4, 5), np.float32), [], 2).shape == (0, 2, 5)


class Recorded(np.ndarray):
    """An array that records the shapes of each product it takes part in, and of its results."""

    products: ClassVar[list[tuple[int, int, int]]] = []

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(each) for each in inputs]
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc is not np.matmul:
            return result
        self.products.append((plain[0].shape[-2], *plain[1].shape[-2:]))
        return result.view(Recorded)


@pytest.mark.parametrize(("shape", "parts"), [((12, 16, 4560), 2), ((24, 32, 768), 1)])
def test_the_products_of_a_photos_windows_are_small_enough_for_one_thread(
    shape: tuple[int, int, int], parts: int
) -> None:
    Recorded.products.clear()
    features = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    windows = window_grid((640, 480))
    means = window_parts(features.view(Recorded), windows, parts)
    assert len(Recorded.products) > 2
    assert all(rows >= 2 and rows * inner * own <= 2**18 for rows, inner, own in Recorded.products)
    for window, found in zip(windows[::40], means[::40], strict=True):
        [alone] = window_parts(features, [window], parts)
        np.testing.assert_allclose(found, alone, atol=1e-6)
