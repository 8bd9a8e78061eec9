"""The Dockerfile: what the image copies, installs and runs, and as whom."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.command_lines import parse
from support.dockerfile import Step, dockerfile_steps
from support.paths import REPO


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return dockerfile_steps()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((REPO / "docker-compose.yml").read_text(encoding="utf-8")))


def test_the_image_does_not_run_as_root(steps: list[Step]) -> None:
    last = steps[-1].stage
    users = [step.words for step in steps if step.name == "USER" and step.stage == last]
    assert users and not re.match(r"(root|0)\b", users[-1])
    useradd = next(s.words for s in steps if "useradd" in s.words)
    assert f"--uid {users[-1].split(':')[0]} " in useradd


def test_files_that_the_image_copies_exist_and_are_not_ignored(steps: list[Step]) -> None:
    ignore = (REPO / ".dockerignore").read_text(encoding="utf-8").split()
    stages = _stages(steps)
    copied = set()
    for step in (step for step in steps if step.name == "COPY"):
        *sources, _ = step.words.split()
        if sources[0].startswith("--from="):
            assert sources[0].removeprefix("--from=") in stages
            continue
        for source in sources:
            assert (REPO / source).exists() and f"!{source}" in ignore
            copied.add(source)
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {name.removesuffix("*") for name in patterns}
    assert packages | {"alembic", "sql", "pyproject.toml", project["project"]["readme"]} <= copied


def test_dependencies_are_installed_again_only_when_they_change(steps: list[Step]) -> None:
    """Not by a change of the code, of the version or of a build argument of the last stage."""
    stages = _stages(steps)
    dependencies = [step for step in steps if step.stage == stages["dependencies"]]
    copied = [step.words for step in dependencies if step.name == "COPY"]
    assert copied == ["--from=requirements /requirements.txt /requirements.txt"]
    (read,) = [s.words for s in steps if s.stage == stages["requirements"] and s.name == "RUN"]
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in ("", "ray"):
        shell = {
            "EXTRAS": extra,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin"]),
        }
        script = read.removesuffix("> /requirements.txt")
        done = subprocess.run(["sh", "-c", script], cwd=REPO, env=shell, capture_output=True)
        wanted = project["dependencies"] + project["optional-dependencies"].get(extra, [])
        assert done.stdout.decode().splitlines() == wanted, done.stderr
    last = [step for step in steps if step.stage == steps[-1].stage]
    names = [step.name for step in last]
    assert max(i for i, name in enumerate(names) if name == "COPY") < names.index("ARG")
    copies = [step.words.split()[0] for step in last if step.name == "COPY"]
    # From what changes least to what changes most, on the dependencies themselves.
    assert copies == ["--from=model", "--from=project"]
    assert last[0].words == "dependencies"


def test_what_the_image_installs_is_readable_whatever_the_umask(steps: list[Step]) -> None:
    stages = _stages(steps)
    for stage, folder in (("project", "/opt/lookalike"), ("model", "/opt/models")):
        words = [s.words for s in steps if s.stage == stages[stage] and s.name == "RUN"]
        assert words[-1].endswith(f"chmod -R a+rX {folder}")


def _stages(steps: list[Step]) -> dict[str, int]:
    """The numbers of the stages by name."""
    return {step.words.split(" AS ")[1]: step.stage for step in steps if " AS " in step.words}


def test_variables_of_the_image_are_declared_where_they_are_used(steps: list[Step]) -> None:
    declared: dict[int, set[str]] = {}
    base: dict[str, int] = {}
    for step in steps:
        if step.name == "FROM":
            image, _, name = step.words.partition(" AS ")
            base[name] = step.stage
            declared[step.stage] = set(_environment(steps, base.get(image)))
            known = declared.get(0, set())
        else:
            known = declared.setdefault(step.stage, set())
        used = {match[1] for match in re.finditer(r"\$\{(\w+)", step.words)}
        assert used <= known, f"{step.name} {step.words}"
        if step.name in ("ARG", "ENV"):
            known |= {word.split("=")[0] for word in shlex.split(step.words)}


def _environment(steps: list[Step], stage: int | None) -> Iterator[str]:
    """The environment that a stage inherits: ENV of its base, but not ARG."""
    for step in steps:
        if step.stage == stage and step.name == "ENV":
            yield from (word.split("=")[0] for word in shlex.split(step.words))


def test_torch_has_the_same_version_everywhere(steps: list[Step]) -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pinned,) = [name for name in project["dependencies"] if name.startswith("torch")]
    assert f"TORCH_VERSION={pinned.removeprefix('torch==')}" in [step.words for step in steps]
    assert f"pip install --no-compile {pinned}\n" in (REPO / "Makefile").read_text()


def test_the_image_has_a_health_check(steps: list[Step], compose: dict[str, Any]) -> None:
    (check,) = [step.words for step in steps if step.name == "HEALTHCHECK"]
    port = compose["services"]["page"]["ports"][0].split(":")[-1]
    assert f"http://127.0.0.1:{port}/_stcore/health" in check
    assert [step.words for step in steps if step.name == "EXPOSE"] == [port]
    jobs = ("roles", "migrate", "ingest", "ingest-gpu", "backup", "restore")
    assert all(compose["services"][name]["healthcheck"] == {"disable": True} for name in jobs)


def test_the_image_serves_the_page_on_all_interfaces(steps: list[Step]) -> None:
    (entry,) = [step.exec_arguments() for step in steps if step.name == "ENTRYPOINT"]
    (words,) = [step.exec_arguments() for step in steps if step.name == "CMD"]
    assert entry == ["lookalike"] and "0.0.0.0" in words
    parse(words)


def test_programs_embedded_in_the_container_files_are_valid_python(steps: list[Step]) -> None:
    programs = [
        program
        for step in steps
        for program in re.findall(r'python"?,? "?-c"?,? "(.*?)"(?: |\]|$)', step.words)
    ]
    assert len(programs) == 3
    for program in programs:
        ast.parse(program)
