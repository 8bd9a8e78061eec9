"""Local pictures: only files inside the configured folder are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import BadImage, BadSource
from ingest.local_files import LocalPictures

LIMIT = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.png").write_bytes(b"secret")
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "a.png").write_bytes(b"picture")
    return folder


@pytest.fixture
def pictures(folder: Path) -> LocalPictures:
    return LocalPictures(folder, max_bytes=LIMIT)


def reason(pictures: LocalPictures, name: str) -> str:
    with pytest.raises(BadImage) as caught:
        pictures.read(name)
    return str(caught.value)


def test_a_picture_inside_the_folder_is_read(pictures: LocalPictures, folder: Path) -> None:
    for name in ("below/a.png", "./below/../below/a.png", str(folder / "below" / "a.png")):
        assert pictures.read(name) == b"picture"


def test_a_symbolic_link_inside_the_folder_is_followed(
    pictures: LocalPictures, folder: Path
) -> None:
    (folder / "link.png").symlink_to("below/a.png")
    assert pictures.read("link.png") == b"picture"


@pytest.mark.parametrize("name", ["../secret.png", "below/../../secret.png", "/etc/passwd"])
def test_a_path_that_leaves_the_folder_is_refused(pictures: LocalPictures, name: str) -> None:
    assert "lies outside" in reason(pictures, name)


def test_a_sibling_folder_with_the_same_name_prefix_is_outside(
    pictures: LocalPictures, folder: Path
) -> None:
    sibling = folder.with_name("images-private")
    sibling.mkdir()
    (sibling / "a.png").write_bytes(b"secret")
    assert "lies outside" in reason(pictures, "../images-private/a.png")


@pytest.mark.parametrize("target", ["../secret.png", "/etc/passwd"])
def test_a_symbolic_link_to_a_file_outside_is_refused(
    pictures: LocalPictures, folder: Path, target: str
) -> None:
    (folder / "link.png").symlink_to(target)
    assert "lies outside" in reason(pictures, "link.png")


def test_a_symbolic_link_to_a_folder_outside_is_refused(
    pictures: LocalPictures, folder: Path
) -> None:
    (folder / "link").symlink_to("..")
    assert "lies outside" in reason(pictures, "link/secret.png")


def test_the_folder_itself_may_be_a_symbolic_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert LocalPictures(tmp_path / "link", max_bytes=LIMIT).read("below/a.png") == b"picture"


def test_circular_symbolic_links_are_refused(pictures: LocalPictures, folder: Path) -> None:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    assert "'one'" in reason(pictures, "one")


@pytest.mark.parametrize("swapped", ["below/a.png", "below"])
def test_a_symbolic_link_created_while_a_picture_is_opened_is_not_followed(
    pictures: LocalPictures,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    swapped: str,
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(b"secret")
    inside = pictures._inside

    def swap_after(name: str) -> Path:
        path = inside(name)
        (folder / swapped).rename(tmp_path / "moved")
        (folder / swapped).symlink_to(outside if swapped == "below" else outside / "a.png")
        return path

    monkeypatch.setattr(pictures, "_inside", swap_after)
    assert "cannot be read" in reason(pictures, "below/a.png")


def test_a_missing_picture_is_reported(pictures: LocalPictures, folder: Path) -> None:
    assert f"no file 'none.png' in {folder}" in reason(pictures, "none.png")


@pytest.mark.parametrize("name", ["below", ".", "x" * 5000, "a/" * 3000, "a\0b.png"])
def test_a_name_that_is_not_a_file_is_refused(pictures: LocalPictures, name: str) -> None:
    assert reason(pictures, name)


def test_a_web_address_is_refused_with_advice(pictures: LocalPictures) -> None:
    assert "download the picture" in reason(pictures, "https://example.com/a.png")


def test_a_named_pipe_is_refused_without_waiting(pictures: LocalPictures, folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert "is not a file" in reason(pictures, "pipe.png")


def test_a_device_is_refused(pictures: LocalPictures, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    try:
        os.mknod(folder / "zero.png", 0o20666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this machine allows no devices")
    assert "is not a file" in reason(pictures, "zero.png") or reason(pictures, "zero.png")


def test_a_file_over_the_limit_is_refused_without_reading_it(
    pictures: LocalPictures, folder: Path
) -> None:
    with (folder / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    assert "up to 1,000 are read" in reason(pictures, "huge.png")


def test_a_file_of_exactly_the_limit_is_read(pictures: LocalPictures, folder: Path) -> None:
    (folder / "full.png").write_bytes(b"x" * LIMIT)
    assert len(pictures.read("full.png")) == LIMIT


@pytest.fixture
def descriptors() -> Iterator[None]:
    """After the test no more files are open than before."""
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208


@pytest.mark.usefixtures("descriptors")
def test_a_refusal_leaves_no_file_open(pictures: LocalPictures, folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    for name in ("below", "pipe.png", "none.png", "below/a.png/x"):
        assert reason(pictures, name)


@pytest.mark.parametrize("name", ["none", "secret.png"])
def test_a_pictures_folder_that_is_not_a_folder_is_reported(
    folder: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BadSource, match=name):
        LocalPictures(tmp_path / name, max_bytes=LIMIT)


@pytest.mark.parametrize("name", ["loop", "x" * 300])
def test_a_pictures_folder_that_is_a_broken_link_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadSource, match="--images"):
        LocalPictures(tmp_path / name, max_bytes=LIMIT)
