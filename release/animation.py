"""Draws the animation of README.md, in a browser on the page of a demo.

    LOOKALIKE_HOME=.demo lookalike demo --no-page
    PYTHONPATH=.:tests python release/animation.py .demo docs/images/search.webp

A photo is searched, words ask for another colour, and a result shows what matched.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from support.browsing import CHROMIUM, SWITCHES, first_card, served, settled, upload

WIDTH, HEIGHT = 1280, 860
SHOWN = 960
"""Width of the animation in pixels; the window of the browser is wider."""


class Film:
    """Frames with how long each is shown, in milliseconds."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._frames: list[tuple[Image.Image, int]] = []

    def take(self, milliseconds: int) -> None:
        settled(self._page)
        self._page.wait_for_timeout(700)  # pictures are drawn after the script has ended
        with Image.open(io.BytesIO(self._page.screenshot())) as shot:
            size = (SHOWN, round(SHOWN * HEIGHT / WIDTH))
            frame = shot.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        self._frames.append((frame, milliseconds))

    def save(self, target: Path) -> None:
        first, *others = [frame for frame, _ in self._frames]
        first.save(
            target, save_all=True, append_images=others, quality=60, method=6, loop=0,
            duration=[milliseconds for _, milliseconds in self._frames],
        )  # fmt: skip


def draw(home: Path, photo: Path, target: Path) -> None:
    with served(home=str(home.absolute())) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1)
        page.goto(address)
        film = Film(page)
        film.take(1200)
        upload(page, photo.name, photo.read_bytes())
        page.locator(".st-key-reference").wait_for()
        first_card(page)
        film.take(2600)
        field = page.get_by_placeholder("Words, SKU, GTIN or image URL")
        field.fill("blue")
        film.take(500)
        field.press("Enter")
        page.wait_for_timeout(1500)
        film.take(2600)
        page.get_by_role("button", name="Details").first.click()
        page.get_by_role("dialog").wait_for()
        page.get_by_text("Show what matches").click()
        page.wait_for_timeout(1500)
        film.take(3200)
        browser.close()
        film.save(target)


if __name__ == "__main__":
    home, target = map(Path, sys.argv[1:])
    draw(home, home / "demo/queries/17-teapot.jpg", target)
