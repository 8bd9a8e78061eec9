"""Contract of all encoders: unit vectors in order, alone as in a batch, of pictures or words."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.encoders.base import Encoder
from support.small_clip import DIM
from support.small_encoders import KINDS, mixed, picture

pytestmark = pytest.mark.xdist_group("clip")

CLOSE = 1e-5

_audited: list[str] | None = None


def _audit(event: str, args: tuple[object, ...]) -> None:
    if _audited is not None and event in {"open", "socket.connect", "socket.getaddrinfo"}:
        _audited.append(f"{event} {args[0]!r} {args[1]!r}")


sys.addaudithook(_audit)


@pytest.fixture
def outside() -> Iterator[list[str]]:
    """All files opened and connections tried while the test runs."""
    global _audited
    _audited = seen = []
    yield seen
    _audited = None


# --- the contract, over every encoder ---


def test_vectors_are_float32_rows_of_length_one(encoder: Encoder) -> None:
    vectors = encoder.encode_pictures(mixed(3))
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, encoder.dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=CLOSE)


@pytest.mark.parametrize("count", [2, 17])
def test_a_picture_has_the_same_vector_alone_and_in_a_batch(encoder: Encoder, count: int) -> None:
    pictures = mixed(count)
    alone = np.concatenate([encoder.encode_pictures([one]) for one in pictures])
    assert np.abs(encoder.encode_pictures(pictures) - alone).max() < CLOSE


def test_vectors_come_in_the_order_of_the_pictures(encoder: Encoder) -> None:
    pictures = mixed(5)
    backwards = encoder.encode_pictures(pictures[::-1])
    assert np.allclose(encoder.encode_pictures(pictures), backwards[::-1], atol=CLOSE)
    assert len(np.unique(backwards.round(4), axis=0)) == 5


def test_no_pictures_give_no_rows(encoder: Encoder) -> None:
    vectors = encoder.encode_pictures([])
    assert vectors.shape == (0, encoder.dim)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5000, 1), (1, 5000), (3, 700), (4000, 3000)])
def test_pictures_of_every_size_have_a_vector(encoder: Encoder, size: tuple[int, int]) -> None:
    vector = encoder.encode_pictures([Image.new("RGB", size, (200, 30, 90))])
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=CLOSE)


@pytest.mark.parametrize(
    "encoder", [kind for kind in KINDS if kind != "SigLIP 2 NaFlex"], indirect=True
)
def test_a_picture_shrunk_to_the_input_side_keeps_its_vector(encoder: Encoder) -> None:
    assert encoder.input_side is not None
    large = picture(40, 30).resize((8 * encoder.input_side, 6 * encoder.input_side))
    small = large.resize((encoder.input_side * 4 // 3, encoder.input_side), Image.Resampling.BOX)
    first, second = encoder.encode_pictures([large, small])
    assert first @ second > 0.995


def test_several_threads_get_the_vectors_of_one_thread(encoder: Encoder) -> None:
    pictures = mixed(4)
    expected = encoder.encode_pictures(pictures)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(encoder.encode_pictures, [pictures] * 8))
    assert all(np.abs(vectors - expected).max() < CLOSE for vectors in results)


def test_encoding_touches_neither_network_nor_files(encoder: Encoder, outside: list[str]) -> None:
    encoder.encode_pictures(mixed(2))
    assert outside == []


def test_a_fingerprint_is_a_sha256(encoder: Encoder) -> None:
    assert len(bytes.fromhex(encoder.fingerprint)) == 32


# --- words ---


def test_a_text_has_the_same_vector_alone_and_in_a_batch(clip: Encoder) -> None:
    words = ["red coat", "x" * 5000, "", "a longer text about a coat, size 42", "été 靴"]
    vectors = clip.encode_words(words)
    alone = np.concatenate([clip.encode_words([text]) for text in words])
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=CLOSE)
    assert np.abs(vectors - alone).max() < CLOSE
    assert clip.encode_words([]).shape == (0, DIM)


def test_texts_that_look_like_paths_and_urls_are_not_opened(
    clip: Encoder, outside: list[str], tmp_path: Path
) -> None:
    picture(9, 9).save(tmp_path / "photo.png")
    outside.clear()
    words = ["/etc/passwd", str(tmp_path / "photo.png"), "http://127.0.0.1:9/photo.png"]
    vectors = clip.encode_words([*words, "data:image/png;base64,AAAA"])
    assert outside == []
    assert len(np.unique(vectors.round(4), axis=0)) == 4


def test_several_threads_may_encode_texts_at_once(clip: Encoder) -> None:
    batches = [["coat"], ["a very long red winter coat", "hat"], ["x" * 500]] * 8
    expected = [clip.encode_words(words) for words in batches]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(clip.encode_words, batches))
    assert all(np.allclose(a, b, atol=CLOSE) for a, b in zip(results, expected, strict=True))


def test_the_embedded_encoder_reads_words_and_says_which_it_has_no_idea_of(
    embedded: Encoder,
) -> None:
    assert embedded.reads_words
    coat, unknown = embedded.encode_words(["coat", "zlorp"])
    assert np.linalg.norm(coat) == pytest.approx(1, abs=1e-5) and not unknown.any()
    assert embedded.encode_words([]).shape == (0, embedded.dim)


def test_encoding_pictures_equals_encoding_prepared_ones(encoder: Encoder) -> None:
    photos = mixed(9)
    prepared = [encoder.prepare(photo) for photo in photos]
    assert np.array_equal(encoder.encode_prepared(prepared), encoder.encode_pictures(photos))
