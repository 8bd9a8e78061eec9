"""LoadedEncoders: the encoders of a database's models, each loaded once in this process.

The table says which model is active; a process notices a change at the first search that meets it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.config import Settings
from app.db.engine import check_schema
from app.db.queries import models
from app.encoders.base import Choice, Encoder
from app.encoders.loading import automatic
from app.errors import LookalikeError, ModelMismatch, ModelNotKept, ModelUnavailable
from app.types import Model

AHEAD_S = 30.0
"""How often a process looks for models that may become the active one."""

_log = logging.getLogger(__name__)


class EncoderPool:
    """Encoders by model. Safe to use from several threads.

    `choose` loads an encoder by name, as `choose_encoder` does.
    """

    def __init__(self, engine: Engine, settings: Settings, choose: Callable[..., Choice]) -> None:
        self._engine = engine
        self._settings = settings
        self._choose = choose
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._active: Encoder | None = None
        self._by_model: dict[int, Encoder] = {}
        self._looked = time.monotonic()

    def active(self) -> Encoder:
        """The encoder of the active model, as far as this process knows.

        Raises NoModel, ModelUnavailable, and ModelMismatch when LOOKALIKE_MODEL or the installed
        weights are not what the table was filled with.
        """
        with self._lock:
            found = self._active
        if found is None:
            self.renew()
            with self._lock:
                found = self._active
        assert found is not None
        return found

    def of(self, model_id: int) -> Encoder:
        """The encoder of a model that is kept up to date. Raises ModelNotKept for another, and as
        `active` does."""
        with self._lock:
            found = self._by_model.get(model_id)
        return found or self._of(self._model(model_id))

    def renew(self) -> None:
        """Learn which model is the active one now. Raises as `active` does."""
        found = self._of(self._model(None))
        with self._lock:
            self._active = found

    def take(self, model: Model, encoder: Encoder) -> None:
        """Use an encoder that was loaded elsewhere for the active model."""
        with self._lock:
            self._by_model[model.id] = self._active = encoder

    def look_ahead(self) -> None:
        """Now and then load, in the background, what may become the active model, and let go of
        what cannot any more."""
        now = time.monotonic()
        with self._lock:
            if now - self._looked < AHEAD_S:
                return
            self._looked = now
        threading.Thread(target=self._load_ahead, name="load", daemon=True).start()

    def _load_ahead(self) -> None:
        try:
            with self._engine.connect() as connection:
                found = models.maintained(connection)
        except (LookalikeError, SQLAlchemyError) as exc:
            _log.info("the models that are kept up to date cannot be read: %s", exc)
            return
        self._forget_all_but({model.id for model in found})
        for model in found:
            try:
                self.of(model.id)
            except (LookalikeError, SQLAlchemyError) as exc:
                _log.info("the model %s cannot be used here: %s", model.name, exc)

    def _forget_all_but(self, kept: set[int]) -> None:
        """Let go of the encoders of models that were dropped: one takes hundreds of megabytes."""
        with self._lock:
            for model_id in self._by_model.keys() - kept:
                if self._by_model[model_id] is not self._active:
                    del self._by_model[model_id]

    def _model(self, model_id: int | None) -> Model:
        with self._engine.connect() as connection:
            check_schema(connection)
            if model_id is None:
                return models.require_active(connection)
            model = models.by_id(connection, model_id)
        if model is None:
            raise ModelNotKept(
                f"No model with the id {model_id} is kept up to date in this database; "
                "see `lookalike model list`."
            )
        return model

    def _of(self, model: Model) -> Encoder:
        """Loading takes long, so not under the lock that every search takes."""
        with self._loading:
            with self._lock:
                found = self._by_model.get(model.id)
            if found is None:
                found = self._load(model)
                with self._lock:
                    self._by_model[model.id] = found
            return found

    def _load(self, model: Model) -> Encoder:
        """The encoder a model was recorded with. LOOKALIKE_MODEL names it, or another that is
        recorded beside it; then the table decides which of them searches."""
        asked = self._settings.model
        name = model.source or model.name
        mine = Path(asked).name == model.name
        if not automatic(asked) and (mine or not self._recorded(asked)):
            name = asked
        try:
            encoder = self._choose(name, revision=self._revision(model, name)).encoder
        except ModelUnavailable as exc:
            if name in (model.name, model.source):
                raise
            raise ModelMismatch(
                f"This database was filled with the model {model.name}; {name} was asked for, and "
                f"cannot be loaded either. Set LOOKALIKE_MODEL to {model.name}. ({exc})"
            ) from exc
        if encoder.fingerprint != model.fingerprint:
            raise mismatch(model, encoder)
        return encoder

    def _revision(self, model: Model, name: str) -> str | None:
        """The commit of a hub model: the recorded one, for a model that was added to others."""
        added = model.source is not None and name == model.source
        return model.revision if added else self._settings.model_revision

    def _recorded(self, name: str) -> bool:
        with self._engine.connect() as connection:
            return bool(models.named(connection, Path(name).name))


def mismatch(model: Model, encoder: Encoder) -> ModelMismatch:
    """What to say when an encoder is not the one a model was recorded with."""
    return ModelMismatch(
        f"This database was filled with the model {model.name} (revision {model.revision}, "
        f"fingerprint {model.fingerprint[:12]}), but {encoder.name} (revision {encoder.revision}, "
        f"fingerprint {encoder.fingerprint[:12]}) was loaded. Their vectors cannot be compared. "
        f"Set LOOKALIKE_MODEL to {model.name}, or use another database for {encoder.name}."
    )
