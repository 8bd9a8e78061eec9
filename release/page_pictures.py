"""Takes the pictures of the page for the README, in both themes, from the catalogue of the demo.

    lookalike demo --no-page && python release/page_pictures.py [FOLDER]

With the LOOKALIKE_HOME of the demo. Writes page.png, a search by photo, and page.webp: a photo is
dropped, a box drawn on it, and the results follow; each with page-dark. The photo is drawn: two of
the demo's queries side by side. Needs Chromium (/usr/bin/chromium) and playwright.
"""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image, ImageDraw
from playwright.sync_api import Page, sync_playwright

from app.config import Settings

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
SIZE = (1240, 800)
SHOWN = (1000, 645)
"""Of the browser, and of the animation, in pixels."""

OBJECTS = ("04-teapot.jpg", "09-bottle.jpg")
LARGEST = 1_500_000
"""Bytes of an animation."""

EVENT = """([kind, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "shelf.jpg", { type: "image/jpeg" }));
  document.querySelector(".st-key-results").dispatchEvent(
    new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def photo() -> Image.Image:
    """Two of the demo's queries side by side."""
    folder = Settings().home / "demo" / "queries"
    parts = [Image.open(folder / name).convert("RGB").resize((420, 420)) for name in OBJECTS]
    both = Image.new("RGB", (840, 420))
    for place, part in enumerate(parts):
        both.paste(part, (420 * place, 0))
    return both


class Film:
    """Frames of a page, each with how long it is shown."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []

    def take(
        self, milliseconds: int, at: tuple[float, float], held: Image.Image | None = None
    ) -> None:
        """Take a frame, with a pointer at a place and what it holds."""
        frame = Image.open(BytesIO(self._page.screenshot())).convert("RGB")
        x, y = at
        if held is not None:
            frame.paste(held.resize((180, 90)), (int(x) - 90, int(y) - 45))
        arrow = [(0, 0), (0, 20), (5, 15), (9, 23), (12, 22), (8, 14), (15, 14)]
        ImageDraw.Draw(frame).polygon(
            [(x + dx, y + dy) for dx, dy in arrow], fill="black", outline="white", width=1
        )
        self.frames.append(frame.resize(SHOWN, Image.Resampling.LANCZOS))
        self.durations.append(milliseconds)

    def save(self, file: Path) -> None:
        """Write the frames as an animated WebP of at most LARGEST bytes."""
        for quality in (80, 70, 60, 50):
            self.frames[0].save(
                file, save_all=True, append_images=self.frames[1:], duration=self.durations,
                loop=0, quality=quality, method=6,
            )  # fmt: skip
            if file.stat().st_size <= LARGEST:
                return
        raise SystemExit(f"{file} has more than {LARGEST:,} bytes.")


def settled(page: Page) -> None:
    """Wait until everything is drawn."""
    for _ in range(2):
        page.wait_for_selector(".stApp[data-test-script-state=notRunning]")
        page.wait_for_timeout(1500)


def act(page: Page, film: Film) -> None:
    """Drop the photo, then draw a box around its second object."""
    shelf = photo()
    written = BytesIO()
    shelf.save(written, "JPEG", quality=92)
    data = base64.b64encode(written.getvalue()).decode()
    film.take(1200, (900, 640))
    page.evaluate(EVENT, ["dragenter", data])
    for x, y, milliseconds in ((1050, 700, 120), (900, 600, 120), (760, 480, 500)):
        film.take(milliseconds, (x, y), shelf)
    page.evaluate(EVENT, ["drop", data])
    page.wait_for_selector(".st-key-reference")
    settled(page)
    film.take(2000, (760, 480))
    area = page.locator(".frame").bounding_box()
    assert area is not None
    left, top = area["x"] + 0.58 * area["width"], area["y"] + 0.08 * area["height"]
    film.take(250, (left, top))
    page.mouse.move(left, top)
    page.mouse.down()
    for share in (0.35, 0.7, 1.0):
        x, y = left + share * 0.34 * area["width"], top + share * 0.86 * area["height"]
        page.mouse.move(x, y, steps=3)
        film.take(180, (x, y))
    page.mouse.up()
    page.wait_for_url("**box=**")
    settled(page)
    film.take(3200, (x + 30, y + 60))


def record(address: str, scheme: str, folder: Path) -> None:
    """Write the picture and the animation of a theme."""
    name = "page" if scheme == "light" else "page-dark"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(
            viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme=scheme, locale="en-GB",
            reduced_motion="reduce",
        )  # fmt: skip
        page.goto(address)
        page.wait_for_selector(".card")
        page.wait_for_selector(".lookalike-drop", state="attached")
        settled(page)
        film = Film(page)
        act(page, film)
        page.screenshot(path=folder / f"{name}.png")
        film.save(folder / f"{name}.webp")
        browser.close()


def main() -> None:
    """Serve the page and record it."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lookalike = Path(sys.executable).with_name("lookalike")
    server = subprocess.Popen([lookalike, "page", "--port", str(port)])
    try:
        address = f"http://localhost:{port}"
        for _ in range(300):
            try:
                urlopen(f"{address}/_stcore/health").close()
                break
            except URLError:
                time.sleep(0.2)
        for scheme in ("light", "dark"):
            record(address, scheme, folder)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
