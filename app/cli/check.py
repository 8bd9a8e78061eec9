"""`lookalike check`: look for damaged data in catalogue and index, as fsck does in files."""

from __future__ import annotations

from pathlib import Path

import click

from app.bootstrap import App
from app.cli.output import ThrottledProgress, as_json, note, print_json
from app.operations.integrity.findings import Finding, IntegrityReport

MARKS = {"error": "BAD ", "warning": "bad ", "info": "note"}


@click.command()
@click.option(
    "--images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Compare the original pictures in this folder with the catalogue; may be repeated.",
)
@click.option(
    "--encoder",
    is_flag=True,
    help="Load the encoder and check that it is the model's.",
)
@click.option("--repair", is_flag=True, help="Repair what can be repaired without losing data.")
@as_json
@click.pass_context
def check(
    context: click.Context, images: tuple[Path, ...], encoder: bool, repair: bool, as_json: bool
) -> None:  # fmt: skip
    """Look for damage in catalogue and index; exit code 1 if any.

    Reads every row, thumbnail and index file, and with --images every original picture. Searches
    and loads go on meanwhile.
    """
    from app.operations.integrity import CheckOptions
    from app.operations.integrity import check as run_checks
    from ingest.local_files import LocalPictures

    with App() as app:
        folders = [LocalPictures(each, max_bytes=app.limits.max_bytes) for each in images]
        options = CheckOptions(
            folders, app.encoder if encoder else None, repair, app.settings.shared_picture_products,
            app.settings.event_days,
        )  # fmt: skip
        report = run_checks(app.engine, app.files, app.limits, options, notify=ThrottledProgress())
    if as_json:
        print_json(report.as_dict())
    else:
        _print(report)
    context.exit(0 if report.healthy else 1)


def _print(report: IntegrityReport) -> None:
    for finding in report.findings:
        click.echo(_line(finding))
    if not report.findings:
        click.echo("No damage was found.")
    for each in report.left_out:
        note(f"Not checked: {each}.")


def _line(finding: Finding) -> str:
    mark = "ok  " if finding.repaired else MARKS[finding.severity]
    examples = ", ".join(finding.examples)
    if finding.count > len(finding.examples):
        examples += ", …"
    advice = f"Repaired: {finding.repaired}." if finding.repaired else finding.advice
    return f"{mark} {finding.what}: {finding.count} ({examples})\n     {advice}"
