"""The search page without a browser: what a test does on it, and what it shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

from streamlit.testing.v1 import AppTest

from app.ui import shared
from support.colours import photo

Visit = Callable[..., AppTest]


def upload(page: AppTest, *seeds: int) -> AppTest:
    files = [(f"{seed}.png", photo(seed), "image/png") for seed in seeds]
    return page.file_uploader[0].set_value(files).run()


def drawn(page: AppTest, part: str) -> list[str]:
    """The HTML elements of the page with this part."""
    return [each.proto.body for each in page.get("html") if part in each.proto.body]


def skus(page: AppTest) -> list[str]:
    cards = drawn(page, "<div class=card>")
    return [unescape(re.findall(r"<span class=faint>(.*?)</span>", card)[-1]) for card in cards]


def alerts(page: AppTest) -> list[str]:
    """The text of all alerts of the page, without Markdown escapes."""
    boxes = [*page.error, *page.warning, *page.info]
    return [re.sub(r"\\(.)", r"\1", box.value) for box in boxes]


def notes(page: AppTest) -> str:
    """What the captions of the page say, without Markdown escapes."""
    return " ".join(re.sub(r"\\(.)", r"\1", each.value) for each in page.caption)


def widget(page: AppTest, kind: str, name: str) -> Any:
    """The widget of a field: its key gets a number when the field was changed otherwise."""
    pattern = re.compile(rf"search_{name}(_\d+)?")
    [found] = [each for each in getattr(page, kind) if pattern.fullmatch(each.key or "")]
    return found


def options(widget: Any) -> list[str]:
    """The labels of the options, without Markdown escapes."""
    return [re.sub(r"\\(.)", r"\1", label) for label in widget.options]


def asked(page: AppTest) -> dict[str, Any]:
    """The parameters of the address but the photo, whose id is random."""
    parameters = {
        name: [*([value] if isinstance(value, str) else value)]
        for name, value in page.query_params.items()
    }
    return {name: values for name, values in parameters.items() if name != "photo"}


def press(page: AppTest, label: str) -> AppTest:
    return next(each for each in page.button if each.label.startswith(label)).click().run()


def searches() -> float:
    """How many searches the page has run."""
    found = shared.services().metrics.registry.collect()
    return sum(
        sample.value for metric in found for sample in metric.samples
        if sample.name == "lookalike_searches_total"
    )  # fmt: skip
