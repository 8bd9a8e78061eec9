"""Renders a photo of a product: camera position, light, background and lens."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from ingest.demo.canvas import Canvas, View
from ingest.demo.kinds import Kind
from ingest.demo.look import Appearance
from ingest.demo.paint import Picture, noise
from ingest.demo.scene import lying, standing
from ingest.demo.shadow import shadow

SIZE = 448


@dataclass(frozen=True, slots=True)
class Shot:
    """The differences from a studio photo, each 0 (none) to 1, and the JPEG quality."""

    turn: float = 0.25
    light: float = 0.2
    noise: float = 0.1
    crop: float = 0.0
    quality: int = 88


STUDIO = Shot()
ANOTHER_ANGLE = Shot(turn=0.6, light=0.4)
A_CUSTOMER = Shot(turn=0.8, light=0.8, noise=0.8, crop=1.0, quality=55)


def photograph(kind: Kind, look: Appearance, seed: int, shot: Shot = STUDIO) -> bytes:
    """The JPEG of one photo; the same arguments give the same bytes."""
    form = np.random.default_rng(seed)
    canvas = Canvas(SIZE, _view(form, shot, kind.stands))
    kind.draw(canvas, look)
    scene = (standing if kind.stands else lying)(SIZE, form)
    dark = shadow(canvas.alpha, canvas.view.light, kind.stands)
    scene = scene.astype(np.float32) * (1 - dark)[..., None]
    picture = scene * (1 - canvas.alpha[..., None]) + canvas.rgb
    return _develop(_exposed(picture, form, shot), form, shot)


def _view(form: np.random.Generator, shot: Shot, stands: bool) -> View:
    """A homography: size, yaw (foreshortening), roll, slight perspective, position."""
    roll = np.radians(form.uniform(-1, 1) * shot.turn * (5 if stands else 28))
    mirror = -1.0 if shot.turn > 0.5 and form.random() < 0.4 else 1.0
    zoom = SIZE * form.uniform(0.42, 0.46) * (1.0 if stands else 1.06)
    narrow = 1 - form.uniform(0.0, 0.22) * shot.turn
    spin = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    near = form.uniform(-0.12, 0.12, 2) * shot.turn
    at = SIZE * (0.5 + form.uniform(-0.025, 0.025, 2))
    inner = np.eye(3)
    inner[:2, :2] = zoom * spin @ np.diag([narrow * mirror, 1.0])
    inner[2, :2] = near
    place = np.array([[1, 0, at[0]], [0, 1, at[1]], [0, 0, 1]])
    return View(place @ inner, light=-1.0 if form.random() < 0.3 else 1.0)


def _exposed(picture: Picture, form: np.random.Generator, shot: Shot) -> Picture:
    warm = form.uniform(-1, 1) * 0.10 * shot.light
    gain = 1 + form.uniform(-0.9, 0.35) * 0.3 * shot.light
    colour = np.array([1 + warm, 1.0, 1 - warm], dtype=np.float32) * np.float32(gain)
    speckle = np.roll(noise(1), tuple(form.integers(0, 512, 2)), (0, 1))[:SIZE, :SIZE]
    speckle = (speckle - 0.5) * (0.02 + 0.10 * shot.noise)
    fall = (_vignette(0.10 + 0.20 * shot.light) * colour).astype(np.float32)
    return picture * fall + speckle[..., None].astype(np.float32)


def _vignette(strength: float) -> Picture:
    along = np.linspace(-1, 1, SIZE, dtype=np.float32) ** 2
    fall: Picture = 1 - strength * (along[:, None] + along[None, :])[..., None] / 2
    return fall


def _develop(picture: Picture, form: np.random.Generator, shot: Shot) -> bytes:
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    if shot.crop:
        left, top, right, low = (form.uniform(0, 0.07, 4) * shot.crop * SIZE).astype(int).tolist()
        image = image.crop((left, top, SIZE - right, SIZE - low))
    target = BytesIO()
    image.save(target, "JPEG", quality=shot.quality)
    return target.getvalue()
