"""Recall of searching by the objects in a photo, its cost in encodes, and "no close match".

    python -m bench.data.pasted_photos DATA SETS
    python -m bench.search.objects DATA SETS --cache FOLDER

DATA holds `clothing/` and `grocery/`. The catalogue is both of them. For pasted photos the products
of SETS are in it as cut-outs on white, as a shop photographs them; the photos show the same
cut-outs. Ranks are computed with numpy from the vectors that a search uses, by the functions of
`app.search`. Vectors are kept in FOLDER, by the encoder's fingerprint. One encode is a picture of
the encoder's input size; a feature map costs as many as its pixels.

Thresholds and the lead that objects need are cross-fitted: products are split in two by their sku's
sha256, and what is fitted on one half is measured on the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from app.search.confidence import SHIPPED, Curve, curve_for
from app.search.regions import limits_of
from app.search.vector_cache import PhotoObjects
from app.types import Model
from bench.data.pasted_photos import SETS
from bench.search.cross_fitting import Judged, half, interval, report_divisions, report_lead
from bench.search.photo_answers import (
    Answer,
    CachedEncoder,
    Catalogue,
    Photo,
    answer,
    photos,
    rank,
)

FALSE_ALARMS = 0.05


def judged(catalogue: Catalogue, encoder: CachedEncoder, group: Sequence[Photo]) -> list[Judged]:
    """What the lead that objects need is fitted on."""
    found = []
    for photo in group:
        each, expected = answer(catalogue, encoder, photo), catalogue.same[photo.skus[0]]
        together = rank(replace(each, lead=None).merged, expected)
        found.append(Judged(photo.skus[0], rank(each.whole, expected), together, each.led_by))
    return found


def report(catalogue: Catalogue, encoder: CachedEncoder, name: str, group: list[Photo]) -> None:
    """Print recall of the whole, of the merged list and of the true box, and the cost."""
    whole, merged, boxed, costs = [], [], [], []
    for photo in group:
        found = answer(catalogue, encoder, photo)
        expected = catalogue.same[photo.skus[0]]
        whole.append(rank(found.whole, expected))
        merged.append(rank(found.merged, expected))
        if photo.boxes[0] != (0, 0, 1, 1):
            vector = encoder.picture(photo.path, photo.boxes[0])
            boxed.append(rank(catalogue.similarities(vector[None])[0], expected))
        costs.append(found.cost)
    a, b = np.array(whole), np.array(merged)
    print(f"{name}: {len(group)} photos, {np.mean(costs):.2f} encodes (at most {max(costs):.2f})")
    for k in (1, 5):
        known = f", true box {np.mean(np.array(boxed) < k):.3f}" if boxed else ""
        difference = interval((b < k).astype(float) - (a < k))
        print(
            f"  recall@{k}: whole {np.mean(a < k):.3f}, objects {np.mean(b < k):.3f} "
            f"({difference}){known}"
        )


def report_two(catalogue: Catalogue, encoder: CachedEncoder, group: list[Photo]) -> None:
    """Print how often both products are among the first five of a region of their own."""
    both, costs = [], []
    for photo in group:
        found = answer(catalogue, encoder, photo)
        hit = [
            {place for place, each in enumerate(found.objects)
             if rank(each, catalogue.same[sku]) < 5}
            for sku in photo.skus
        ]  # fmt: skip
        both.append(bool(hit[0] and hit[1] and len(hit[0] | hit[1]) > 1))
        costs.append(found.cost)
    print(f"two: {len(group)} photos, both found {np.mean(both):.3f}, {np.mean(costs):.2f} encodes")


def report_absent(
    catalogue: Catalogue, encoder: CachedEncoder, name: str, group: list[Photo]
) -> None:
    """Print, for the best similarity of a photo, how many photos of absent categories are told from
    those of present ones, with the threshold fitted on the other half of the products."""
    present, absent = with_and_without(catalogue, encoder, group)
    yes, no = best_similarities(present), best_similarities(absent)
    halves = np.array([half(photo.skus[0]) for photo in group])
    detected, alarms = [], []
    for side in (False, True):
        cut_off = np.quantile(yes[halves != side], FALSE_ALARMS)
        detected += list(no[halves == side] < cut_off)
        alarms += list(yes[halves == side] < cut_off)
    print(
        f"{name}: absent categories detected {np.mean(detected):.3f} at {np.mean(alarms):.3f} "
        "false alarms by one cut-off, fitted on the other half of the products"
    )
    for share in (0.01, 0.02, 0.05, 0.1, 0.2):
        cut_off = np.quantile(yes, share)
        found = np.mean(no < cut_off)
        print(f"  {share:.0%} false alarms below {cut_off:.3f}: {found:.3f} detected")
    print(f"  {fit(yes, no, FALSE_ALARMS)}")
    if encoder.model.fingerprint in SHIPPED:
        report_shipped(catalogue, encoder.model, group, present, absent)


def report_shipped(
    catalogue: Catalogue,
    model: Model,
    group: list[Photo],
    present: Sequence[Answer],
    absent: Sequence[Answer],
) -> None:
    """Print how often the shipped curves say "no close match", and how often that is right: the
    product is not in the catalogue, or it is not the first match."""
    said = [
        np.array([not is_close(model, found) for found in answers]) for answers in (present, absent)
    ]
    wrong = np.array(
        [
            rank(found.merged, catalogue.same[photo.skus[0]]) > 0
            for photo, found in zip(group, present, strict=True)
        ]
    )
    right = said[1].sum() + (said[0] & wrong).sum()
    print(
        f"  shipped: says no close match for {said[1].mean():.3f} of absent and "
        f"{said[0].mean():.3f} of present ones; right {right / max(sum(map(np.sum, said)), 1):.3f}"
    )


def is_close(model: Model, found: Answer) -> bool:
    """Whether a search calls its best match close."""
    leads = found.lead is not None and found.leads
    photo = found.seen or PhotoObjects(float(found.whole.max()))
    curve = curve_for(model, replace(photo, leads=leads))
    assert curve is not None
    return bool(found.merged.max() >= curve.close)


def with_and_without(
    catalogue: Catalogue, encoder: CachedEncoder, group: list[Photo]
) -> tuple[list[Answer], list[Answer]]:
    """The answers to photos with their product in the catalogue, and without all products of its
    category."""
    present = [answer(catalogue, encoder, photo) for photo in group]
    absent = [
        answer(
            catalogue, encoder, photo, catalogue.categories != catalogue.category[photo.skus[0]],
        )
        for photo in group
    ]  # fmt: skip
    return present, absent


def best_similarities(answers: Sequence[Answer]) -> NDArray[np.float64]:
    """The best similarity in each answer, (n,)."""
    return np.array([found.merged.max() for found in answers], np.float64)


def fit(yes: NDArray[np.float64], no: NDArray[np.float64], share: float) -> Curve:
    """Logistic regression of presence on similarity, with equal weight of both kinds, and the
    similarity that a share of the photos of present products does not reach."""

    def loss(parameters: NDArray[np.float64]) -> float:
        midpoint, width = parameters[0], np.exp(parameters[1])
        present = np.logaddexp(0, (midpoint - yes) / width).mean()
        absent = np.logaddexp(0, (no - midpoint) / width).mean()
        return float(present + absent)

    start = np.array([(np.median(yes) + np.median(no)) / 2, np.log(0.05)])
    midpoint, width = minimize(loss, start, method="Nelder-Mead").x
    return Curve(
        round(float(midpoint), 4),
        round(float(np.exp(width)), 4),
        round(float(np.quantile(yes, share)), 4),
    )


def main() -> None:
    """Parse the command line and print everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100, help="pasted photos of each set")
    parser.add_argument("--every", type=int, default=4, help="of the grocery queries, every Nth")
    parser.add_argument("--only", nargs="+", help="names of sets; every other one is left out")
    arguments = parser.parse_args()
    encoder = CachedEncoder(arguments.cache)
    groups = photos(arguments.data, arguments.sets, arguments.count, arguments.every)
    groups = {name: groups[name] for name in arguments.only or groups}
    white = Catalogue(arguments.data, arguments.sets / "white", encoder)
    real = Catalogue(arguments.data, None, encoder)
    for name, group in groups.items():
        if name == "two":
            report_two(white, encoder, group)
        else:
            report(white if name in SETS else real, encoder, name, group)
        encoder.save()
    fitted = ("plain", "packaged", "loose")
    if limits_of(encoder.model).lead is not None and set(fitted) <= set(groups):
        sets = {
            name: judged(white if name in SETS else real, encoder, groups[name]) for name in fitted
        }
        report_lead(sets, ("packaged", "loose"))
        report_divisions(sets, ("packaged", "loose"))
    for name in ("clean", *fitted):
        if name in groups:
            report_absent(white if name in SETS else real, encoder, name, groups[name])
            encoder.save()


if __name__ == "__main__":
    main()
