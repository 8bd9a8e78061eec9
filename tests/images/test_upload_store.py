"""Uploaded files are kept within one limit, and what stands for them is no file."""

from __future__ import annotations

import pytest

from app.errors import BadImage
from app.images.upload_store import StoredPicture, UploadStore


def test_a_stored_file_is_returned_for_what_stands_for_it() -> None:
    uploads = UploadStore(100)
    stored = uploads.put(b"x" * 40)
    assert len(stored) == 32 and uploads.file(stored) == b"x" * 40
    assert uploads.put(b"x" * 40) == stored and uploads.nbytes == 40
    assert uploads.file(b"y" * 40) == b"y" * 40


def test_an_uploaded_file_cannot_stand_for_another() -> None:
    uploads = UploadStore(100)
    stored = uploads.put(b"secret")
    assert uploads.file(bytes(stored)) == bytes(stored)


def test_the_least_recently_used_files_leave_and_the_reason_is_told() -> None:
    uploads = UploadStore(100)
    first, second = uploads.put(b"1" * 40), uploads.put(b"2" * 40)
    uploads.file(first)
    third = uploads.put(b"3" * 40)
    assert uploads.nbytes == 80
    assert uploads.file(first) == b"1" * 40 and uploads.file(third) == b"3" * 40
    with pytest.raises(BadImage, match="Upload it again"):
        uploads.file(second)
    large = uploads.put(b"4" * 200)
    assert uploads.nbytes == 200 and uploads.file(large), "the last one is always kept"
    with pytest.raises(BadImage, match="no longer kept"):
        uploads.file(StoredPicture(bytes(32)))
