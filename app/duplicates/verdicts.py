"""Records what somebody decided about two products, unless earlier verdicts say otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Engine

from app.db import locks
from app.db.engine import check_schema
from app.db.locks import LockKey
from app.db.queries import products, verdicts
from app.db.text import check_text
from app.errors import BadInput, UnknownProduct
from app.types import Verdict


class Contradiction(BadInput):
    """Earlier verdicts say the opposite."""


class AlreadyDecided(BadInput):
    """Somebody has decided about these two products meanwhile."""


def decide(
    engine: Engine,
    sku_a: str,
    sku_b: str,
    same: bool,
    decided_by: str,
    *,
    first: bool = False,
    seen: Verdict | None = None,
) -> Verdict:
    """Record that two products are the same, or that they differ; an earlier verdict is replaced.

    Verdicts hold through others: if A is the same as B and B differs from C, A differs from C.
    Raises Contradiction, naming the verdicts in between, UnknownProduct, and BadInput for a product
    beside itself, for text that PostgreSQL cannot hold, and without a name. With `first`, an
    earlier verdict on the two stays, and AlreadyDecided tells it; so does one that came after the
    verdict `seen`.
    """
    _check(sku_a, sku_b, decided_by)
    with locks.transaction(engine) as connection:
        check_schema(connection)
        locks.acquire(connection, LockKey.VERDICTS)
        _check_known(connection, [sku_a, sku_b])
        around = verdicts.related(connection, [sku_a, sku_b])
        own = [each for each in around if {each.sku_a, each.sku_b} == {sku_a, sku_b}]
        if own and (first or (seen is not None and own[0] != seen)):
            raise AlreadyDecided(f"Meanwhile it was decided: {_told(own[0])}.")
        _check_chain([each for each in around if each not in own], sku_a, sku_b, same)
        return verdicts.record(connection, sku_a, sku_b, same, decided_by.strip())


def _check(sku_a: str, sku_b: str, decided_by: str) -> None:
    for sku in (sku_a, sku_b):
        check_text("sku", sku)
    check_text("name", decided_by)
    if sku_a == sku_b:
        raise BadInput(f"{sku_a} is one product; name two.")
    if not decided_by.strip():
        raise BadInput("Say who decides: a verdict has a name to it.")


def _check_known(connection: Connection, skus: Sequence[str]) -> None:
    found = products.ids(connection, skus)
    unknown = [sku for sku in skus if sku not in found]
    if unknown:
        raise UnknownProduct(f"Nothing was recorded: no product has the sku {', '.join(unknown)}.")


def _check_chain(earlier: Sequence[Verdict], sku_a: str, sku_b: str, same: bool) -> None:
    from_a, from_b = _ways(earlier, sku_a), _ways(earlier, sku_b)
    if same:
        chain = _parted(earlier, from_a, from_b)
        said = "the same"
    else:
        chain = from_a.get(sku_b)
        said = "different"
    if chain is not None:
        raise Contradiction(
            f"{sku_a} and {sku_b} cannot be {said}, because of earlier verdicts: "
            f"{'; '.join(map(_told, chain))}. Change one of those first."
        )


def _ways(earlier: Iterable[Verdict], start: str) -> dict[str, list[Verdict]]:
    """The skus that are the same as one, each with the shortest chain of verdicts that says so."""
    beside: dict[str, list[tuple[str, Verdict]]] = {}
    for verdict in earlier:
        if verdict.same:
            beside.setdefault(verdict.sku_a, []).append((verdict.sku_b, verdict))
            beside.setdefault(verdict.sku_b, []).append((verdict.sku_a, verdict))
    ways: dict[str, list[Verdict]] = {start: []}
    reached = [start]
    for sku in reached:
        for other, verdict in beside.get(sku, ()):
            if other not in ways:
                ways[other] = [*ways[sku], verdict]
                reached.append(other)
    return ways


def _parted(
    earlier: Iterable[Verdict],
    from_a: dict[str, list[Verdict]],
    from_b: dict[str, list[Verdict]],
) -> list[Verdict] | None:
    """The chain from one sku to another that holds a single `different`."""
    for verdict in earlier:
        for one, other in ((verdict.sku_a, verdict.sku_b), (verdict.sku_b, verdict.sku_a)):
            if not verdict.same and one in from_a and other in from_b:
                return [*from_a[one], verdict, *reversed(from_b[other])]
    return None


def _told(verdict: Verdict) -> str:
    said = "is the same as" if verdict.same else "differs from"
    return f"{verdict.sku_a} {said} {verdict.sku_b} (by {verdict.decided_by})"
