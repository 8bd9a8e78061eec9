"""Composition root: creates the services from the settings, each on first use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.catalog.history import HistoryLimits
from app.catalog.service import CatalogService
from app.config import Settings
from app.db.engine import database_url, make_engine, make_fast_engine, make_search_engine
from app.db.queries import models
from app.db.statement_cancel import StatementCancel
from app.encoders.base import Encoder, EncoderChoice
from app.encoders.loading import automatic, choose_encoder
from app.errors import LookalikeError
from app.index.background_build import BackgroundBuild
from app.index.builder import Indexer
from app.index.file_store import IndexFiles
from app.models.encoder_pool import EncoderPool, mismatch
from app.models.lifecycle import Lifecycle
from app.search.admission import Admission
from app.search.query_sampler import QuerySampler

# Modules that only some commands need and that are slow to import are imported where used.
if TYPE_CHECKING:
    from PIL import Image

    from app.images.decoding import ImageLimits
    from app.images.download import Downloader
    from app.images.sandbox import PictureSandbox
    from app.images.upload_store import UploadStore
    from app.operations.api_keys import ApiKeys
    from app.operations.metrics import ApiMetrics, SearchMetrics
    from app.operations.search_events import SearchEvents
    from app.search.facets import FacetService
    from app.search.heat_map import MatchExplainer
    from app.search.service import SearchService
    from app.search.stored_photos import StoredPhotos

T = TypeVar("T")

KEY_CONNECTIONS = 4
"""Connections that check the keys of requests, so that these never wait for searches."""

CLOSING_S = 10.0
"""Seconds to wait at the end for what is being loaded in advance."""

_log = logging.getLogger("lookalike")


class _Once(Generic[T]):
    """A property whose value is created once, by the first thread that reads it.

    `functools.cached_property` has had no lock since Python 3.12.
    """

    def __init__(self, create: Callable[[App], T]) -> None:
        self._create = create
        self._name = create.__name__

    def __get__(self, app: App, owner: type[App]) -> T:
        with app._create_lock:
            if self._name not in app.__dict__:
                # Later reads find the value here and do not call this method.
                app.__dict__[self._name] = self._create(app)
            value: T = app.__dict__[self._name]
            return value


class App:
    """Everything one process needs; safe to share between threads.

    `choose` loads an encoder by name, like `choose_encoder`. `streams` is the number of threads
    that encode at the same time.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        choose: Callable[..., EncoderChoice] = choose_encoder,
        streams: int = 1,
    ) -> None:
        self.settings = settings or Settings()
        self._choose = partial(
            choose,
            compiled_cache=self.settings.compiled_cache_folder,
            compiled=self.settings.openvino,
            streams=streams,
            device=self.settings.device,
        )
        self._create_lock = threading.RLock()  # reentrant: services use others
        self._closing = threading.Event()
        self._warming: threading.Thread | None = None

    def __enter__(self) -> App:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and child processes; the database server keeps running."""
        self._closing.set()
        if self._warming is not None:
            self._warming.join(CLOSING_S)  # it would open connections that nobody closes
        if "encoders" in self.__dict__:
            self.encoders.close(CLOSING_S)
        if "sampler" in self.__dict__:
            self.sampler.close()
        if "events" in self.__dict__:
            self.events.close()
        for name in ("engine", "search_engine", "fast_engine", "key_engine"):
            if name in self.__dict__:
                getattr(self, name).dispose()
        if "sandbox" in self.__dict__:
            self.sandbox.close()
        if "files" in self.__dict__:
            self.files.close()

    @_Once
    def server_settings(self) -> Settings:
        """The settings with the URL of the server; starts the embedded server if none is named."""
        return self.settings.model_copy(update={"database_url": database_url(self.settings)})

    @_Once
    def engine(self) -> Engine:
        return make_engine(self.server_settings)

    @_Once
    def search_engine(self) -> Engine:
        return make_search_engine(self.server_settings)

    @_Once
    def fast_engine(self) -> Engine:
        return make_fast_engine(self.server_settings)

    @_Once
    def key_engine(self) -> Engine:
        return make_fast_engine(self.server_settings, KEY_CONNECTIONS)

    @_Once
    def statement_cancel(self) -> StatementCancel:
        """Of what searches take connections for from now on."""
        return StatementCancel(self.engine, self.search_engine, self.fast_engine)

    @_Once
    def files(self) -> IndexFiles:
        folder, address = self.settings.index_folder, self.settings.search_on
        if address is None:
            return IndexFiles(folder)
        from app.cluster.parts import PartsOnCluster

        return IndexFiles(folder, PartsOnCluster(lambda: self.server_settings, address))

    @_Once
    def limits(self) -> ImageLimits:
        from app.images.decoding import ImageLimits

        return ImageLimits.from_settings(self.settings)

    @_Once
    def sandbox(self) -> PictureSandbox:
        from app.images.sandbox import PictureSandbox

        return PictureSandbox(
            self.limits, wait_s=self.settings.search_wait_s, refused=self.metrics.refused
        )

    @_Once
    def uploads(self) -> UploadStore:
        from app.images.upload_store import UploadStore

        return UploadStore(self.settings.uploads_mb * 1_000_000)

    @_Once
    def catalog(self) -> CatalogService:
        settings = self.settings
        limits = HistoryLimits(settings.history_days, settings.history_mb)
        return CatalogService(self.engine, limits)

    @_Once
    def facets(self) -> FacetService:
        from app.search.facets import FacetService

        return FacetService(self.engine, self.search, self.settings.facets)

    @_Once
    def indexer(self) -> Indexer:
        return Indexer(self.engine, self.files, self.settings)

    @_Once
    def background_build(self) -> BackgroundBuild:
        return BackgroundBuild(self.indexer)

    @_Once
    def metrics(self) -> SearchMetrics:
        from app.operations.metrics import SearchMetrics

        return SearchMetrics()

    @_Once
    def api_metrics(self) -> ApiMetrics:
        from app.operations.metrics import ApiMetrics

        return ApiMetrics(self.metrics.registry)

    @_Once
    def sampler(self) -> QuerySampler:
        return QuerySampler(self.engine)

    @_Once
    def web(self) -> Downloader:
        from app.images.download import Downloader

        settings = self.settings
        return Downloader(
            max_bytes=settings.max_image_bytes,
            ports=settings.link_port_numbers,
            allow_private=settings.private_addresses,
        )

    @_Once
    def api_keys(self) -> ApiKeys:
        from app.operations.api_keys import ApiKeys

        return ApiKeys(self.engine, self.key_engine)

    @_Once
    def events(self) -> SearchEvents:
        from app.operations.search_events import SearchEvents

        return SearchEvents(self.engine, self.settings.event_days)

    @_Once
    def photos(self) -> StoredPhotos:
        from app.search.stored_photos import StoredPhotos

        return StoredPhotos(
            self.engine, self.search, self.encoders, self._decode_in_sandbox, self.settings
        )

    @_Once
    def explainer(self) -> MatchExplainer:
        from app.search.heat_map import MatchExplainer

        return MatchExplainer(
            self.search_engine, self.encoders, self._decode, self._decode_in_sandbox
        )

    @_Once
    def search(self) -> SearchService:
        from app.encoders.batching import BatcherPool
        from app.search.fast_path import FastPath
        from app.search.filter_cache import FilterCache
        from app.search.query_encoder import QueryEncoder
        from app.search.regions import ObjectFinder
        from app.search.service import SearchService
        from app.search.similarity_labels import CalibrationCache

        encoder = QueryEncoder(
            self.encoders,
            self._decode,
            self._decode_in_sandbox,
            BatcherPool(self.metrics.encoded),
        )
        return SearchService(
            self.search_engine,
            encoder,
            self.files,
            self.settings,
            admission=self.admission,
            fast_path=FastPath(
                self.fast_engine, self.files, self.settings, FilterCache(self.search_engine)
            ),
            sampler=self.sampler if self._sampling_enabled else None,
            calibrations=CalibrationCache(self.search_engine),
            objects=ObjectFinder(encoder, self.files, self.settings),
            observe=self.metrics.searched,
        )

    @_Once
    def admission(self) -> Admission:
        settings = self.settings
        admission = Admission(settings.places, settings.search_wait_s, self.metrics.refused)
        self.metrics.watch(admission)
        return admission

    @_Once
    def encoders(self) -> EncoderPool:
        return EncoderPool(self.search_engine, self.settings, self._choose)

    @_Once
    def lifecycle(self) -> Lifecycle:
        return Lifecycle(self.engine, self.files, self._choose)

    def encoder(self) -> Encoder:
        """The encoder of the active model, loaded once.

        Raises NoModel, ModelUnavailable, and ModelMismatch when LOOKALIKE_MODEL or the installed
        weights are not those that the catalogue was embedded with.
        """
        return self.encoders.active()

    @property
    def is_warm(self) -> bool:
        """Whether the model of searches is loaded, so that a search need not wait for it."""
        return self.encoders.is_loaded

    def warm_soon(self) -> None:
        """Load the model and open the index in the background, so that the first search need not.

        What prevents it is logged; the first search then says it to its user. Does nothing while
        it goes on already.
        """
        if self._warming is not None and self._warming.is_alive():
            return
        self._warming = threading.Thread(target=self._warm, name="warm", daemon=True)
        self._warming.start()

    def _warm(self) -> None:
        try:
            for step in (self.search.open_index, self.encoders.active):
                if not self._closing.is_set():
                    step()
        except (LookalikeError, SQLAlchemyError) as exc:
            _log.info("nothing was loaded in advance: %s", exc)

    def initialise(self) -> str:
        """Migrate, and record the model if none is recorded; returns a sentence about the model.

        Raises ModelMismatch if another model than LOOKALIKE_MODEL is recorded already.
        """
        from app.operations.migrate import migrate

        migrate(self.engine)
        self._set_language()
        with self.engine.connect() as connection:
            recorded = models.active(connection)
        if recorded is not None:
            if not automatic(self.settings.model):
                self.encoders.active()
            return f"The model of this database is {recorded.name}, as recorded before."
        choice = self._choose(self.settings.model, revision=self.settings.model_revision)
        self._record(choice.encoder)
        return choice.note

    def _set_language(self) -> None:
        """Stem words by the language of the settings, if there are no products yet."""
        from app.operations import word_language

        language = self.settings.language
        if language is not None and not word_language.change_if_empty(self.engine, language):
            _log.warning(
                "Words are stemmed by %s, as recorded; `lookalike words language %s` changes it.",
                word_language.current(self.engine), language,
            )  # fmt: skip

    @property
    def _sampling_enabled(self) -> bool:
        return self.settings.sample_queries and not self.settings.page_read_only

    def _decode(self, data: bytes, *, at_least: int | None = None) -> Image.Image:
        from app.images.decoding import decode

        return decode(data, self.limits, at_least=at_least)

    def _decode_in_sandbox(self, data: bytes, *, at_least: int | None = None) -> Image.Image:
        return self.sandbox.decode(self.uploads.file(data), at_least=at_least)

    def _record(self, encoder: Encoder) -> None:
        with self.engine.begin() as connection:
            model = models.register(
                connection, encoder.name, encoder.revision, encoder.dim, encoder.fingerprint
            )
            models.activate_first(connection, model.id)
            active = models.active(connection)
            if active is not None and active.id != model.id:
                raise mismatch(active, encoder)  # in the transaction, which rolls back
        self.encoders.set_active(model, encoder)
