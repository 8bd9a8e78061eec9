"""`app.images.sandbox`: a picture that crashes or hangs its decoder does not affect the next."""

from __future__ import annotations

import gc
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from app.errors import BadImage, Busy, LookalikeError
from app.images.decoding import ImageLimits, decode
from app.images.sandbox import PictureSandbox
from support.paths import REPO as ROOT


def png(width: int = 60, height: int = 40, colour: str = "orange") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG", compress_level=1)
    return file.getvalue()


@cache
def big() -> bytes:
    """A picture that takes a while to decode."""
    return png(7_900, 7_900)


def children(of: int | None = None) -> list[psutil.Process]:
    """The living decoder processes."""
    return [
        child
        for child in psutil.Process(of).children()
        if child.status() != psutil.STATUS_ZOMBIE
        and "app.images.sandbox" in " ".join(child.cmdline())
    ]


def test_a_picture_waits_for_a_decoder_for_a_bounded_time_only() -> None:
    refused: list[bool] = []
    with PictureSandbox(processes=1, wait_s=0.05, refused=lambda: refused.append(True)) as sandbox:
        child = sandbox._slots.get()
        with pytest.raises(Busy, match="this one waited"):
            sandbox.decode(png())
        sandbox._slots.put(child)
        assert sandbox.decode(png()).size == (60, 40)
    assert refused == [True]


@pytest.fixture
def sandbox() -> Iterator[PictureSandbox]:
    with PictureSandbox(processes=1) as sandbox:
        yield sandbox
    assert children() == []


def test_a_picture_equals_the_one_decoded_without_a_sandbox(sandbox: PictureSandbox) -> None:
    file = io.BytesIO()
    Image.radial_gradient("L").resize((900, 700)).convert("RGB").save(file, "JPEG")
    data = file.getvalue()
    for at_least in (None, 224):
        assert sandbox.decode(data, at_least=at_least) == decode(data, at_least=at_least)


def test_a_refusal_has_the_same_reason_as_without_a_sandbox(sandbox: PictureSandbox) -> None:
    for data in (b"", b"%PDF-1.7", png()[:-40], b"\xff\xd8\xff" + bytes(50)):
        with pytest.raises(BadImage) as outside:
            decode(data)
        with pytest.raises(BadImage) as inside:
            sandbox.decode(data)
        assert str(inside.value) == str(outside.value)


def test_one_child_serves_many_pictures(sandbox: PictureSandbox) -> None:
    sandbox.decode(png())
    before = children()
    sandbox.decode(png())
    assert children() == before and len(before) == 1


def test_no_child_is_started_before_it_is_needed() -> None:
    with PictureSandbox():
        assert children() == []


def test_the_limits_hold_in_the_child() -> None:
    with PictureSandbox(ImageLimits(max_pixels=100)) as sandbox:
        with pytest.raises(BadImage, match="megapixels"):
            sandbox.decode(png())
        assert sandbox.decode(png(10, 10)).size == (10, 10)


def test_a_picture_that_takes_too_long_is_refused_and_its_child_killed() -> None:
    with PictureSandbox(timeout_s=0.3, processes=1) as sandbox:
        started = time.monotonic()
        with pytest.raises(BadImage, match=r"longer than 0\.3 s"):
            sandbox.decode(big())
        assert time.monotonic() - started < 60
        assert children() == []
        assert sandbox.decode(png()).size == (60, 40)


def test_a_picture_that_needs_too_much_memory_is_refused() -> None:
    with PictureSandbox(memory_bytes=100_000_000, processes=1) as sandbox:
        with pytest.raises(BadImage, match="too much memory"):
            sandbox.decode(big())
        assert sandbox.decode(png()).size == (60, 40)


def test_the_largest_picture_allowed_fits_in_the_memory_allowed(sandbox: PictureSandbox) -> None:
    assert sandbox.decode(big()).size == (7_900, 7_900)


def test_a_child_killed_while_idle_is_replaced(sandbox: PictureSandbox) -> None:
    sandbox.decode(png())
    for _ in range(5):
        (child,) = children()
        child.send_signal(signal.SIGKILL)  # without waiting: it may still be exiting
        assert sandbox.decode(png()).size == (60, 40)


def test_a_child_that_dies_while_decoding_refuses_the_picture(sandbox: PictureSandbox) -> None:
    sandbox.decode(png())
    (child,) = children()
    with ThreadPoolExecutor(1) as pool:
        decoding = pool.submit(sandbox.decode, big())
        while child.memory_info().rss < 150_000_000:
            time.sleep(0.001)
        child.send_signal(signal.SIGSEGV)
        with pytest.raises(BadImage, match="could not be decoded safely"):
            decoding.result(300)
    assert sandbox.decode(png()).size == (60, 40)


def test_threads_share_a_sandbox_without_mixing_their_pictures() -> None:
    colours = ["red", "lime", "blue", "white", "black", "yellow"] * 8
    with PictureSandbox() as sandbox, ThreadPoolExecutor(6) as pool:
        pictures = list(pool.map(lambda colour: sandbox.decode(png(colour=colour)), colours))
        assert len(children()) <= 2
    for colour, picture in zip(colours, pictures, strict=True):
        assert picture == Image.new("RGB", (60, 40), colour)


def test_a_closed_sandbox_starts_again_when_used() -> None:
    sandbox = PictureSandbox()
    sandbox.decode(png())
    sandbox.close()
    assert children() == []
    assert sandbox.decode(png()).size == (60, 40)
    sandbox.close()


def test_a_garbage_collected_sandbox_leaves_no_child() -> None:
    sandbox = PictureSandbox()
    sandbox.decode(png())
    del sandbox
    gc.collect()
    assert children() == []


def test_the_child_receives_no_secret(
    sandbox: PictureSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", "postgresql://user:secret@server/db")
    sandbox.decode(png())
    (child,) = children()
    assert "LOOKALIKE_DATABASE_URL" not in child.environ()


def test_a_child_that_cannot_start_is_not_reported_as_a_bad_image(
    sandbox: PictureSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(LookalikeError, match="does not start") as caught:
        sandbox.decode(png())
    assert not isinstance(caught.value, BadImage)


def test_the_child_ends_when_its_parent_is_killed() -> None:
    script = (
        "import sys, time\n"
        "from app.images.sandbox import PictureSandbox\n"
        "sandbox = PictureSandbox(); sandbox.decode(sys.stdin.buffer.read())\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        parent.stdin.write(png())
        parent.stdin.close()
        assert parent.stdout.readline() == b"ready\n"
        (child,) = children(parent.pid)
        os.kill(parent.pid, signal.SIGKILL)
        psutil.wait_procs([child], timeout=300)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_every_malformed_file_has_the_same_outcome_in_the_sandbox(
    sandbox: PictureSandbox, test_data: Path
) -> None:
    for path in sorted((test_data / "nasty").iterdir()):
        data = path.read_bytes()
        assert outcome(sandbox.decode, data) == outcome(decode, data), path.name
    assert len(children()) == 1, "no file has killed the child"


def outcome(decoding: object, data: bytes) -> object:
    try:
        return decoding(data)  # type: ignore[operator]
    except BadImage as refused:
        return str(refused)
