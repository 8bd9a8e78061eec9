"""Errors that the user or the operator can correct.

The docstring of a class is its default message. A more specific message names what happened, to
what, and what to do. The command line prints the message and exits with 1, without a traceback.
"""

from __future__ import annotations


class LookalikeError(Exception):
    """Lookalike could not do this."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or " ".join((type(self).__doc__ or "").split()))


class UnsupportedPlatform(LookalikeError):
    """Lookalike runs on Linux and macOS; on Windows use WSL 2 or the containers."""


class BadInput(LookalikeError):
    """The request is invalid; correct it and try again."""


class BadImage(BadInput):
    """This is not a picture that can be read; save it as JPEG, PNG or WebP and try again."""


class UnknownProduct(BadInput):
    """No product of the catalogue has this sku."""


class UnknownPhoto(BadInput):
    """No photo is stored under this id, or it has expired; send the photo again."""


class UnknownKey(BadInput):
    """No key of the HTTP API has this id; `lookalike key list` shows the ids."""


class UnknownPicture(BadInput):
    """No picture of the catalogue has this sha256."""


class BadSource(BadInput):
    """This source of products cannot be read."""


class NoWords(BadInput):
    """The active model reads pictures only, or has no idea of these words; search with a picture,
    a sku or the words of the catalogue."""


class NoRegions(LookalikeError):
    """The model has no feature map, so the regions of a photo cannot be encoded together."""


class Busy(LookalikeError):
    """Too many searches at a time; try again in a moment."""


class DatabaseUnavailable(LookalikeError):
    """PostgreSQL cannot be reached; check LOOKALIKE_DATABASE_URL and that the server runs."""


class LockHeld(DatabaseUnavailable):
    """Another session holds a lock for too long; try again in a moment."""


class ReplicaConflict(DatabaseUnavailable):
    """The replica ended this search because it delayed changes of the primary; try again."""


class DatabaseUnsuitable(LookalikeError):
    """This PostgreSQL cannot hold the catalogue; pgvector 0.8.4 or newer is needed."""


class SchemaMismatch(LookalikeError):
    """The database schema is not the one this version needs; run `lookalike migrate`."""


class NoModel(LookalikeError):
    """No model is recorded in this database; run `lookalike init`."""


class ModelMismatch(LookalikeError):
    """The encoder is not the one that the embeddings of this database were made with."""


class ModelNotMaintained(ModelMismatch):
    """The model is not kept up to date, or is being dropped; see `lookalike model list`."""


class NotReady(LookalikeError):
    """The model is not ready for searches; nothing was changed."""


class UnknownModel(BadInput):
    """No model of that name is recorded."""


class ModelUnavailable(LookalikeError):
    """The model cannot be loaded."""


class BuildRefused(LookalikeError):
    """The index cannot be built from this database as it is."""


class BuildRunning(LookalikeError):
    """Another index build is running; wait for it to finish."""


class IndexUnwritable(LookalikeError):
    """The index file could not be written; nothing was published."""


class IndexUnreadable(LookalikeError):
    """The index file is missing or cannot be read."""


class IndexDamaged(IndexUnreadable):
    """The index file is damaged: it differs from the one that was written."""
