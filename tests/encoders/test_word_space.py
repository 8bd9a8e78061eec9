"""The text side of the embedded encoder: what it reads, what it says it cannot, and its file."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.encoders import colour_words, word_space
from app.encoders.word_fit import names
from app.encoders.word_fit.__main__ import PARAMETERS
from app.encoders.word_space import FILES, MIN_CONFIDENCE, GramIndex, WordSpace
from app.images.basic_colours import NAMES as NAMES_OF_COLOURS
from app.search.confidence import SHIPPED
from app.types import Model

RED, DRESS, POLO, BIRD = np.eye(4)
NAMES = ("red", "dress", "polo shirt", "albatross")


@pytest.fixture(scope="module")
def space() -> WordSpace:
    """Four names with a direction each; the last is trusted half."""
    rows, trust = np.arange(4), np.array([1.0, 1.0, 1.0, 0.5])
    directions = np.stack([2 * RED, DRESS, POLO, BIRD])
    return WordSpace(directions, NAMES, rows, trust, GramIndex.of(NAMES), {"made_by": "a test"})


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize(
    ("text", "direction"),
    [
        ("dress", DRESS),
        ("red dress", 2 * RED + DRESS),
        ("Dresses in RED", 2 * RED + DRESS),
        ("a polo-shirt for men", POLO),
        ("dress -red", DRESS - 2 * RED),
        ('dress -"polo shirt"', DRESS - POLO),
        ("albatros", BIRD),
        ("r\u00e9d", RED),
    ],
)
def test_a_text_is_the_sum_of_the_names_in_it(
    space: WordSpace, text: str, direction: np.ndarray
) -> None:
    assert np.allclose(space.encode([text])[0], unit(direction), atol=1e-6)


@pytest.mark.parametrize("text", ["", "zlorp", "polo", "zlorp fnord dress", "-red", "x" * 500])
def test_a_text_of_which_too_little_is_known_has_no_vector(space: WordSpace, text: str) -> None:
    assert not space.encode([text]).any()
    assert space.read(text).confidence < MIN_CONFIDENCE


def test_the_confidence_is_the_share_of_the_words_that_are_known(space: WordSpace) -> None:
    assert space.read("red dress").confidence == 1.0
    reading = space.read("the red zlorp")
    assert reading.confidence == 0.5 and reading.unknown == ("zlorp",)
    assert space.read("albatross dress").confidence == pytest.approx(0.75)


def test_texts_are_encoded_in_order_and_none_gives_no_rows(space: WordSpace) -> None:
    both = space.encode(["red", "dress"])
    assert np.allclose(both, [RED, DRESS], atol=1e-6) and both.dtype == np.float32
    assert space.encode([]).shape == (0, 4)


def test_a_saved_file_reads_the_same_and_is_the_same_each_time(
    space: WordSpace, tmp_path: Path
) -> None:
    files = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for file in files:
        space.save(file)
    assert files[0].read_bytes() == files[1].read_bytes()
    loaded = WordSpace.load(files[0])
    texts = ["red dress", "albatros", "zlorp"]
    assert np.allclose(loaded.encode(texts), space.encode(texts), atol=1e-3)
    assert loaded.provenance == {"made_by": "a test"}


def test_the_shipped_file_is_made_for_the_pictures_of_version_2() -> None:
    shipped = word_space.word_space("2")
    assert shipped.provenance["fingerprint"] in SHIPPED
    assert shipped.dim == 512 and FILES["2"].stat().st_size < 20_000_000
    assert {"sources", "date", "seed"} <= shipped.provenance.keys()


@pytest.mark.parametrize(
    "text", ["red dress", "striped t-shirt", "navy blue jeans", "leather handbag", "bananas"]
)
def test_the_shipped_file_knows_common_goods(text: str) -> None:
    assert word_space.word_space("2").read(text).confidence == 1.0


@pytest.mark.parametrize(
    ("name", "other"),
    # Senses that WordNet or a colour puts first, and the class or the fruit that is called so;
    # kinds with photos of their own.
    [("tub", "bathtub"), ("oranges", "orange"), ("peaches", "peach"), ("kiwi", "avocado")],
)
def test_the_shipped_file_means_by_a_name_what_the_network_was_taught_under_it(
    name: str, other: str
) -> None:
    both = word_space.word_space("2").encode([name, other])
    assert both[0] @ both[1] < 0.9


def test_the_shipped_file_was_made_with_the_parameters_of_the_script() -> None:
    assert word_space.word_space("2").provenance["parameters"] == PARAMETERS


@pytest.mark.parametrize("text", ["zlorp", "DEMO-0007", "qwrtz 12"])
def test_the_shipped_file_has_no_idea_of_what_is_no_word(text: str) -> None:
    assert not word_space.word_space("2").encode([text]).any()


def test_only_the_version_it_was_made_for_has_a_text_side() -> None:
    model = Model(1, "embedded", "2-abc", 512, "f")
    shipped = word_space.word_space("2")
    assert word_space.of_model(model) is shipped
    assert word_space.of_model(replace(model, name="embedded-int8")) is shipped
    assert word_space.of_model(replace(model, revision="1-abc")) is None
    assert word_space.of_model(replace(model, name="clip-ViT-B-32")) is None
    assert word_space.of_model(replace(model, dim=49)) is None


def test_reading_words_loads_no_network_library() -> None:
    code = (
        "import sys; from app.encoders.word_space import word_space; "
        "assert word_space('2').encode(['red dress']).any(); "
        "print(sorted({'torch', 'openvino', 'faiss', 'PIL'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_colours_of_the_fit_are_those_that_pixels_are_ranked_by() -> None:
    lines = read_lexicon_of_looks()
    assert len(lines) > 60
    for name, mixture in lines.items():
        assert colour_words.MIXTURES[name] == mixture, name


def read_lexicon_of_looks() -> dict[str, tuple[tuple[str, float], ...]]:
    """Names of the lexicon that are mixtures of colours alone."""
    found = {}
    for line in names.LEXICON.read_text(encoding="utf-8").splitlines():
        written, _, mixture = line.partition(":")
        parts = [part.strip().partition("*") for part in mixture.split("+")]
        if all(part[0].removeprefix("#") in NAMES_OF_COLOURS for part in parts):
            weights = tuple((each[0][1:], float(each[2] or 1)) for each in parts)
            found |= {name.strip(): weights for name in written.split(",")}
    return found


@pytest.mark.parametrize(
    ("text", "colours"),
    [
        ("red dress", {"red": 1}),
        ("rotes Kleid", {"red": 1}),
        ("light green trousers", {"green": 1}),
        ("red and navy blue shirt", {"red": 1, "navy": 1}),
        ("dress -red", {"red": -1}),
        ("oranges", {}),
        ("beiges Hemd, silberne Knöpfe", {"beige": 1, "grey": 1}),
        ("türkises Kleid", {"teal": 1}),
        # Plurals, and words that are spelt like a colour, are other things.
        ("roses", {}),
        ("olives", {}),
        ("brownies", {}),
        ("Nudeln", {}),
        ("Orangensaft", {}),
        ("greek yogurt", {}),
        ("dress -roses", {}),
        ("striped dress", {}),
        ("zlorp fnord red", {}),
    ],
)
def test_the_colours_that_a_text_names(text: str, colours: dict[str, int]) -> None:
    rows, others = word_space.colours_asked(text)
    assert not len(rows) or not {"red", "rotes", "navy"} & set(others.split())
    named = {NAMES_OF_COLOURS[int(abs(row).argmax())]: round(float(row.sum())) for row in rows}
    assert named == colours
