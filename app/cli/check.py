"""`lookalike check`: look for damage, like fsck."""

from __future__ import annotations

import time
from pathlib import Path

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json
from app.operations.integrity.findings import Finding, IntegrityReport

EVERY_S = 10.0
MARKS = {"error": "BAD ", "warning": "bad ", "info": "note"}


@click.command()
@click.option(
    "--images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder of original pictures, to be compared with what was loaded; may be repeated.",
)
@click.option("--encoder", is_flag=True, help="Load the encoder and compare it with the model.")
@click.option("--repair", is_flag=True, help="Repair what can be without losing anything.")
@as_json
@click.pass_context
def check(
    context: click.Context, images: tuple[Path, ...], encoder: bool, repair: bool, as_json: bool
) -> None:  # fmt: skip
    """Look for damage in catalogue and index; the exit code is 0 if there is none, else 1.

    Reads every row, thumbnail and index file, and with --images every original. Searches and loads
    go on meanwhile.
    """
    from app.operations.integrity import CheckOptions
    from app.operations.integrity import check as look
    from ingest.local_files import LocalPictures

    with App() as app:
        folders = [LocalPictures(each, max_bytes=app.limits.max_bytes) for each in images]
        wanted = CheckOptions(folders, app.encoder if encoder else None, repair)
        report = look(app.engine, app.files, app.limits, wanted, tick=_ThrottledProgress())
    if as_json:
        print_json(report.as_dict())
    else:
        _print(report)
    context.exit(0 if report.healthy else 1)


class _ThrottledProgress:
    """Says how far the check has come, every ten seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + EVERY_S

    def __call__(self, said: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY_S
            note(said)


def _print(report: IntegrityReport) -> None:
    for finding in report.findings:
        click.echo(_line(finding))
    if not report.findings:
        click.echo("No damage was found.")
    for each in report.left_out:
        note(f"Not looked at: {each}.")


def _line(finding: Finding) -> str:
    mark = "ok  " if finding.repaired else MARKS[finding.severity]
    named = ", ".join(finding.examples) + (", …" if finding.count > len(finding.examples) else "")
    todo = f"Repaired: {finding.repaired}." if finding.repaired else finding.advice
    return f"{mark} {finding.what}: {finding.count} ({named})\n     {todo}"
