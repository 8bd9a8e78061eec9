"""What a release is made of: one version, the same bytes, proven bounds, allowed licences."""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from support.paths import REPO

PROJECT: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
VERSION = PROJECT["version"]


def test_everything_names_the_version_of_pyproject() -> None:
    changes = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[([^]]+)\]", changes, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert VERSION in headings or f"to become {VERSION}" in changes
    image = yaml.safe_load((REPO / "deploy/kubernetes/base/kustomization.yaml").read_text())
    assert [each["newTag"] for each in image["images"]] == [VERSION]
    api = json.loads((REPO / "docs/openapi.json").read_text(encoding="utf-8"))
    assert api["info"]["version"] == VERSION
    assert f"lookalike-{VERSION}-py3-none-any.whl" in (REPO / "README.md").read_text()
    shown = subprocess.run(
        [sys.executable, "release/version.py"], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert shown.stdout == f"{VERSION}\n"


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    """With another umask, time zone and folder."""
    if not (REPO / ".git").exists():
        pytest.skip("not a checkout")
    hashes = []
    for name, umask, zone in (("a", 0o022, "UTC"), ("longer", 0o077, "Asia/Tokyo")):
        subprocess.run(
            [sys.executable, "release/build.py", str(tmp_path / name)],
            cwd=REPO, env=os.environ | {"TZ": zone}, umask=umask, check=True, capture_output=True,
        )  # fmt: skip
        made = sorted((tmp_path / name).iterdir())
        hashes.append([(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in made])
    assert hashes[0] == hashes[1] and len(hashes[0]) == 2


def direct() -> list[Requirement]:
    """What pyproject.toml requires, to run and to test, but for itself."""
    texts = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    texts += PROJECT["optional-dependencies"]["docs"]
    return [each for each in map(Requirement, texts) if each.name != "lookalike"]


def test_every_direct_dependency_has_its_lowest_version_in_the_constraints() -> None:
    text = (REPO / "release/lowest.txt").read_text(encoding="utf-8")
    pinned = dict(line.split("==") for line in text.splitlines() if "==" in line)
    for each in direct():
        version = Version(pinned[canonicalize_name(each.name)])
        assert version in each.specifier, each
        (low, *_) = [Version(s.version) for s in each.specifier if s.operator in (">=", "==")]
        # The same minor version, unless another dependency excludes it.
        assert version >= low


def test_every_direct_dependency_has_a_lower_bound() -> None:
    bounded = [each for each in direct() if {s.operator for s in each.specifier} & {">=", "=="}]
    assert [str(each) for each in direct() if each not in bounded] == []


def test_what_an_installation_brings_has_an_upper_bound() -> None:
    """Tools of developers need none: a break of theirs is seen here, and not by users."""
    extras = PROJECT["optional-dependencies"]
    developers = runpy.run_path(str(REPO / "release/licences.py"))["OF_DEVELOPERS"]
    texts = [text for name, each in extras.items() if name not in developers for text in each]
    unbounded = [
        text
        for text in [*PROJECT["dependencies"], *texts]
        if not {s.operator for s in Requirement(text).specifier} & {"<", "<=", "==", "~="}
    ]
    assert unbounded == []


def test_every_licence_is_allowed_and_listed() -> None:
    module = runpy.run_path(str(REPO / "release/licences.py"))
    found = module["required"]()
    assert len(found) > 50 and module["refused"](found) == []
    listed = (REPO / "docs/licences.md").read_text(encoding="utf-8")
    extras = PROJECT["optional-dependencies"]
    texts = [text for name, each in extras.items() if name not in module["OF_DEVELOPERS"]
             for text in each]  # fmt: skip
    texts += PROJECT["dependencies"]
    names = {canonicalize_name(Requirement(text).name) for text in texts}
    assert {"nncf", "sentencepiece"} <= names & set(found)
    assert [name for name in sorted(names & set(found)) if f"| {name} |" not in listed] == []


def test_libraries_for_gpus_are_not_counted_as_ours() -> None:
    """torch of the package index brings them; a check of the licences goes on without them."""
    of_gpus = runpy.run_path(str(REPO / "release/licences.py"))["OF_GPUS"]
    names = ("nvidia-cublas", "cuda-toolkit", "cuda-bindings", "triton")
    assert all(of_gpus.match(name) for name in names)
    assert not any(of_gpus.match(name) for name in ("torch", "numpy", "tritonclient"))


def test_a_missing_licence_of_our_own_is_said() -> None:
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    chosen = "license" in PROJECT
    assert chosen == (REPO / "LICENSE").exists()
    assert chosen != ("Lookalike itself has no licence yet" in readme)


def test_a_strong_licence_would_be_refused() -> None:
    module = runpy.run_path(str(REPO / "release/licences.py"))
    allowed, strong = module["ALLOWED"], module["STRONG"]
    for text in ("GPL-3.0-only", "GNU Affero General Public License v3", "unknown"):
        assert strong.search(text) or not allowed.search(text)
    assert allowed.search("LGPL-3.0-only") and not strong.search("LGPL-3.0-only")


def test_an_audit_without_data_is_no_audit() -> None:
    """pip-audit skips what its source does not have, and then finds nothing."""
    verdict = runpy.run_path(str(REPO / "release/audit.py"))["verdict"]
    ours = {"name": "lookalike", "skip_reason": "not on PyPI"}
    clean = {"name": "jinja2", "version": "3.1.6", "vulns": []}
    without = {"name": "jinja2", "skip_reason": "Dependency not found on PyPI"}
    found = {"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"]}
    affected = {"name": "jinja2", "version": "2.10", "vulns": [found]}
    cases = [
        ([ours, clean], 0, "1 of 1 packages were compared.*None has a known"),
        ([clean, without], 3, "1 of 2 .* cannot be had here.*not found on PyPI"),
        ([affected, without], 1, "jinja2 2.10: PYSEC-2019-217, fixed in 2.10.1"),
        ([ours], 3, "0 of 0"),
    ]
    for dependencies, code, text in cases:
        ended, lines = verdict({"dependencies": dependencies})
        assert ended == code and re.search(text, " ".join(lines)), lines
    assert "None has" not in " ".join(verdict({"dependencies": [clean, without]})[1])


def test_the_workflows_run_what_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    runs: list[str] = []
    for file in (REPO / ".github/workflows").glob("*.yml"):
        jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
        runs += [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    made = {target for run in runs for target in re.findall(r"\bmake ([a-z-]+)", run)}
    assert made and made <= targets
    assert ".ci/run" in runs


def test_the_workflows_have_the_form_that_github_reads(tmp_path: Path) -> None:
    """By the published schema; the workflow itself runs actionlint, which knows more."""
    check = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
    ]
    files = sorted((REPO / ".github/workflows").glob("*.yml"))
    wrong = tmp_path / "ci.yml"
    wrong.write_text(files[0].read_text(encoding="utf-8").replace("runs-on:", "run-on:", 1))
    done = [
        subprocess.run([*check, *map(str, each)], capture_output=True, text=True, check=False)
        for each in (files, [wrong])
    ]
    assert [each.returncode for each in done] == [0, 1], done[0].stdout
    assert "run-on" in done[1].stdout


def test_the_demo_installs_no_tool_of_the_tests() -> None:
    """`make demo` from nothing ends with the demo, and `make test` adds what tests need."""
    for target, extras in (("demo", False), ("test", True)):
        planned = subprocess.run(
            ["make", "--dry-run", "--always-make", target],
            cwd=REPO, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert "pip install --no-compile -e .\n" in planned
        assert ('".[test]"' in planned) is extras
