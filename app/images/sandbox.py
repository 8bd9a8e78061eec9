"""Decodes untrusted pictures in child processes with limits on time and memory.

Decoders are C code, and a crafted picture can crash them, hang them or exhaust the memory. Here
this ends a child process, and the picture is refused. The child gets no secret and no connection.
It does not contain a picture that takes over the child: the child runs as the same user, may open
connections, and may read what that user may, on many systems also its parent's environment in
/proc. Where that matters, run the page as a user or in a container with little access.

The child is this module run as a program. It reads requests from stdin and writes answers to
stdout, both in a fixed binary layout: no data from it is ever unpickled or evaluated.
"""

from __future__ import annotations

import os
import queue
import resource
import signal
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from PIL import AvifImagePlugin, Image

from app.errors import BadImage, Busy, LookalikeError
from app.images import decoding
from app.images.decoding import DEFAULT_LIMITS, ImageLimits

_REQUEST = struct.Struct("<QI")  # length of the file, at_least or 0; then the file
_ANSWER = struct.Struct("<cII")  # picture: width, height, then RGB; refused: length, 0, then text
_RECEIVED, _PICTURE, _REFUSED = b"T", b"P", b"R"
_START_S = 60.0
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
_UNSAFE = "The picture could not be decoded safely; save it again as JPEG or PNG and try again."


class PictureSandbox:
    """Decodes pictures in up to `processes` children, started when first needed.

    A child that takes longer than `timeout_s` seconds, or dies, is replaced. A picture waits for a
    child up to `wait_s` seconds; then `refused` is called. `memory_bytes` is the memory for
    decoding, in addition to that of an idle child. May be shared by threads.
    """

    def __init__(
        self,
        limits: ImageLimits = DEFAULT_LIMITS,
        *,
        timeout_s: float = 10.0,
        wait_s: float = 10.0,
        memory_bytes: int = 1 << 30,
        processes: int = 2,
        refused: Callable[[], None] | None = None,
    ) -> None:
        self._limits, self._refused = limits, refused
        self._timeout_s, self._wait_s = timeout_s, wait_s
        numbers = (limits.max_bytes, limits.max_pixels, limits.max_frames, memory_bytes)
        self._arguments = [str(number) for number in (*numbers, int(timeout_s) + 10)]
        # Last in, first out: a second child starts only when two are needed at once.
        self._slots: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(processes):
            self._slots.put(None)
        self._processes = processes
        weakref.finalize(self, _stop_all, self._slots)

    def decode(self, data: bytes, *, at_least: int | None = None) -> Image.Image:
        """As `decoding.decode`; also raises BadImage if decoding crashes or times out, and Busy if
        other pictures take too long."""
        decoding.check_bytes(data, self._limits)
        try:
            child = self._slots.get(timeout=self._wait_s)
        except queue.Empty as exc:
            if self._refused:
                self._refused()
            raise Busy(
                f"Too many pictures at a time: {self._processes} are being opened, and this one "
                f"waited {self._wait_s:g} s for its turn. Try again in a moment."
            ) from exc
        try:
            child = self._send(child, data, at_least or 0)
            return child.receive(self._timeout_s, self._limits)
        finally:
            if child is not None and not child.idle:
                child.stop()
                child = None
            self._slots.put(child)

    def close(self) -> None:
        """Wait for running requests and stop the children."""
        for child in [self._slots.get() for _ in range(self._processes)]:
            if child is not None:
                child.stop()
            self._slots.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, child: _Child | None, data: bytes, at_least: int) -> _Child:
        """Send the file to the child, or to a new one if this one has died; returns that child."""
        if child is not None and child.send(data, at_least):
            return child
        child = _Child(self._arguments)
        if not child.send(data, at_least):
            raise LookalikeError(
                "The process that decodes pictures does not start; for the reason, run "
                f"`{sys.executable} -m app.images.sandbox {' '.join(self._arguments)}`."
            )
        return child


class _Child:
    """One child process; used by one thread at a time."""

    def __init__(self, arguments: list[str]) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        # Each decoder thread would reserve 128 MiB of address space, which counts as memory.
        environment["MALLOC_ARENA_MAX"] = "1"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "app.images.sandbox", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
            env=environment,
            start_new_session=True,  # Ctrl-C goes to the parent only, which then closes the pipe
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        self.idle = True  # stays False if an exception interrupts the reading of an answer

    def send(self, data: bytes, at_least: int) -> bool:
        """Send a file; False if the child died before it read all of it."""
        self.idle = False
        with _time_limit(_START_S, self._process), suppress(BrokenPipeError):
            self._requests.write(_REQUEST.pack(len(data), at_least))
            self._requests.write(data)
            self._requests.flush()
            if self._answers.read(1) == _RECEIVED:
                return True
        self.stop()
        return False

    def receive(self, timeout_s: float, limits: ImageLimits) -> Image.Image:
        with _time_limit(timeout_s, self._process) as timed_out:
            answer = self._read_answer(limits)
        if timed_out.is_set():
            raise BadImage(
                f"The picture took longer than {timeout_s:g} s to open; "
                "make it smaller or save it again as JPEG."
            )
        if answer is None:
            raise BadImage(_UNSAFE)
        self.idle = True
        if isinstance(answer, str):
            raise BadImage(answer)
        return answer

    def _read_answer(self, limits: ImageLimits) -> Image.Image | str | None:
        """The picture, the error text, or None if the child died or its answer is invalid."""
        head = self._answers.read(_ANSWER.size)
        if len(head) < _ANSWER.size:
            return None
        kind, first, second = _ANSWER.unpack(head)
        if kind == _REFUSED and first <= 1000:
            return self._answers.read(first).decode(errors="replace")
        if kind != _PICTURE or not 0 < first * second <= limits.max_pixels:
            return None
        pixels = self._answers.read(first * second * 3)
        if len(pixels) < first * second * 3:
            return None
        return Image.frombytes("RGB", (first, second), pixels)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):  # closing flushes the rest of an unsent file
                pipe.close()


@contextmanager
def _time_limit(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """Kill the process after that time, which ends all reads from it, and set the event."""
    timed_out = threading.Event()

    def kill() -> None:
        timed_out.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield timed_out
    finally:
        timer.cancel()
        timer.join()


def _stop_all(slots: queue.LifoQueue[_Child | None]) -> None:
    with suppress(queue.Empty):
        while True:
            if (child := slots.get_nowait()) is not None:
                child.stop()


def _main(arguments: list[str]) -> None:
    """The child: answer requests until stdin closes, at the latest when the parent ends."""
    max_bytes, max_pixels, max_frames, memory_bytes, alarm_s = (int(text) for text in arguments)
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # libraries may print
    _confine(memory_bytes)
    while head := requests.read(_REQUEST.size):
        length, at_least = _REQUEST.unpack(head)
        data = requests.read(length)
        answers.write(_RECEIVED)
        answers.flush()
        signal.alarm(alarm_s)  # ends a hanging child whose parent is gone
        limits = ImageLimits(max_bytes, max_pixels, max_frames)
        answers.writelines(_answer(data, limits, at_least or None))
        answers.flush()
        signal.alarm(0)


def _answer(data: bytes, limits: ImageLimits, at_least: int | None) -> tuple[bytes, bytes]:
    try:
        picture = decoding.decode(data, limits, at_least=at_least)
    except BadImage as refused:
        reason = str(refused).encode()[:1000]
        return _ANSWER.pack(_REFUSED, len(reason), 0), reason
    return _ANSWER.pack(_PICTURE, *picture.size), picture.tobytes()


def _confine(memory_bytes: int) -> None:
    """Forbid core dumps and files, and limit the memory to the present use plus `memory_bytes`."""
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    AvifImagePlugin.DEFAULT_MAX_THREADS = 2  # each reserves address space, which counts as memory
    if sys.platform == "linux":  # elsewhere the limit cannot be set or differs in meaning
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit_bytes = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


if __name__ == "__main__":
    _main(sys.argv[1:])
