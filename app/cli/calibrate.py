"""`lookalike calibrate`: fit what distances mean under the active model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.evaluation.calibration import why_not
from app.evaluation.calibration_run import calibrate as fit
from app.types import LABEL_FIELDS, Calibration


@click.command()
@as_json
def calibrate(as_json: bool) -> None:
    """Fit the distances that mean "same photo", "same product" and "similar".

    Searches speak these words beside the similarity within a minute. Run it again after many
    products or verdicts have come.
    """
    with App() as app:
        rows = fit(app.engine, app.encoder)
    if as_json:
        print_json([_figures(row) for row in rows])
        return
    columns = ("category", "means", "distance up to", "similarity from", "pairs", "others")
    print_table(columns, [line for row in rows for line in _lines(row)])
    for word, field in LABEL_FIELDS.items():
        if reason := why_not(getattr(rows[0], field)):
            note(f'Nothing is called "{word}" in the whole catalogue: {reason}.')


def _lines(row: Calibration) -> Iterator[tuple[object, ...]]:
    for word, field in LABEL_FIELDS.items():
        cut = getattr(row, field)
        if cut.distance is not None:
            yield (
                row.category or "(all)", word, f"{cut.distance:.4f}", f"{1 - cut.distance:.4f}",
                cut.pairs, cut.others,
            )  # fmt: skip


def _figures(row: Calibration) -> dict[str, object]:
    cuts = {field: getattr(row, field) for field in LABEL_FIELDS.values()}
    return {
        "category": row.category,
        **{field: asdict(cut) | {"reason": why_not(cut)} for field, cut in cuts.items()},
    }
