"""The kinds of product: how each is drawn, its materials and its price range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ingest.demo.canvas import Canvas
from ingest.demo.look import Appearance
from ingest.demo.objects import (
    accessories,
    bags_and_umbrellas,
    bicycle,
    clothing,
    furniture,
    instruments,
    kitchen,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: `stands` upright or is laid flat; prices in euros, lowest and highest."""

    name: str
    draw: Callable[[Canvas, Appearance], None]
    stands: bool
    materials: tuple[str, ...]
    prices: tuple[float, float]
    gloss: float = 0.1
    texture: str = "none"
    patterned: float = 0.5
    """The share of products with a pattern; for example, guitars have none."""
    colours: tuple[str, ...] = ()
    """Its colours; empty: all colours."""


GUITARS = ("natural", "amber", "walnut", "black", "red", "cream", "teal", "navy")

KINDS: tuple[Kind, ...] = (
    Kind("mug", kitchen.mug, True, ("stoneware", "porcelain", "enamel"), (9, 32), 0.5),
    Kind("T-shirt", clothing.t_shirt, False, ("cotton", "linen", "hemp"), (15, 60), 0.0, "fabric"),
    Kind(
        "trainer",
        clothing.trainer,
        True,
        ("canvas", "leather", "mesh"),
        (49, 180),
        0.08,
        "leather",
        0.2,
    ),
    Kind(
        "backpack",
        bags_and_umbrellas.backpack,
        True,
        ("canvas", "nylon", "leather"),
        (39, 190),
        0.0,
        "fabric",
        0.35,
    ),
    Kind(
        "chair", furniture.chair, True, ("oak", "beech", "plastic"), (59, 420), 0.1, "fabric", 0.3
    ),
    Kind("lamp", furniture.lamp, True, ("linen", "metal", "glass"), (29, 260), 0.05, "none", 0.35),
    Kind(
        "watch",
        accessories.watch,
        False,
        ("leather", "steel", "silicone"),
        (69, 690),
        0.1,
        "leather",
        0.25,
    ),
    Kind(
        "headphones",
        instruments.headphones,
        False,
        ("plastic", "aluminium"),
        (39, 390),
        0.3,
        "none",
        0.0,
    ),
    Kind("teapot", kitchen.teapot, True, ("porcelain", "stoneware", "cast iron"), (24, 95), 0.5),
    Kind(
        "sunglasses",
        accessories.sunglasses,
        False,
        ("acetate", "metal"),
        (25, 240),
        0.5,
        "none",
        0.25,
    ),
    Kind(
        "guitar",
        instruments.guitar,
        False,
        ("spruce", "mahogany", "maple"),
        (149, 1900),
        0.5,
        "wood",
        0.0,
        GUITARS,
    ),
    Kind(
        "plant pot", kitchen.plant_pot, True, ("terracotta", "concrete", "stoneware"), (12, 85), 0.1
    ),
    Kind(
        "umbrella",
        bags_and_umbrellas.umbrella,
        True,
        ("polyester", "nylon"),
        (15, 79),
        0.1,
        "none",
        0.55,
    ),
    Kind("bicycle", bicycle.bicycle, True, ("steel", "aluminium"), (349, 2400), 0.5, "none", 0.0),
    Kind("bottle", kitchen.bottle, True, ("steel", "glass", "tritan"), (12, 45), 0.5),
    Kind(
        "clock", furniture.clock, False, ("beech", "metal", "acrylic"), (19, 140), 0.2, "none", 0.25
    ),
)
