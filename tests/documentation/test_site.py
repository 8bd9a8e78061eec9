"""The documentation as a site: it builds without a warning, and its reference is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import click
import pytest

import lookalike
from app.api.problems import STATUS, problem_type
from app.cli import BUSY, INTERNAL_ERROR, INTERRUPTED, cli
from app.config import Settings
from support.paths import REPO

TAG = re.compile("<[^>]+>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors: unknown links, pages that no other one lists, …

    Its own theme takes a third of the time for the navigation of each page; `make docs` uses it.
    """
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    command += ["-D", "html_theme=basic"]
    built = subprocess.run(
        [*command, "-d", str(folder / "trees"), "docs", str(folder / "html")],
        cwd=REPO, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return folder / "html"


def text_of(site: Path, name: str) -> str:
    """The text of a page, without markup."""
    return unescape(TAG.sub("", (site / f"{name}.html").read_text(encoding="utf-8")))


def command_paths(group: click.Group, before: str = "lookalike") -> list[str]:
    context, found = click.Context(group), []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found.append(f"{before} {name}")
        if isinstance(command, click.Group):
            found += command_paths(command, found[-1])
    return found


def test_the_reference_has_every_command(site: Path) -> None:
    text = text_of(site, "reference/commands")
    assert [path for path in command_paths(cli) if path not in text] == []
    assert "--fail-on-rejects" in text


def test_the_reference_has_every_setting(site: Path) -> None:
    text = text_of(site, "reference/settings")
    names = [f"LOOKALIKE_{name.upper()}" for name in Settings.model_fields]
    assert [name for name in names if name not in text] == []


def test_the_reference_has_every_error_and_exit_code(site: Path) -> None:
    text = text_of(site, "reference/errors")
    assert [error for error in STATUS if problem_type(error) not in text] == []
    shown = {int(code) for code in re.findall(r"^\s*(\d{1,3})\s*$", text, re.MULTILINE)}
    assert {0, 1, 2, BUSY, INTERNAL_ERROR, INTERRUPTED} <= shown


def test_the_reference_has_every_name_of_the_python_interface(site: Path) -> None:
    text = text_of(site, "reference/python")
    assert [name for name in lookalike.__all__ if name not in text] == []
    assert "Catalogue.search_many" in text


def test_the_reference_has_every_view_and_function_of_analysts(site: Path) -> None:
    text = text_of(site, "reference/sql")
    created = re.compile(
        r"^CREATE (?:OR REPLACE )?(?:VIEW|FUNCTION) (analytics\.[a-z]\w+)", re.MULTILINE
    )
    files = [file.read_text(encoding="utf-8") for file in (REPO / "sql").glob("*.sql")]
    names = {name for each in files for name in created.findall(each)}
    assert len(names) > 10 and [name for name in sorted(names) if name not in text] == []


def test_the_reference_has_every_metric_and_address(site: Path) -> None:
    text = text_of(site, "reference/metrics")
    ops = (REPO / "docs/ops.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`(lookalike_\w+)`", ops.partition("## Metrics")[2]))
    assert len(names) > 15 and [name for name in sorted(names) if name not in text] == []
    assert "POST /v1/search/photo" in text_of(site, "reference/http")


def test_programs_find_every_page_in_llms_txt(site: Path) -> None:
    listed = (site / "llms.txt").read_text(encoding="utf-8")
    described = re.findall(r"^- \[[^]]+\]\((\S+)\): \S.+$", listed, re.MULTILINE)
    pages = {str(page.relative_to(site)) for page in site.rglob("*.html")}
    others = {"index.html", "search.html", "genindex.html"}
    downloads = {page for page in pages if page.startswith("_downloads/")}
    assert set(described) == pages - others - downloads


def test_nothing_is_misspelt() -> None:
    names = ("docs", "deploy", *(p.name for p in REPO.glob("*.md")))
    found = subprocess.run(
        [sys.executable, "-m", "codespell_lib", *names],
        cwd=REPO, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout
