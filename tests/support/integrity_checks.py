"""How the tests of `lookalike check` run it, and look at its findings."""

from __future__ import annotations

from pathlib import Path

from app.bootstrap import App
from app.operations.integrity import CheckOptions, Finding, IntegrityReport, check
from ingest.local_files import LocalPictures

FAKE_HASH = "00" * 32


CHECK_ONLY, REPAIR = CheckOptions(), CheckOptions(repair=True)


def run_check(app: App, options: CheckOptions = CHECK_ONLY) -> IntegrityReport:
    return check(app.engine, app.files, app.limits, options)


def only_finding(app: App, kind: str, options: CheckOptions = CHECK_ONLY) -> Finding:
    """The only finding, which must be of this kind."""
    report = run_check(app, options)
    assert [each.kind for each in report.findings] == [kind], report
    return report.findings[0]


def repaired(app: App, kind: str, options: CheckOptions = REPAIR) -> Finding:
    """The only finding, which is repaired and does not appear again."""
    finding = only_finding(app, kind, options)
    assert finding.repaired and not finding.wrong
    assert run_check(app).findings == ()
    return finding


def sources(*folders: Path, app: App) -> list[LocalPictures]:
    return [LocalPictures(folder, max_bytes=app.limits.max_bytes) for folder in folders]


# The index


def file_of(app: App) -> Path:
    return next(app.files.folder.glob("*.faiss"))


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
