"""The settings of a program, in the form in which its workers on other machines get them."""

from __future__ import annotations

from app.config import Settings
from app.errors import BadInput

OF_A_MACHINE = frozenset({"home", "cache_dir", "index_dir", "device", "database_password_file"})
"""Settings that each machine has for itself, by its environment."""


def portable(settings: Settings) -> str:
    """The settings as JSON, with the password of the database, without those of a machine."""
    return settings.model_dump_json(exclude=set(OF_A_MACHINE))


def check_reachable(settings: Settings, address: str) -> None:
    """Raise BadInput if the machines of a cluster cannot reach the database."""
    if settings.database_url is None and address != "local":
        raise BadInput(
            "Other machines cannot reach the embedded database. Name a server with "
            "LOOKALIKE_DATABASE_URL, or run on this machine, at the address local."
        )
