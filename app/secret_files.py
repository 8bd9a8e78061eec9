"""Reads a password from a file, as container engines and systemd hand secrets over."""

from __future__ import annotations

from pathlib import Path

from app.errors import BadInput


def read_secret(path: Path) -> str:
    """The first line of a file, without its line break. Raises BadInput; no message repeats it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise BadInput(
            f"The password file {path} cannot be read: {exc.strerror or exc}. Let the user of "
            "this process read it, or name another file."
        ) from exc
    except UnicodeDecodeError:
        raise BadInput(f"The password file {path} is not text in UTF-8.") from None
    if not lines or not lines[0]:
        raise BadInput(f"The password file {path} is empty. Write the password in its first line.")
    return lines[0]
