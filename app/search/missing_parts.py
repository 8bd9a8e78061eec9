"""What PostgreSQL nominates in place of the parts of a build that did not answer.

Such a part is a range of picture ids. Its rows that did not change since the build are compared in
the snapshot of the search, so that the nominees are those of all rows of the build.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from app.db.queries import part_ranges
from app.db.queries.part_ranges import PassingIds
from app.index.id_selectors import SentIds
from app.index.nominees import Nominees
from app.search.retrieval import WINDOW_NOMINEES, FetchRound, RetrievalRequest
from app.types import Build, BuildPart, Model, Vectors
from app.vectors import round_to_float16


def with_missing_parts(
    nominees: Nominees, request: RetrievalRequest, build: Build, fetch_round: FetchRound,
    exact_rows: int,
) -> Nominees:  # fmt: skip
    """The nominees of a round with those of the parts that did not answer, from PostgreSQL: from
    more than `exact_rows` rows by pgvector's index."""
    selector = fetch_round.selector or fetch_round.passing
    found, cutoffs = list[NDArray[np.int64]](), list[float]()
    for part in nominees.missing:
        excluded = None
        if fetch_round.excluded is not None:
            excluded = fetch_round.excluded.within(part.first, part.last)
        ids, cutoff = part_ranges.nearest_of_part(
            request.connection, request.model, build, part, request.vector, fetch_round.n,
            passing=None if selector is None else _of_part(selector.within(part.first, part.last)),
            excluded=[] if excluded is None else excluded.tolist(), exact_rows=exact_rows,
        )  # fmt: skip
        found.append(ids)
        cutoffs += [] if cutoff is None else [cutoff]
    return nominees.joined(np.concatenate(found), max(cutoffs, default=None))


def windows_of_missing_parts(
    connection: Connection, model: Model, build: Build, near: Vectors,
    missing: Sequence[BuildPart], exact_rows: int,
) -> NDArray[np.int64]:  # fmt: skip
    """What `nominate_windows` lacks of the parts that did not answer: ids, (n, m)."""
    rows = [
        np.concatenate([
            part_ranges.nearest_of_part(
                connection, model, build, part, vector, WINDOW_NOMINEES,
                passing=None, excluded=[], exact_rows=exact_rows,
            )[0]
            for part in missing
        ])
        for vector in round_to_float16(near)
    ]  # fmt: skip
    ids = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int64)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = found
    return ids


def _of_part(sent: SentIds) -> PassingIds:
    if sent.bits is not None:
        return PassingIds(sent.bits.tobytes(), 8 * sent.begin)
    return PassingIds(None, ids=[] if sent.ids is None else sent.ids.tolist())


def of_missing_parts(build: Build, missing: Sequence[BuildPart]) -> str:
    """What was done about the parts that did not answer, as sentences without a full stop."""
    numbers, count = [str(part.number + 1) for part in missing], len(build.parts)
    which = f"part {numbers[0]} of {count} did not answer in time"
    done = "its pictures were compared in PostgreSQL"
    if len(numbers) > 1:
        listed = f"{', '.join(numbers[:-1])} and {numbers[-1]}"
        which = f"parts {listed} of {count} did not answer in time"
        done = "their pictures were compared in PostgreSQL"
    return f"{which}; {done}"
