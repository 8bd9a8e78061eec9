"""Heat maps: the part that two pictures share is the hottest, and matches are drawn as PNG."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from app.bootstrap import App
from app.cli import cli
from app.encoders.base import EMBEDDED, Encoder
from app.encoders.loading import load_encoder
from app.encoders.quantization import calibration_pictures
from app.errors import BadImage, BadInput, NoRegions, NotReady, UnknownProduct
from app.search.heat_map import HeatedPicture, heat_maps
from support.colours import ColourEncoder, photo
from support.shop import add, numbered
from support.small_clip import save_small_clip, without_messages
from support.small_dual_encoders import save_siglip2

pytestmark = pytest.mark.xdist_group("clip")  # one process imports the libraries of models

SIDE, PART = 240, 80
PLACES = ((0, 40), (120, 160))
"""Where the shared part is in the first picture and in the second, in pixels."""


def blocks(seed: int, side: int, count: int, low: int, high: int) -> Image.Image:
    numbers = np.random.default_rng(seed).integers(low, high, (count, count, 3), dtype=np.uint8)
    return Image.fromarray(numbers).resize((side, side), Image.Resampling.NEAREST)


def planted(seed: int, place: tuple[int, int], part: Image.Image) -> Image.Image:
    """A pale background of its own, with a part of another picture."""
    picture = blocks(seed, SIDE, 6, 150, 220)
    picture.paste(part, place)
    return picture


def shared_part(encoder: Encoder, number: int) -> Image.Image:
    """A drawn product for a trained network, and strong colours for one with drawn weights."""
    if encoder.name != EMBEDDED:
        return blocks(99, PART, 8, 0, 256)
    product = Image.fromarray(calibration_pictures((224, 224))[number])
    return product.crop((32, 32, 192, 192)).resize((PART, PART))


def shares(heat: np.ndarray, place: tuple[int, int]) -> tuple[bool, float]:
    """Whether the hottest cell lies in the shared part, and the part's share of the heat."""
    rows, columns = heat.shape
    down, across = (
        (np.arange(rows) + 0.5) / rows * SIDE,
        (np.arange(columns) + 0.5) / columns * SIDE,
    )
    inside = ((down >= place[1]) & (down < place[1] + PART))[:, None] & (
        (across >= place[0]) & (across < place[0] + PART)
    )
    return bool(inside.flat[heat.argmax()]), float(heat[inside].sum() / heat.sum())


def save_local(save: Callable[[Path], Path], folder: Path) -> Path:
    """A small model whose tokens depend on their own patch alone: drawn weights mix the patches of
    a picture and their places, where trained ones keep what a patch shows."""
    with without_messages():
        save(folder)
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.startswith("vision_model.embeddings.position") or (
            name.startswith("vision_model.encoder") and "out_proj" in name
        ):
            weights[name].zero_()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module", params=["embedded", "clip", "siglip"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    if request.param == "embedded":
        return load_encoder(EMBEDDED)
    save = save_small_clip if request.param == "clip" else save_siglip2
    folder = save_local(save, tmp_path_factory.mktemp("models") / request.param)
    return load_encoder(str(folder), compiled=False)


@pytest.mark.parametrize(("number", "seeds"), [(7, (1, 2)), (21, (3, 4))])
def test_the_part_that_two_pictures_share_is_the_hottest(
    encoder: Encoder, number: int, seeds: tuple[int, int]
) -> None:
    part = shared_part(encoder, number)
    pictures = [planted(seed, place, part) for seed, place in zip(seeds, PLACES, strict=True)]
    heats = heat_maps(encoder, *pictures)
    for heat, place in zip(heats, PLACES, strict=True):
        assert heat.dtype == np.float32
        assert heat.min() == 0 and heat.max() <= 1
        hottest_inside, share = shares(heat, place)
        assert hottest_inside
        assert share > 0.4, "of the heat, on a ninth of the picture"
    assert max(heat.max() for heat in heats) == 1, "both pictures have one scale"


def test_two_pictures_of_one_colour_have_no_heat_and_no_error(encoder: Encoder) -> None:
    grey = Image.new("RGB", (60, 40), (127, 127, 127))
    for heat in heat_maps(encoder, grey, grey):
        assert np.isfinite(heat).all()


def test_a_model_without_a_feature_map_is_an_error() -> None:
    with pytest.raises(NoRegions):
        heat_maps(ColourEncoder(), blocks(1, SIDE, 6, 0, 256), blocks(2, SIDE, 6, 0, 256))


def test_hot_parts_are_coloured_and_cold_ones_stay_grey() -> None:
    heat = np.array([[0, 0], [0, 1]], np.float32)
    drawn = np.asarray(HeatedPicture(Image.new("RGB", (40, 20), (90, 120, 150)), heat).drawn())
    assert drawn.shape == (240, 480, 3)
    assert np.ptp(drawn[0, 0].astype(int)) <= 2, "grey"
    red, _, blue = drawn[-1, -1].astype(int)
    assert red > blue + 60, "hot"


# --- through the service and the command ---


@pytest.fixture(scope="module")
def local_siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_local(save_siglip2, tmp_path_factory.mktemp("models") / "siglip")


@pytest.fixture
def mapped(
    new_database: Callable[[str | None], str],
    local_siglip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[App]:
    """A catalogue under a small SigLIP, which commands use too."""
    values = {"HOME": tmp_path, "DATABASE_URL": new_database(None), "MODEL": local_siglip}
    for name, value in (values | {"OPENVINO": "false"}).items():
        monkeypatch.setenv(f"LOOKALIKE_{name}", str(value))
    with App() as app:
        app.initialise()
        add(app, numbered(4) | {"TWO": [50, 3], "NONE": []})
        yield app


def test_the_most_similar_picture_of_a_product_is_explained(mapped: App) -> None:
    match = mapped.explainer.explain(photo(3), "TWO")
    assert match.similarity == pytest.approx(1, abs=1e-3)
    assert match.photo.heat.shape == match.product.heat.shape == (6, 6)
    assert np.abs(match.photo.heat - match.product.heat).max() < 0.3
    drawn = Image.open(BytesIO(match.png()))
    assert drawn.format == "PNG" and drawn.size == (972, 480)


def test_a_region_is_explained_alone(mapped: App) -> None:
    whole = mapped.explainer.explain(photo(3), "P0003")
    part = mapped.explainer.explain(photo(3), "P0003", region=(0, 0, 0.5, 0.5))
    assert part.photo.picture.width == whole.photo.picture.width // 2
    assert part.similarity < whole.similarity


def test_what_cannot_be_explained_is_named(mapped: App) -> None:
    explain = mapped.explainer.explain
    with pytest.raises(UnknownProduct, match="'NO'"):
        explain(photo(1), "NO")
    with pytest.raises(BadImage):
        explain(b"no picture", "P0001")
    with pytest.raises(BadInput, match="left below right"):
        explain(photo(1), "P0001", region=(0.5, 0, 0.2, 1))
    with pytest.raises(NotReady, match=r"No picture of NONE .*lookalike model embed"):
        explain(photo(1), "NONE")


def test_the_command_writes_a_png_and_prints_the_heat(mapped: App, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(photo(3))
    output = tmp_path / "heat.png"
    arguments = ["explain", str(tmp_path / "photo.png"), "P0003", "--json", "--output", str(output)]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    with Image.open(output) as drawn:
        assert (result.exit_code, drawn.format) == (0, "PNG")
    printed = json.loads(result.stdout)
    assert printed["similarity"] == pytest.approx(1, abs=1e-3)
    assert np.array(printed["photo"]).shape == np.array(printed["product"]).shape == (6, 6)


def test_a_file_that_cannot_be_written_is_named(mapped: App, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(photo(3))
    arguments = ["explain", str(tmp_path / "photo.png"), "P0003", "--output", "/no/folder/x.png"]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, BadInput)
    assert "name another file" in str(result.exception)
