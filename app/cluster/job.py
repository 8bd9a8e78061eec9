"""What a worker process must know to do a part of a job, and the services it keeps for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version

from app.bootstrap import App
from app.cluster.portable_settings import check_reachable, portable
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.encoders.loading import choose_encoder
from app.errors import LookalikeError


class VersionsDiffer(LookalikeError):
    """A worker has another version of Lookalike; install the same everywhere."""


@dataclass(frozen=True, slots=True)
class Job:
    """The settings of the program that began it, as JSON, and how encoders are chosen.

    `cpus` is the number of processors of a task.
    """

    settings: str = field(repr=False)  # contains the password of the database
    choose: Callable[..., EncoderChoice] = choose_encoder
    cpus: int = 1
    version: str = field(default_factory=lambda: version("lookalike"))

    @contextmanager
    def services(self) -> Iterator[App]:
        """The services of this process, which loads each encoder once, for a task.

        Raises VersionsDiffer.
        """
        app = self._app()
        try:
            yield app
        except BaseException:
            # A task that is cancelled may leave a connection in the middle of a statement.
            app.engine.dispose()
            raise

    def _app(self) -> App:
        if self.version != version("lookalike"):
            raise VersionsDiffer(
                f"A worker of the cluster has Lookalike {version('lookalike')}, and this is "
                f"{self.version}; install the same version everywhere."
            )
        if self.settings not in _apps:
            os.environ["OMP_NUM_THREADS"] = str(self.cpus)  # read by torch and by `torch_threads`
            settings = Settings(**json.loads(self.settings))
            _apps[self.settings] = App(settings, choose=self.choose, streams=self.cpus)
        return _apps[self.settings]


_apps: dict[str, App] = {}
"""Services by the settings of their job; a worker process runs one task at a time."""


def describe(app: App, address: str, choose: Callable[..., EncoderChoice] = choose_encoder) -> Job:
    """The job of this program. Raises BadInput if other machines cannot reach its database."""
    check_reachable(app.settings, address)
    settings = app.server_settings
    return Job(portable(settings), choose, settings.cluster_cpus)
