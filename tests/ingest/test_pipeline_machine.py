"""Any sequence of catalogues leaves the contents that a reference model predicts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.bootstrap import App
from support.colours import photo
from support.ingest_results import KEYS, Shop, counted, sha, stored
from support.sources import (
    contents,
    ingest,
    write_csv,
    write_photos,
)

IMAGES = [f"{n}.png" for n in range(5)]


COPIES = {"copy.png": "0.png"}


BAD = ["broken.png", "none.png", "../up.png"]


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "sku": st.sampled_from(["A", "B", "C", "D", "E", "F", ""]),
            "title": st.sampled_from(["", "coat", "hat"]),
            "price": st.sampled_from(["", "1", "2.50", "nan", "x"]),
            "images": st.lists(st.sampled_from([*IMAGES, *COPIES, *BAD]), max_size=4),
            "size": st.sampled_from(["", "XL"]),
        }
    ),
    max_size=12,
)


class Expected:
    """Reference model: the expected contents of the catalogue, from the documented rules."""

    def __init__(self) -> None:
        self.products: Shop = {}

    def run(self, rows: list[dict]) -> Counter[str]:  # type: ignore[type-arg]
        counts: Counter[str] = Counter(read=len(rows))
        seen: set[str] = set()
        for begin in range(0, len(rows), 3):
            # A picture is known if a product shows it when its chunk is written.
            known = {digest for _, shown in self.products.values() for digest, _ in shown}
            mentioned: list[str] = []
            for row in rows[begin : begin + 3]:
                entry = None if row["sku"] in seen else self._entry(row)
                seen.add(row["sku"])
                if entry is None:
                    counts["rejected"] += 1
                    continue
                mentioned += [digest for digest, _ in entry[1]]
                before = self.products.get(row["sku"])
                counts["added" if before is None else
                     "unchanged" if before == entry else "updated"] += 1  # fmt: skip
                self.products[row["sku"]] = entry
            counts["images_embedded"] += len(set(mentioned) - known)
            counts["images_reused"] += len(mentioned) - len(set(mentioned) - known)
        return counts

    def _entry(self, row: dict) -> tuple[tuple[str, ...], list[tuple[str, str]]] | None:  # type: ignore[type-arg]
        if not row["sku"] or row["price"] in ("nan", "x"):
            return None
        good: dict[str, str] = {}
        for name in row["images"]:
            if name not in BAD:
                good.setdefault(sha(IMAGES.index(COPIES.get(name, name))), name)
        if row["images"] and not good:
            return None
        price = f"{float(row['price']):.4f}" if row["price"] else ""
        return (row["title"], price, row["size"]), list(good.items())


@pytest.fixture
def images_folder(tmp_path: Path) -> Path:
    write_photos(tmp_path / "in", range(5))
    (tmp_path / "in" / "copy.png").write_bytes(photo(0, side=8))
    (tmp_path / "in" / "broken.png").write_bytes(photo(0)[:60])
    (tmp_path / "up.png").write_bytes(photo(1))
    return tmp_path / "in"


@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(catalogues=st.lists(ROWS, min_size=1, max_size=3))
def test_any_sequence_of_catalogues_leaves_the_contents_of_the_reference_model(
    app: App, sql: psycopg.Connection, images_folder: Path, small_chunks: None,
    catalogues: list,
) -> None:  # fmt: skip
    sql.execute("TRUNCATE product, picture CASCADE")
    expected = Expected()
    for rows in catalogues:
        # A row of only commas is skipped by the CSV reader, so rows without a sku have a currency.
        lines = [
            {**row, "images": "|".join(row["images"]), "currency": "" if row["sku"] else "EUR"}
            for row in rows
        ]
        columns = [dict.fromkeys(("sku", "title", "price", "images", "size"), "")]
        source = write_csv(images_folder / "c.csv", lines or columns)
        if not lines:
            source.write_text("sku\n")
        report = ingest(app, source, force=True)
        counts = expected.run(rows)
        assert {key: getattr(report, key) for key in KEYS - {"seconds"}} == {
            key: counts[key] for key in KEYS - {"seconds"}
        }
        assert report.read == sum(counted(report))
        assert stored(sql) == expected.products
        pictures = {digest for _, shown in expected.products.values() for digest, _ in shown}
        assert [row[0] for row in contents(sql)["picture"]] == sorted(pictures)
        assert [row[1] for row in contents(sql)["embedding"]] == sorted(pictures)
