"""What was built and measured: an index, the limits between paths, and cut-offs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from app.types.result import SimilarityLabel

PARTS = "parts"
"""The parameter of a build that lists its files, if it is in parts: `BuildPart` without numbers."""

IN_PARTS = "-parts"
"""Ends the kind of a build in parts. Versions that do not know such builds refuse them by it."""


@dataclass(frozen=True, slots=True)
class BuildPart:
    """A file of a build in parts, by its `number` from 0: its rows are those whose picture ids are
    from `first` to `last`."""

    number: int
    sha256: str
    size: int
    rows: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Build:
    """A row of `index_build`: one immutable FAISS index, in one file or in parts.

    `snapshot` is a pg_snapshot, and `in_progress` the xid8[] of the transactions that were open in
    it; both in PostgreSQL's text format. A build in parts has the sha256 of those of its files, one
    a line, and their size together; `part` is the number of a part that stands alone (`files`).
    """

    id: int
    model_id: int
    snapshot: str
    in_progress: str
    kind: str
    parameters: Mapping[str, Any]
    rows: int
    sha256: str
    size: int
    recall_at_10: float | None
    recall_at_50: float | None
    recall_filtered: float | None
    recall_sample: int | None
    seconds: float
    state: str
    reason: str | None
    finished_at: datetime | None
    part: int | None = None

    @property
    def index_kind(self) -> str:
        """The kind of index that its files have."""
        return self.kind.removesuffix(IN_PARTS)

    @property
    def parts(self) -> tuple[BuildPart, ...]:
        """The parts in the order of their ids; none of a build in one file."""
        listed = enumerate(self.parameters.get(PARTS, ()))
        return tuple(BuildPart(number, **part) for number, part in listed)

    @property
    def files(self) -> tuple[Build, ...]:
        """What each file of the build holds, as a build of its own: itself, or its parts."""
        return tuple(
            replace(
                self, kind=self.index_kind, sha256=part.sha256, size=part.size, rows=part.rows,
                part=part.number,
                parameters={name: each for name, each in self.parameters.items() if name != PARTS},
            )
            for part in self.parts
        ) or (self,)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Crossovers:
    """The limits between the paths of a filtered search.

    If at most `exact_pictures` pictures pass, SQL compares them all. If at least the share
    `deep_share` (0 to 1) of the products passes, the index is searched deeper and filtered
    afterwards. In between, the index searches only among the pictures that pass.
    """

    exact_pictures: int = 500
    deep_share: float = 0.1


@dataclass(frozen=True, slots=True)
class CutOff:
    """The cosine distance (0 to 2) up to which a meaning holds; None if unknown.

    Fitted from `pairs` pairs of pictures for which the meaning holds, and `others` for which it
    does not.
    """

    distance: float | None
    pairs: int
    others: int


@dataclass(frozen=True, slots=True)
class CloseCut:
    """The best cosine similarity (-1 to 1) below which a photo has no close match; None if unknown.

    The probability that the product shown is in the catalogue is
    1 / (1 + exp((midpoint - best similarity) / width)). Fitted from `present` photos of products in
    the catalogue and `absent` ones asked without the category of their product. `detected` and
    `false_alarms` are the shares (0 to 1) of both that are below a similarity that was fitted
    without them.
    """

    similarity: float | None
    midpoint: float | None
    width: float | None
    present: int
    absent: int
    detected: float | None
    false_alarms: float | None


UNKNOWN_CLOSE_CUT = CloseCut(None, None, None, 0, 0, None, None)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A row of `calibration`: the cut-offs of a category, or of the whole catalogue (None).

    Known cut-offs of labels do not decrease from `same_photo` to `same_product` to `similar`.
    """

    category: str | None
    same_photo: CutOff
    same_product: CutOff
    similar: CutOff
    close: CloseCut = UNKNOWN_CLOSE_CUT


LABEL_FIELDS: Mapping[SimilarityLabel, str] = {
    "same photo": "same_photo",
    "same product": "same_product",
    "similar": "similar",
}
"""The labels from the strongest to the weakest, with the field of their cut-off."""


def label_for(
    distance: float, category: str | None, calibrations: Mapping[str | None, Calibration]
) -> SimilarityLabel | None:
    """The strongest label that holds at a cosine distance (0 to 2), or None.

    `calibrations` are the rows of one model by category. The cut-off of a category takes precedence
    over that of the whole catalogue (None).
    """
    rows = [row for row in map(calibrations.get, (category, None)) if row is not None]
    for label, field_name in LABEL_FIELDS.items():
        cut_offs = (getattr(row, field_name).distance for row in rows)
        cut_off = next((each for each in cut_offs if each is not None), None)
        if cut_off is not None and distance <= cut_off:
            return label
    return None
