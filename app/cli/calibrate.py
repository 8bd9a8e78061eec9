"""`lookalike calibrate`: fit the distance cut-offs of the active model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.evaluation.calibration import missing_reason
from app.evaluation.calibration_run import calibrate as fit
from app.types import LABEL_FIELDS, Calibration


@click.command()
@as_json
def calibrate(as_json: bool) -> None:
    """Fit the distance cut-offs of the similarity labels.

    The labels are "same photo", "same product" and "similar". Within a minute, search results show
    them next to the similarity. Run it again after many products or verdicts were added.
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
    }
