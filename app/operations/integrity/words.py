"""Checks identity keys against the normaliser, and verdicts against each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from sqlalchemy import Engine

from app.db import locks
from app.db.engine import snapshot
from app.db.locks import LockKey
from app.db.queries import products, verdicts
from app.duplicates.normalization import identity_key
from app.duplicates.union_find import UnionFind
from app.operations.integrity.findings import (
    ExampleTally,
    Finding,
    find_and_repair,
)
from app.types import ProgressCallback, Verdict

BATCH = 2000


def find(engine: Engine, repair: bool, notify: ProgressCallback) -> Iterator[Finding]:
    """Identity keys that differ from the normaliser's, and contradicting verdicts."""
    renew = partial(_renew, engine) if repair else None
    if (keys := find_and_repair(partial(_keys, engine, notify), renew)) is not None:
        yield keys
    with snapshot(engine) as connection:
        decided = verdicts.all_verdicts(connection)
    if broken := list(contradictions(decided)):
        yield Finding(
            "verdicts-contradict", "warning", "verdicts that contradict others", len(broken),
            tuple(f"{verdict.sku_a} differs from {verdict.sku_b}" for verdict in broken[:5]),
            "Other verdicts say that these are the same. Decide again with `lookalike duplicates "
            "decide`.",
        )  # fmt: skip


def contradictions(decided: Iterable[Verdict]) -> Iterator[Verdict]:
    """The "different" verdicts on pairs that "same" verdicts connect, also indirectly."""
    given = list(decided)
    groups = UnionFind()
    for verdict in given:
        if verdict.same:
            groups.join(verdict.sku_a, verdict.sku_b)
    for verdict in given:
        if not verdict.same and groups.find(verdict.sku_a) == groups.find(verdict.sku_b):
            yield verdict


def _keys(engine: Engine, notify: ProgressCallback) -> Finding | None:
    wrong = ExampleTally()
    after: int | None = 0
    seen = 0
    while after is not None:
        with snapshot(engine) as connection:
            rows = products.identity_key_batch(connection, after, BATCH)
        for _, key, product in rows:
            if identity_key(product) != key:
                wrong.add(product.sku)
        seen += len(rows)
        notify(f"the words of {seen:,} products")
        after = rows[-1][0] if rows else None
    return wrong.finding(
        "identity-keys", "warning", "products whose identity key is not of their words",
        "Another normaliser or another program wrote them, and duplicates are missed. Run "
        "`lookalike check --repair`.",
    )  # fmt: skip


def _renew(engine: Engine) -> str:
    """Renew the identity keys of all products; `lookalike migrate` renews outdated ones only."""
    after: int | None = 0
    renewed = 0
    while after is not None:
        with locks.transaction(engine) as connection:
            locks.acquire(connection, LockKey.CATALOG_WRITE)
            rows = products.identity_key_batch(connection, after, BATCH)
            keys: Mapping[int, str] = {
                id_: new for id_, key, product in rows if (new := identity_key(product)) != key
            }
            if keys:
                products.update_identity_keys(connection, keys)
        renewed += len(keys)
        after = rows[-1][0] if rows else None
    return f"{renewed} identity keys were renewed"
