"""Compares dependencies with the known vulnerabilities, and says where these cannot be had.

    python release/audit.py --requirement release/lowest.txt
    python release/audit.py --local

Runs pip-audit, which skips what it has no data for and then reports no vulnerabilities: a mirror of
the package index often has packages alone. What was skipped is an error here (exit code 3); a
vulnerability is exit code 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

NO_DATA = 3
SOURCES = {
    "--local": ("--local", "--skip-editable"),
    "--requirement": ("--no-deps", "--disable-pip", "--requirement"),
}


def audited(arguments: list[str]) -> dict[str, Any]:
    """The report of pip-audit; where it ends without one, its message ends the program."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(
        [*command, *SOURCES[arguments[0]], *arguments[1:]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        lines = done.stderr.strip().splitlines() or ["pip-audit ended without a word"]
        print(f"The known vulnerabilities cannot be had here: {lines[-1]}", file=sys.stderr)
        sys.exit(NO_DATA)


def verdict(report: dict[str, Any]) -> tuple[int, list[str]]:
    """The exit code, and what there is to say about a report."""
    packages = [each for each in report["dependencies"] if not _ours(each)]
    skipped = [each for each in packages if "skip_reason" in each]
    known = [
        f"{each['name']} {each['version']}: {found['id']}, "
        f"fixed in {', '.join(found['fix_versions']) or 'no version yet'}"
        for each in packages
        for found in each.get("vulns", ())
    ]
    lines = [f"{len(packages) - len(skipped)} of {len(packages)} packages were compared."]
    if skipped:
        lines.append(
            f"The known vulnerabilities of {len(skipped)} cannot be had here, beginning with: "
            f"{skipped[0]['skip_reason']}. Run this where the package index itself answers, "
            "or with PIP_AUDIT_VULNERABILITY_SERVICE=osv where OSV does."
        )
    lines += known or ([] if skipped else ["None has a known vulnerability."])
    return 1 if known else NO_DATA if skipped or not packages else 0, lines


def _ours(dependency: dict[str, Any]) -> bool:
    return bool(dependency["name"] == "lookalike")


if __name__ == "__main__":
    code, told = verdict(audited(sys.argv[1:]))
    print("\n".join(told), file=sys.stderr if code else sys.stdout)
    sys.exit(code)
