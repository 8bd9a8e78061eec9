"""Thirty different products, and one that is there for six years."""

from __future__ import annotations

from app.bootstrap import App
from app.db.queries import calibration
from app.types import Calibration, CutOff
from support.text_encoder import add_titled

WORDS = "kestrel marlo blazer alder tirna coat solano verra polo hanako quist shorts"

NOUNS = WORDS.split()


def all_pictures_agree(app: App) -> None:
    """Calibrate so that products with the same words fold, whatever their photos."""
    unknown = CutOff(None, 0, 0)
    row = Calibration(None, unknown, CutOff(2.0, 20, 20), CutOff(2.0, 20, 20))
    with app.engine.begin() as connection:
        calibration.replace(connection, app.catalog.model().id, [row])


def fill_years(app: App) -> None:
    """Thirty different products, and one that is there for six years with six photos."""
    for n in range(30):
        title = f"{NOUNS[n % 12]} {NOUNS[(5 * n + 1) % 12]} {'abcdefghij'[n // 3]}ovar"
        add_titled(app, f"D{n:02}", title, n, brand=f"brand {'xyz'[n % 3]}")
    for year in range(2018, 2024):
        add_titled(app, f"Y{year}", "Kestrel long coat", 500 + year, brand="Kestrel", year=year)
    all_pictures_agree(app)
    app.indexer.rebuild()
