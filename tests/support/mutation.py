"""Byte-level mutation of files: flips, cuts, splices, repetitions and boundary values."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MAX_EDITS = 4
HEADER_BYTES = 200
"""Most of the decisions of a decoder are taken here, so half of the edits are."""

BOUNDARIES = (
    b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\0\0\0\1", b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"-1", b"9" * 30, b"\xed\xa0\x80", b"\r\n", b'"',
)  # fmt: skip
"""Values at which readers of numbers and texts go wrong."""


def mutated(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """One to MAX_EDITS edits of a file; splices come from `other`."""
    for _ in range(dice.randint(1, MAX_EDITS)):
        data = dice.choice(EDITS)(data, other, dice)
    return data


def _place(data: bytes, dice: random.Random) -> int:
    end = min(len(data), HEADER_BYTES) if dice.random() < 0.5 else len(data)
    return dice.randrange(end) if end else 0


def _piece(data: bytes, dice: random.Random) -> bytes:
    at = _place(data, dice)
    return data[at : at + dice.choice((1, 2, 4, 16, 256, 4096))]


def _flip(data: bytes, _other: bytes, dice: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        changed[_place(data, dice)] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _truncate(data: bytes, _other: bytes, dice: random.Random) -> bytes:
    return data[: _place(data, dice)]


def _overwrite(data: bytes, _other: bytes, dice: random.Random) -> bytes:
    at, value = _place(data, dice), dice.choice(BOUNDARIES)
    return data[:at] + value + data[at + len(value) :]


def _insert(data: bytes, _other: bytes, dice: random.Random) -> bytes:
    at = _place(data, dice)
    return data[:at] + dice.choice(BOUNDARIES) + data[at:]


def _repeat(data: bytes, _other: bytes, dice: random.Random) -> bytes:
    at = _place(data, dice)
    return data[:at] + _piece(data, dice) * dice.randint(1, 20) + data[at:]


def _remove(data: bytes, _other: bytes, dice: random.Random) -> bytes:
    at = _place(data, dice)
    return data[:at] + data[at + len(_piece(data, dice)) :]


def _splice(data: bytes, other: bytes, dice: random.Random) -> bytes:
    at = _place(data, dice)
    return data[:at] + other[_place(other, dice) :]


def _graft(data: bytes, other: bytes, dice: random.Random) -> bytes:
    at, piece = _place(data, dice), _piece(other, dice)
    return data[:at] + piece + data[at + len(piece) :]


EDITS: Sequence[Callable[[bytes, bytes, random.Random], bytes]] = (
    _flip, _truncate, _overwrite, _insert, _repeat, _remove, _splice, _graft,
)  # fmt: skip
