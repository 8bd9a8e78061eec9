"""Hosts are asked at their rate, a few times at once, again after trouble, and not for ever."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.download_cache import DownloadCache
from app.errors import BadImage
from app.images.download import Downloader, TryLater
from ingest import host_limits, remote_pictures
from ingest.host_limits import Host, HostDown, Politeness
from ingest.open_source import open_source
from ingest.remote_pictures import RemotePictures
from support.colours import photo
from support.feed_runs import feed
from support.picture_server import PictureServer


@pytest.fixture
def settings(database_url: str, tmp_path: Path, shop: PictureServer) -> Settings:
    return Settings(
        home=tmp_path / "home", database_url=database_url,
        private_addresses=True, downloads_per_second=10_000,
        link_ports=shop.url.rpartition(":")[2],
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_pictures, "PAUSE_S", 0.0)


def test_downloads_of_one_host_run_together_up_to_the_limit(app: App, shop: PictureServer) -> None:
    address = feed(shop, {f"P{number}": number for number in range(24)})
    opened = open_source(address, app.settings)
    shop.reset()
    shop.hold = threading.Event()
    opened.pictures.announce([f"{shop.url}/P{number}.png" for number in range(24)])
    wait_until(lambda: shop.active == 4)
    shop.hold.set()
    sizes = [len(opened.pictures.read(f"{shop.url}/P{number}.png")) for number in range(24)]
    assert min(sizes) > 0 and shop.at_once == 4 == app.settings.downloads_at_once
    opened.pictures.close()


def wait_until(holds: Any) -> None:
    end = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_host_that_does_not_answer_is_not_asked_for_ever(
    shop: PictureServer, tmp_path: Path
) -> None:
    web = Downloader(max_bytes=1000, ports=None, allow_private=True)
    cache = DownloadCache(tmp_path / "cache")
    pictures = RemotePictures(web, cache, Politeness(1, 10_000))
    names = [f"{shop.url}/{number}.png" for number in range(30)]
    shop.broken = {f"/{number}.png": [503] * 9 for number in range(30)}
    pictures.announce(names)
    reasons = []
    for name in names:
        with pytest.raises(BadImage) as caught:
            pictures.fetch(name)
        reasons.append(str(caught.value))
    assert shop.asked.total() == host_limits.MAX_FAILURES
    assert "503" in reasons[0] and "not asked any more" in reasons[-1]
    pictures.close()


def test_a_host_that_asks_to_wait_long_is_given_up() -> None:
    host = Host("shop.test", Politeness(), threading.Event())
    with pytest.raises(TryLater, match="busy"):
        host.failed(TryLater("busy", 3600.0), 0)
    with pytest.raises(HostDown, match=r"shop\.test"):
        host.wait_turn()


def test_requests_to_a_host_begin_at_its_rate_and_after_the_pause_it_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(host_limits.time, "monotonic", lambda: now[0])
    waits: list[float] = []

    class Clock(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(round(timeout or 0, 6))
            return False

    host = Host("shop.test", Politeness(4, 10), Clock())
    for _ in range(3):
        host.wait_turn()
    host.failed(TryLater("busy", 7.0), 1.0)
    host.wait_turn()
    assert waits == [0, 0.1, 0.2, 7.0]


def test_waiting_downloads_end_when_a_run_ends(shop: PictureServer, tmp_path: Path) -> None:
    shop.files = {f"/{number}": photo(number) for number in range(9)}
    shop.hold = threading.Event()
    web = Downloader(max_bytes=10_000, ports=None, allow_private=True)
    pictures = RemotePictures(web, DownloadCache(tmp_path / "cache"), Politeness(1, 10_000))
    pictures.announce([f"{shop.url}/{number}" for number in range(9)])
    pictures.stop()
    with pytest.raises(HostDown, match="run ended"):
        pictures.fetch(f"{shop.url}/8")
    shop.hold.set()
    pictures.close()
