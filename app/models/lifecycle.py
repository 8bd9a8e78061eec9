"""Adds, activates and drops the models of a catalogue while searches go on.

New pictures get an embedding under every maintained model; `backfill` embeds the existing ones.
Activating a model is a single transaction that blocks writers, so that no picture can be committed
without its embedding after coverage was checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from app.db import locks, notifications, timeouts
from app.db.engine import check_schema
from app.db.locks import LockKey
from app.db.queries import database_info, index_builds, model_projections, models, partitions
from app.db.text import check_text
from app.encoders.base import AUTO, EMBEDDED, EncoderChoice, split_variant
from app.encoders.presets import full_name
from app.encoders.projected_encoder import Matrix, checked, fingerprint
from app.errors import BadInput, DatabaseUnsuitable, NotReady
from app.index.file_store import IndexFiles
from app.models import removal
from app.types import Model

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ModelChange:
    """The active model before and after, and the recorded reason if the change was forced."""

    former: Model | None
    active: Model
    forced_reason: str | None = None


class Lifecycle:
    """Adds, activates and drops models. `choose` loads an encoder, like `choose_encoder`."""

    def __init__(
        self, engine: Engine, files: IndexFiles, choose: Callable[..., EncoderChoice]
    ) -> None:
        self._engine = engine
        self._files = files
        self._choose = choose

    def models(self) -> list[models.ModelStatus]:
        """All models with their coverage, the active one first."""
        with self._engine.connect() as connection:
            check_schema(connection)
            return models.statuses(connection)

    def model(self, name: str) -> Model:
        """The model of this name. Raises UnknownModel."""
        with self._engine.connect() as connection:
            check_schema(connection)
            return models.resolve(connection, full_name(name))

    def active(self) -> Model:
        """The model that searches use. Raises NoModel."""
        with self._engine.connect() as connection:
            check_schema(connection)
            return models.require_active(connection)

    def check_new_fit(self, name: str) -> None:
        """Refuse at once what `add_fitted` would refuse after a fit of minutes.

        Raises BadInput for a name that is taken or could be taken for another model's, NotReady on
        a replica, and DatabaseUnsuitable for a role that does not own the tables.
        """
        with self._engine.connect() as connection:
            check_schema(connection)
            _check_primary(connection)
            if not partitions.is_owner(connection):
                raise DatabaseUnsuitable(
                    "Only the role that migrates may add a model, for it owns the tables."
                )
            _check_new_name(connection, name)

    def add(self, name: str, revision: str | None = None) -> Model:
        """Record a model as maintained: new pictures get an embedding under it from now on.

        `name` is a preset, a hub name, a folder or 'embedded'. Adding it again changes nothing.
        Raises ModelUnavailable, and NoModel before `lookalike init`.
        """
        with self._engine.connect() as connection:
            check_schema(connection)
            _check_primary(connection)
            models.require_active(connection)
        encoder = self._choose(name, revision=revision).encoder
        with self._writing() as connection:
            model = models.register(
                connection, encoder.name, encoder.revision, encoder.dim, encoder.fingerprint
            )
            removal.check_not_dropping(connection, model)
            models.maintain(connection, model.id, full_name(name))
        return model

    def add_fitted(
        self, name: str, base: Model, weights: Matrix, provenance: Mapping[str, Any]
    ) -> Model:
        """Record a model that is `base` followed by a map, as maintained.

        `weights` (dim, dim) multiply rows from the right; `provenance` says what they were fitted
        from. Where `base` was fitted itself, the new model follows the same one as it does, by
        both maps. Raises BadInput as `check_new_fit`, and where another model has the same map.
        """
        with self._writing() as connection:
            _check_new_name(connection, name)
            if (fitted := model_projections.load(connection, base)) is not None:
                base, weights = fitted.base, _product(fitted.weights, weights)
            digest = fingerprint(base.fingerprint, weights)
            if (same := models.by_fingerprint(connection, digest)) is not None:
                removal.check_not_dropping(connection, same)
                raise BadInput(
                    f"The fit gave the map that the model {same.name} has: nothing that it learns "
                    "from has changed. Use that model; nothing was recorded."
                )
            model = models.register(connection, name, digest[:12], base.dim, digest)
            model_projections.save(connection, model.id, base, weights, provenance)
            models.maintain(connection, model.id, None)
            return models.resolve(connection, name)

    def activate(self, name: str, *, forced_reason: str | None = None) -> ModelChange:
        """Make a model the one that searches use.

        Raises UnknownModel, and NotReady unless every picture has an embedding under it and an
        index of it is published. A `forced_reason` skips this check and is recorded.
        """
        _check_reason(forced_reason)
        with self._writing() as connection:
            return _activate(connection, models.resolve(connection, full_name(name)), forced_reason)

    def rollback(self, *, forced_reason: str | None = None) -> ModelChange:
        """Activate the previously active model again. Raises NotReady."""
        _check_reason(forced_reason)
        with self._writing() as connection:
            former = models.formerly_active(connection)
            if former is None:
                raise NotReady("No model was active before this one, or it was dropped since.")
            return _activate(connection, former, forced_reason)

    def drop(self, name: str) -> Model:
        """Delete a model with its embeddings and builds.

        First writers stop using it, then its partition is detached and deleted; searches go on.
        After an interruption, calling it again completes it. Raises UnknownModel, NotReady and
        LockHeld.
        """
        with self._exclusively():
            with self._writing(held=True) as connection:
                model = removal.model_to_drop(connection, full_name(name))
                models.stop_maintaining(connection, model.id)
            removal.detach(self._engine, model)
            removal.delete(self._engine, model)
            with self._engine.begin() as connection:
                # Retired builds are deleted with their files, which may be large.
                timeouts.set_for_transaction(connection, statement_s=0, lock_s=10)
                unused_files = index_builds.retire_older(connection, model.id, 0)
                models.delete(connection, model.id)
        for sha256 in unused_files:
            self._files.remove(sha256)
        return model

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Block other changes of models, over several transactions."""
        with locks.session(self._engine, LockKey.MODEL_CHANGE) as acquired:
            _check_acquired(acquired)
            yield

    @contextmanager
    def _writing(self, *, held: bool = False) -> Iterator[Connection]:
        """A transaction that blocks writers of the catalogue and other changes of models.

        `held`: this process already blocks other changes of models.
        """
        with locks.transaction(self._engine) as connection:
            check_schema(connection)
            if not held:
                _check_acquired(locks.try_acquire(connection, LockKey.MODEL_CHANGE))
            locks.acquire(connection, LockKey.CATALOG_WRITE)
            yield connection
            notifications.notify(connection)


def _check_primary(connection: Connection) -> None:
    if database_info.is_replica(connection):
        raise NotReady("This is a replica; models are added on the primary server.")


def _check_new_name(connection: Connection, name: str) -> None:
    plain, suffix = split_variant(name)
    if not _NAME.fullmatch(name) or suffix or plain in (AUTO, EMBEDDED) or full_name(name) != name:
        raise BadInput(
            f"{name!r} cannot be the name of a fitted model; take a new one of lower-case letters, "
            "digits and hyphens, such as 'our-photos'."
        )
    if models.named(connection, name):
        raise BadInput(
            f"There is a model {name} already; take another name, or drop it first with "
            f"`lookalike model drop {name}`."
        )


def _product(first: Matrix, second: Matrix) -> Matrix:
    """The map that applies one after the other. Raises BadInput where it is nearly singular."""
    try:
        return checked(first @ second, len(first))
    except ValueError as exc:
        raise BadInput(
            "The map after that of the fitted model is nearly singular; name the model that this "
            "one follows with --base. Nothing was recorded."
        ) from exc


def _check_acquired(acquired: bool) -> None:
    if not acquired:
        raise NotReady("Another change of the models is under way; try again when it is over.")


def _activate(connection: Connection, model: Model, forced_reason: str | None) -> ModelChange:
    former = models.active(connection)
    if former == model:
        return ModelChange(former, model)
    removal.check_not_dropping(connection, model)
    lacking = _lacking(connection, model)
    if lacking and forced_reason is None:
        raise NotReady(f"{model.name} is not ready: {'; '.join(lacking)}. Nothing was changed.")
    models.activate(connection, former, model, forced_reason if lacking else None)
    return ModelChange(former, model, forced_reason if lacking else None)


def _check_reason(reason: str | None) -> None:
    if reason is None:
        return
    check_text("reason", reason)
    if not reason.strip():
        raise BadInput("Forcing needs a reason, which is recorded; the given one is empty.")


def _lacking(connection: Connection, model: Model) -> list[str]:
    """What a model lacks for searches, each with the command that creates it."""
    lacking = []
    if missing := models.count_missing(connection, model.id):
        lacking.append(
            f"{missing} pictures have no embedding under it (`lookalike model embed {model.name}`)"
        )
    if not index_builds.usable(connection, model.id):
        lacking.append(
            f"no index of it is published (`lookalike index rebuild --model {model.name}`)"
        )
    return lacking
