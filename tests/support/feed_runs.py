"""Feeds on a server of pictures, and runs over them."""

from __future__ import annotations

from typing import Any

from app.bootstrap import App
from ingest.load import LoadOptions, load
from ingest.open_source import open_source
from ingest.pipeline import IngestReport
from ingest.sources import SourceReject
from support.colours import photo
from support.picture_server import PictureServer


def ingest(app: App, source: str, **options: Any) -> tuple[IngestReport, list[SourceReject]]:
    """A run over a source, as by the command line, and what it refused."""
    opened = open_source(source, app.settings)
    rejects: list[SourceReject] = []
    report = load(
        app.engine, app.catalog, app.encoders, app.limits, opened, LoadOptions(**options),
        rejected=rejects.append,
    )  # fmt: skip
    return report, rejects


def feed(shop: PictureServer, pictures: dict[str, int], name: str = "/feed.tsv") -> str:
    """Publish photos by sku and a feed of them; returns the address of the feed."""
    for sku, seed in pictures.items():
        shop.files[f"/{sku}.png"] = photo(seed)
    lines = ["id\ttitle\timage_link\tavailability\titem_group_id"]
    lines += [f"{sku}\tmug {sku}\t{shop.url}/{sku}.png\tin stock\tG{seed % 2}"
              for sku, seed in pictures.items()]  # fmt: skip
    shop.files[name] = "\n".join(lines).encode()
    return shop.url + name
