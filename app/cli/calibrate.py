"""`lookalike calibrate`: fit the cut-offs of the active model to the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.evaluation.calibration import missing_reason
from app.evaluation.calibration_run import calibrate as fit
from app.evaluation.close_match import why_no_cut
from app.types import LABEL_FIELDS, Calibration


@click.command()
@as_json
def calibrate(as_json: bool) -> None:
    """Fit the distance cut-offs of labels, and what has no close match.

    The labels are "same photo", "same product" and "similar". Within a minute, search results show
    them next to the similarity, and say "no close match" for photos whose best similarity is too
    low. Run it again after many products or verdicts were added.
    """
    with App() as app:
        calibrations = fit(app.engine, app.encoder)
    if as_json:
        print_json([_as_dict(row) for row in calibrations])
        return
    columns = ("category", "means", "distance up to", "similarity from", "pairs", "others")
    print_table(columns, [row for each in calibrations for row in _table_rows(each)])
    for label, field in LABEL_FIELDS.items():
        if reason := missing_reason(getattr(calibrations[0], field)):
            note(f'There is no "{label}" cut-off for the whole catalogue: {reason}.')
    _print_close_cuts(calibrations)


def _print_close_cuts(calibrations: Sequence[Calibration]) -> None:
    columns = ("category", "close from", "present", "absent", "detected", "false alarms")
    known = [row for row in calibrations if row.close.similarity is not None]
    if known:
        click.echo()
        print_table(columns, [_close_row(row) for row in known])
    if reason := why_no_cut(calibrations[0].close):
        note(f'There is no "no close match" cut-off for the whole catalogue: {reason}.')


def _close_row(calibration: Calibration) -> tuple[object, ...]:
    cut = calibration.close
    shares = (f"{share:.1%}" for share in (cut.detected, cut.false_alarms) if share is not None)
    category = calibration.category or "(all)"
    return (category, f"{cut.similarity:.4f}", cut.present, cut.absent, *shares)


def _table_rows(calibration: Calibration) -> Iterator[tuple[object, ...]]:
    for label, field in LABEL_FIELDS.items():
        cut = getattr(calibration, field)
        if cut.distance is not None:
            distance, similarity = f"{cut.distance:.4f}", f"{1 - cut.distance:.4f}"
            category = calibration.category or "(all)"
            yield category, label, distance, similarity, cut.pairs, cut.others


def _as_dict(calibration: Calibration) -> dict[str, object]:
    cuts = {field: getattr(calibration, field) for field in LABEL_FIELDS.values()}
    return {
        "category": calibration.category,
        **{field: asdict(cut) | {"reason": missing_reason(cut)} for field, cut in cuts.items()},
        "close": asdict(calibration.close) | {"reason": _why_no_close_cut(calibration)},
    }


def _why_no_close_cut(calibration: Calibration) -> str | None:
    if calibration.category is None or calibration.close.similarity is not None:
        return why_no_cut(calibration.close)
    return "the category has no cut-off of its own, only the catalogue may have one"
