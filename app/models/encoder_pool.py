"""Encoders of the models recorded in the database, each loaded once per process.

The database decides which model is active; a process notices a change at the next search.
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
from app.db.queries import model_projections, models
from app.db.queries.model_projections import StoredProjection
from app.encoders import word_space
from app.encoders.base import EMBEDDED, Encoder, EncoderChoice, WordReader, split_variant
from app.encoders.loading import automatic
from app.encoders.presets import full_name
from app.encoders.projected_encoder import ProjectedEncoder
from app.errors import LookalikeError, ModelMismatch, ModelNotMaintained, ModelUnavailable
from app.types import Model

PRELOAD_S = 30.0
"""Minimum seconds between two background loads of the models that may become active."""

_log = logging.getLogger(__name__)


class EncoderPool:
    """Encoders by model; an `EncoderProvider`. Safe to use from several threads.

    `choose` loads an encoder by name, like `choose_encoder`.
    """

    def __init__(
        self, engine: Engine, settings: Settings, choose: Callable[..., EncoderChoice]
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._choose = choose
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._active: Encoder | None = None
        self._by_model: dict[int, Encoder] = {}
        self._preloaded_at = time.monotonic()
        self._preloading: threading.Thread | None = None
        self._closing = threading.Event()

    def active(self) -> Encoder:
        """The encoder of the active model, as last read from the database.

        Raises NoModel, ModelUnavailable, and ModelMismatch when LOOKALIKE_MODEL or the installed
        weights are not those that the catalogue was embedded with.
        """
        with self._lock:
            encoder = self._active
        if encoder is None:
            self.refresh_active()
            with self._lock:
                encoder = self._active
        assert encoder is not None
        return encoder

    @property
    def is_loaded(self) -> bool:
        """Whether `active` returns at once."""
        with self._lock:
            return self._active is not None

    def for_model(self, model_id: int) -> Encoder:
        """The encoder of a maintained model.

        Raises ModelNotMaintained for any other model, and the errors of `active`.
        """
        with self._lock:
            encoder = self._by_model.get(model_id)
        return encoder or self._get_or_load(self._model(model_id))

    def may_read_words(self, model_id: int | None) -> bool:
        """False for an encoder that was loaded and reads none, and for a version of the embedded
        encoder without a text side. Raises as `active` where the model is not recorded."""
        with self._lock:
            encoder = self._active if model_id is None else self._by_model.get(model_id)
        if encoder is not None:
            return encoder.reads_words
        model = self._model(model_id)
        if self._may_be_another(model):
            return True  # loading it tells whether the two are one model
        embedded = split_variant(model.name)[0] == EMBEDDED
        return not embedded or word_space.of_model(model) is not None

    def word_reader(self, model_id: int | None) -> WordReader | None:
        """The text side of the embedded encoder, while that is not loaded. Raises as `active` where
        the model is not recorded."""
        with self._lock:
            loaded = self._active if model_id is None else self._by_model.get(model_id)
        if loaded is not None:
            return None
        model = self._model(model_id)
        space = None if self._may_be_another(model) else word_space.of_model(model)
        return None if space is None else WordReader(model.fingerprint, space.encode)

    def _may_be_another(self, model: Model) -> bool:
        """Whether LOOKALIKE_MODEL names another model than this one."""
        configured = full_name(self._settings.model)
        return not automatic(configured) and configured != model.name

    def refresh_active(self) -> None:
        """Read from the database which model is active. Raises as `active`."""
        encoder = self._get_or_load(self._model(None))
        with self._lock:
            self._active = encoder

    def set_active(self, model: Model, encoder: Encoder) -> None:
        """Use an encoder that is already loaded for the active model."""
        with self._lock:
            self._by_model[model.id] = self._active = encoder

    def preload(self) -> None:
        """Load maintained models and evict dropped ones in the background, if `PRELOAD_S` seconds
        have passed since the last time."""
        now = time.monotonic()
        with self._lock:
            if now - self._preloaded_at < PRELOAD_S:
                return
            self._preloaded_at = now
        self._preloading = threading.Thread(target=self._preload, name="load", daemon=True)
        self._preloading.start()

    def close(self, timeout_s: float) -> None:
        """Wait for a background load: a process that ends in the middle of one is aborted."""
        self._closing.set()
        if self._preloading is not None:
            self._preloading.join(timeout_s)

    def _preload(self) -> None:
        try:
            with self._engine.connect() as connection:
                maintained = models.maintained(connection)
        except (LookalikeError, SQLAlchemyError) as exc:
            _log.info("the list of maintained models cannot be read: %s", exc)
            return
        self._evict_all_but({model.id for model in maintained})
        for model in maintained:
            if self._closing.is_set():
                return
            try:
                self.for_model(model.id)
            except (LookalikeError, SQLAlchemyError) as exc:
                _log.info("the model %s cannot be used here: %s", model.name, exc)

    def _evict_all_but(self, maintained: set[int]) -> None:
        """Free the encoders of dropped models, which take hundreds of megabytes each."""
        with self._lock:
            for model_id in self._by_model.keys() - maintained:
                if self._by_model[model_id] is not self._active:
                    del self._by_model[model_id]

    def _model(self, model_id: int | None) -> Model:
        with self._engine.connect() as connection:
            check_schema(connection)
            if model_id is None:
                return models.require_active(connection)
            model = models.maintained_by_id(connection, model_id)
        if model is None:
            raise ModelNotMaintained(
                f"No model with the id {model_id} is kept up to date in this database; "
                "see `lookalike model list`."
            )
        return model

    def _get_or_load(self, model: Model) -> Encoder:
        # Loading takes long, so it has a lock of its own: every search takes the other one.
        with self._loading:
            with self._lock:
                encoder = self._by_model.get(model.id)
            if encoder is None:
                encoder = self._load(model)
                with self._lock:
                    self._by_model[model.id] = encoder
            return encoder

    def _load(self, model: Model) -> Encoder:
        """The encoder that a model was recorded with; of a fitted model, that of its base with its
        map.

        LOOKALIKE_MODEL is used if it names this model. If it names another recorded model, it is
        ignored: the database decides which of them is active. Any other name raises ModelMismatch.
        """
        if (projection := self._projection(model)) is not None:
            return self._load_projected(model, projection)
        configured = full_name(self._settings.model)
        name = model.source or model.name
        same = model.name in (configured, Path(configured).name)
        if not automatic(configured) and (same or not self._is_recorded(configured)):
            name = configured
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

    def _projection(self, model: Model) -> StoredProjection | None:
        with self._engine.connect() as connection:
            return model_projections.load(connection, model)

    def _load_projected(self, model: Model, projection: StoredProjection) -> Encoder:
        """The encoder of a fitted model. The one that it follows is loaded as that model is."""
        base = projection.base
        with self._lock:
            loaded = self._by_model.get(base.id)
        encoder = loaded or self._load(base)
        if base.id:  # not dropped: it is loaded once
            with self._lock:
                self._by_model.setdefault(base.id, encoder)
        projected = ProjectedEncoder(model.name, encoder, projection.weights)
        if projected.fingerprint != model.fingerprint:
            raise mismatch(model, projected)
        return projected

    def _revision(self, model: Model, name: str) -> str | None:
        """The recorded revision if the model was added to others, or is the embedded encoder, whose
        former versions stay loadable; else the hub commit of the settings."""
        added = model.source is not None and name == model.source
        embedded = name == model.name and split_variant(name)[0] == EMBEDDED
        return model.revision if added or embedded else self._settings.model_revision

    def _is_recorded(self, name: str) -> bool:
        with self._engine.connect() as connection:
            return any(models.named(connection, each) for each in {name, Path(name).name})


def mismatch(model: Model, encoder: Encoder) -> ModelMismatch:
    """The error for an encoder that is not the one a model was recorded with."""
    return ModelMismatch(
        f"This database was filled with the model {model.name} (revision {model.revision}, "
        f"fingerprint {model.fingerprint[:12]}), but {encoder.name} (revision {encoder.revision}, "
        f"fingerprint {encoder.fingerprint[:12]}) was loaded. Their vectors cannot be compared. "
        f"Set LOOKALIKE_MODEL to {model.name}, or use another database for {encoder.name}."
    )
