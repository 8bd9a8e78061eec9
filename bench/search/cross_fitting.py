"""Fits on half of the products and judges on the other half: the lead that objects need."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEADS = np.round(np.arange(0.10, 0.66, 0.01), 2)
WEIGHT = 3
SMOOTHED = 3
DIVISIONS = 100


@dataclass(frozen=True)
class Judged:
    """A photo's sku, the rank of its product (0 is first) by the whole photo and by the merged
    list, and the lead of its best object (-inf without any)."""

    sku: str
    whole: int
    merged: int
    lead: float


Sets = Mapping[str, Sequence[Judged]]


def half(sku: str) -> bool:
    """The half of the products that a sku belongs to."""
    return hashlib.sha256(sku.encode()).digest()[0] % 2 == 1


def interval(differences: NDArray[np.float64]) -> str:
    """The mean of paired differences with its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    means = [rng.choice(differences, len(differences)).mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def differences(photos: Sequence[Judged], lead: float, k: int) -> NDArray[np.float64]:
    """For each photo whether its product is among the first k if objects need a lead, less whether
    it is by the whole photo: -1, 0 or 1, (n,)."""
    return np.array(
        [(each.merged < k) - (each.whole < k) if each.lead >= lead else 0 for each in photos],
        np.float64,
    )


def smallest_lead(sets: Sets, shop: Sequence[str], allowed: float = 0.0) -> float:
    """The smallest of `LEADS` that costs no set of `shop` more than `allowed` of recall@1 or
    recall@5; the largest if all do."""
    for lead in LEADS:
        losses = [-differences(sets[name], lead, k).mean() for name in shop for k in (1, 5)]
        if max(losses) <= allowed:
            return float(lead)
    return float(LEADS[-1])


def weighed_lead(sets: Sets, shop: Sequence[str]) -> float:
    """The one of `LEADS` with the largest sum of the changes of recall@1 and recall@5, those of the
    sets of `shop` times `WEIGHT`, as a mean of the leads up to `SMOOTHED` steps away, so that no
    single photo decides."""
    weights = {name: WEIGHT if name in shop else 1 for name in sets}
    sums = [
        sum(
            weight * differences(sets[name], lead, k).mean()
            for name, weight in weights.items()
            for k in (1, 5)
        )
        for lead in LEADS
    ]
    width = 2 * SMOOTHED + 1
    means = np.convolve(np.pad(sums, SMOOTHED, "edge"), np.full(width, 1 / width), "valid")
    return float(LEADS[means.argmax()])


def report_lead(sets: Sets, shop: Sequence[str]) -> None:
    """Print recall of each set with leads fitted on the other half of the products, and its paired
    difference from the whole photo. `shop` names the sets that should lose nothing."""
    for name, fit in (("weighed", weighed_lead), ("smallest without a loss", smallest_lead)):
        leads = {side: fit(of_half(sets, not side), shop) for side in (False, True)}
        print(
            f"lead, {name}: {fit(sets, shop):.2f} fitted on all, "
            f"{leads[False]:.2f} and {leads[True]:.2f} on a half and judged on the other"
        )
        for group, photos in sets.items():
            figures = []
            for k in (1, 5):
                gains = np.concatenate(
                    [differences(of_half(sets, side)[group], leads[side], k) for side in leads]
                )
                recall = np.mean([each.whole < k for each in photos]) + gains.mean()
                figures.append(f"recall@{k} {recall:.3f} ({interval(gains)})")
            print(f"  {group} ({len(photos)}): {', '.join(figures)}")


def report_divisions(sets: Sets, shop: Sequence[str]) -> None:
    """Print what the weighed lead gives over `DIVISIONS` random divisions of the products in two,
    each half judged by the lead of the other: means, and for the changes the 5th and the 95th
    percentile. One division alone depends on a few photos."""
    skus = sorted({photo.sku for photos in sets.values() for photo in photos})
    gains: dict[tuple[str, int], list[float]] = {}
    leads = []
    for seed in range(DIVISIONS):
        drawn = np.random.default_rng(seed).permutation(len(skus)) % 2
        sides = dict(zip(skus, drawn, strict=True))
        judged: dict[tuple[str, int], list[NDArray[np.float64]]] = {}
        for side in (0, 1):
            fitted = {
                name: [photo for photo in photos if sides[photo.sku] != side]
                for name, photos in sets.items()
            }
            leads.append(weighed_lead(fitted, shop))
            for name, photos in sets.items():
                others = [photo for photo in photos if sides[photo.sku] == side]
                for k in (1, 5):
                    judged.setdefault((name, k), []).append(differences(others, leads[-1], k))
        for key, parts in judged.items():
            gains.setdefault(key, []).append(float(np.concatenate(parts).mean()))
    print(f"lead, weighed, {DIVISIONS} random divisions: {min(leads):.2f} to {max(leads):.2f}")
    for (name, k), found in gains.items():
        low, high = np.percentile(found, (5, 95))
        print(f"  {name} recall@{k}: {np.mean(found):+.3f} [{low:+.3f}, {high:+.3f}]")


def of_half(sets: Sets, side: bool) -> dict[str, list[Judged]]:
    """The photos of one half of the products."""
    return {
        name: [each for each in photos if half(each.sku) == side] for name, photos in sets.items()
    }
