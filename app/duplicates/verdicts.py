"""Records verdicts on pairs of products, and refuses those that contradict earlier ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from app.db import locks
from app.db.engine import check_schema
from app.db.locks import LockKey
from app.db.queries import products, verdicts
from app.db.text import check_text
from app.errors import BadInput, UnknownProduct
from app.types import Verdict


class Contradiction(BadInput):
    """Earlier verdicts imply the opposite."""


class AlreadyDecided(BadInput):
    """Another verdict on these two products was recorded meanwhile."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A recorded verdict, and the one on the same pair that it replaced."""

    verdict: Verdict
    earlier: Verdict | None = None


@dataclass(frozen=True, slots=True)
class BulkDecision:
    """What `decide_all` recorded, and why it refused the other pairs; one sentence each."""

    recorded: tuple[Decision, ...]
    refused: tuple[str, ...]


def decide_all(
    engine: Engine, pairs: Iterable[tuple[str, str]], same: bool, decided_by: str
) -> BulkDecision:
    """Record one verdict on several pairs, each in its own transaction, in their order.

    A refused pair does not prevent the others.
    """
    recorded: list[Decision] = []
    refused: list[str] = []
    for sku_a, sku_b in pairs:
        try:
            decision = _decide(engine, sku_a, sku_b, same, decided_by)
        except (BadInput, UnknownProduct) as exc:
            refused.append(str(exc))
        else:
            recorded.append(decision)
    return BulkDecision(tuple(recorded), tuple(refused))


def undo(engine: Engine, decisions: Sequence[Decision]) -> None:
    """Take verdicts back, the last one first, all or none; the earlier ones apply again.

    Raises AlreadyDecided if one of them was replaced meanwhile, and Contradiction if an earlier one
    contradicts verdicts recorded since.
    """
    with locks.transaction(engine) as connection:
        check_schema(connection)
        locks.acquire(connection, LockKey.VERDICTS)
        for decision in reversed(decisions):
            sku_a, sku_b = decision.verdict.sku_a, decision.verdict.sku_b
            own, others = _related(connection, sku_a, sku_b)
            if own != decision.verdict:
                meanwhile = _sentence(own) if own else "the verdict was taken back"
                raise AlreadyDecided(f"Nothing was undone: meanwhile {meanwhile}.")
            verdicts.remove(connection, sku_a, sku_b)
            earlier = decision.earlier
            if earlier is not None:
                _check_chain(others, sku_a, sku_b, earlier.same)
                verdicts.restore(connection, earlier)


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

    Verdicts are transitive: if A is the same as B and B differs from C, A differs from C. Raises
    Contradiction with the verdicts in between, UnknownProduct, and BadInput if the two skus are
    equal, a text cannot be stored by PostgreSQL, or the name is empty. Raises AlreadyDecided if
    `first` is set and the pair has a verdict, or if its verdict is not the one given as `seen`.
    """
    return _decide(engine, sku_a, sku_b, same, decided_by, first=first, seen=seen).verdict


def _decide(
    engine: Engine,
    sku_a: str,
    sku_b: str,
    same: bool,
    decided_by: str,
    *,
    first: bool = False,
    seen: Verdict | None = None,
) -> Decision:
    _check(sku_a, sku_b, decided_by)
    with locks.transaction(engine) as connection:
        check_schema(connection)
        locks.acquire(connection, LockKey.VERDICTS)
        _check_known(connection, [sku_a, sku_b])
        own, others = _related(connection, sku_a, sku_b)
        if own is not None and (first or (seen is not None and own != seen)):
            raise AlreadyDecided(f"Meanwhile it was decided: {_sentence(own)}.")
        _check_chain(others, sku_a, sku_b, same)
        verdict = verdicts.record(connection, sku_a, sku_b, same, decided_by.strip())
        return Decision(verdict, own)


def _related(
    connection: Connection, sku_a: str, sku_b: str
) -> tuple[Verdict | None, list[Verdict]]:
    """The verdict on these two products, None without, and the others that bear on them."""
    related = verdicts.related(connection, [sku_a, sku_b])
    own = next((each for each in related if {each.sku_a, each.sku_b} == {sku_a, sku_b}), None)
    return own, [each for each in related if each != own]


def _check(sku_a: str, sku_b: str, decided_by: str) -> None:
    for sku in (sku_a, sku_b):
        check_text("sku", sku)
    check_text("name", decided_by)
    if sku_a == sku_b:
        raise BadInput(f"{sku_a} is one product; name two.")
    if not decided_by.strip():
        raise BadInput("Say who decides: a verdict has a name to it.")


def _check_known(connection: Connection, skus: Sequence[str]) -> None:
    known = products.ids(connection, skus)
    unknown = [sku for sku in skus if sku not in known]
    if unknown:
        raise UnknownProduct(f"Nothing was recorded: no product has the sku {', '.join(unknown)}.")


def _check_chain(earlier: Sequence[Verdict], sku_a: str, sku_b: str, same: bool) -> None:
    from_a, from_b = _same_chains(earlier, sku_a), _same_chains(earlier, sku_b)
    if same:
        chain = _different_chain(earlier, from_a, from_b)
        relation = "the same"
    else:
        chain = from_a.get(sku_b)
        relation = "different"
    if chain is not None:
        raise Contradiction(
            f"{sku_a} and {sku_b} cannot be {relation}, because of earlier verdicts: "
            f"{'; '.join(map(_sentence, chain))}. Change one of those first."
        )


def _same_chains(earlier: Iterable[Verdict], start: str) -> dict[str, list[Verdict]]:
    """The skus that verdicts make the same as `start`, each with the shortest chain of verdicts."""
    neighbours: dict[str, list[tuple[str, Verdict]]] = {}
    for verdict in earlier:
        if verdict.same:
            neighbours.setdefault(verdict.sku_a, []).append((verdict.sku_b, verdict))
            neighbours.setdefault(verdict.sku_b, []).append((verdict.sku_a, verdict))
    chains: dict[str, list[Verdict]] = {start: []}
    reached = [start]
    for sku in reached:
        for other, verdict in neighbours.get(sku, ()):
            if other not in chains:
                chains[other] = [*chains[sku], verdict]
                reached.append(other)
    return chains


def _different_chain(
    earlier: Iterable[Verdict],
    from_a: dict[str, list[Verdict]],
    from_b: dict[str, list[Verdict]],
) -> list[Verdict] | None:
    """A chain of verdicts from one sku to the other with exactly one "different" in it."""
    for verdict in earlier:
        for one, other in ((verdict.sku_a, verdict.sku_b), (verdict.sku_b, verdict.sku_a)):
            if not verdict.same and one in from_a and other in from_b:
                return [*from_a[one], verdict, *reversed(from_b[other])]
    return None


def _sentence(verdict: Verdict) -> str:
    a, b, name = verdict.sku_a, verdict.sku_b, verdict.decided_by
    return (
        f"{a} is the same as {b} (by {name})"
        if verdict.same
        else f"{a} differs from {b} (by {name})"
    )
