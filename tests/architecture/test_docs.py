"""The documentation: its marked commands run, and the names, options and links in it exist."""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from app.bootstrap import App
from app.cli import cli
from app.config import Settings
from app.db.embedded import binaries
from app.db.embedded import server as embedded_server
from conftest import HASTY
from ingest.demo import draw_catalogue
from support.api_client import api_served
from support.paths import REPO

pytestmark = pytest.mark.xdist_group(
    "commands"
)  # these tests share the process that serves commands

GUIDES = [
    REPO / name
    for name in (
        "README.md", "docs/searching.md", "docs/ingest.md", "docs/duplicates.md",
        "docs/analysts.md", "docs/ops.md", "docs/models.md", "docs/api.md",
    )
]  # fmt: skip
PAGES = [
    *(REPO / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((REPO / "docs").rglob("*.md")),
]
RUN = "<!-- run -->"
FENCE = re.compile(r"^(<!-- run -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPENVINO = "LOOKALIKE_OPENVINO"
MANY_PICTURES = ("lookalike calibrate",)
"""Commands that encode so many that to compile the graphs of OpenVINO takes less time."""
TIMEOUT_S = 300
"""Timeout of a block, against hangs; all blocks together take about two minutes."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document; `runs` if it is marked as runnable."""

    page: Path
    line: int
    language: str
    text: str
    runs: bool

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(REPO)}:{self.line}"

    def commands(self) -> list[str]:
        """The lines after a prompt; empty for a block without prompts."""
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match[2], match[3], bool(match[1]))


def _prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, warm_folder: Path) -> Iterator[Path]:
    """A folder with what the documents assume: catalogue, pictures, query photos, database."""
    folder = Path(tempfile.mkdtemp(prefix="lookalike-docs-"))
    draw_catalogue(folder, products=52)  # `lookalike tune` needs more than 50
    _keep_one_picture(folder / "catalogue.csv", after=4)
    _keep_lines(folder / "queries.csv", 5)
    embedded_server.start(folder / "home", HASTY)
    queries = sorted((folder / "queries").glob("*.jpg"))
    (folder / "photos").mkdir()
    for query, name in zip(queries, ("photo.jpg", "photo2.jpg", "photos/A1.jpg"), strict=False):
        shutil.copy(query, folder / name)
    monkeypatch.setenv("LOOKALIKE_HOME", str(folder / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # The commands share torch's weights; each would compile the graphs of OpenVINO by itself.
    monkeypatch.setenv(OPENVINO, "0")
    programs = (warm_folder, Path(sys.executable).parent, binaries.binary("psql").parent)
    monkeypatch.setenv("PATH", os.pathsep.join([*map(str, programs), os.environ["PATH"]]))
    yield folder
    embedded_server.stop(folder / "home")
    shutil.rmtree(folder, ignore_errors=True)


def _keep_one_picture(file: Path, after: int) -> None:
    """Of all products but the first: encoding pictures takes most of the time."""
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    for row in rows[after:]:
        row["images"] = row["images"].split("|")[0]
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _keep_lines(file: Path, count: int) -> None:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:count]), encoding="utf-8")


def test_the_commands_of_the_guides_run(shop: Path) -> None:
    ran = [block for page in GUIDES for block in _blocks(page) if block.runs]
    assert {block.page for block in ran} == set(GUIDES)
    unknown = subprocess.run(["lookalike", "unknown"], cwd=shop, capture_output=True, check=False)
    assert unknown.returncode == 2 and b"No such command" in unknown.stderr
    with ExitStack() as stack:
        environment = dict(os.environ)
        for block in ran:
            if block.page.name == "api.md" and "API" not in environment:
                app = stack.enter_context(App())
                environment["API"] = stack.enter_context(api_served(app)).url
            done = subprocess.run(
                ["bash", "-c", _script(block)], cwd=shop, capture_output=True, text=True,
                env=environment | _compiled(block), stdin=subprocess.DEVNULL, timeout=TIMEOUT_S,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{block.place}\n{done.stdout}\n{done.stderr}"


def _compiled(block: Block) -> dict[str, str]:
    return {OPENVINO: "1"} if any(each in block.text for each in MANY_PICTURES) else {}


def _script(block: Block) -> str:
    if block.language == "sql":
        quoted = shlex.quote(block.text)
        return f'psql -X -v ON_ERROR_STOP=1 "$(lookalike db url)" <<< {quoted}'
    assert block.language == "console" and block.commands(), f"{block.place} has nothing to run"
    return "\n".join(["set -eu -o pipefail", *block.commands()])


def _named_commands() -> Iterator[tuple[str, list[str]]]:
    """Each mention of a `lookalike` command: its place and its arguments."""
    for page in PAGES:
        for span in re.findall(r"`(lookalike [^`]+)`", _prose(page)):
            yield str(page.relative_to(REPO)), shlex.split(span)[1:]
        for block in _blocks(page):
            for arguments in re.findall(r"(?:^|[(;&]|/)lookalike ([^|)\n]+)", _typed(block), re.M):
                yield block.place, shlex.split(arguments)


def _typed(block: Block) -> str:
    commands = block.commands() or block.text.splitlines()
    shell_like = ("console", "", "ini")
    lines = [re.sub(r"^[\d*/ ]+  |^\w+=(?=/)", "", line) for line in commands]
    return "\n".join(lines) if block.language in shell_like else ""


def test_every_mentioned_command_and_option_exists() -> None:
    named = list(_named_commands())
    assert len(named) > 40
    for place, words in named:
        try:
            _parse(words)
        except click.UsageError as exc:
            pytest.fail(f"{place}: `lookalike {' '.join(words)}`: {exc.message}")


def _parse(words: list[str]) -> None:
    """Raise UsageError for an unknown command or option; values are not checked."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        subcommand = command.get_command(context, name)
        if subcommand is None:
            raise click.UsageError(f"there is no command {name!r}")
        command, context = subcommand, click.Context(subcommand, parent=context, info_name=name)
    command.make_parser(context).parse_args(list(words))


def _leaves(command: click.Command, path: str = "lookalike") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _leaves(child, f"{path} {name}")
    else:
        yield path, command


@pytest.mark.parametrize(("path", "command"), list(_leaves(cli)), ids=lambda value: str(value))
def test_every_command_has_help_and_is_in_a_guide(path: str, command: click.Command) -> None:
    assert command.help
    assert all(
        option.help or option.show_default
        for option in command.params
        if isinstance(option, click.Option)
    )
    assert any(path in page.read_text(encoding="utf-8") for page in GUIDES)


def test_every_setting_is_described_with_its_default_and_its_help() -> None:
    ops = (REPO / "docs/ops.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        row = re.search(rf"^\| `LOOKALIKE_{name.upper()}` \| (.+?) \| (.+) \|$", ops, re.MULTILINE)
        assert row, f"LOOKALIKE_{name.upper()} is not in docs/ops.md"
        if field.default_factory is None and field.default is not None:
            assert row[1] == f"`{field.default}`"
        meaning = re.sub(r"; see \[.*\]\(.*\)", "", row[2])
        assert re.sub(r"\[(.*?)\]\(.*?\)", r"\1", meaning) == field.description


def test_every_described_setting_exists() -> None:
    known = {f"LOOKALIKE_{name.upper()}" for name in Settings.model_fields}
    known |= {"LOOKALIKE_TEST_DATA", "LOOKALIKE_TEST_ARTEFACTS"}
    known |= {"LOOKALIKE_PORT", "LOOKALIKE_TAG", "LOOKALIKE_BENCH_KEEP"}
    for page in PAGES:
        named = set(re.findall(r"LOOKALIKE_[A-Z_]+", page.read_text(encoding="utf-8")))
        assert named <= known, page


def test_every_view_for_analysts_is_described() -> None:
    analysts = (REPO / "docs/analysts.md").read_text(encoding="utf-8")
    views = [
        view
        for file in (REPO / "sql").glob("*.sql")
        for view in re.findall(r"VIEW (analytics\.\w+)", file.read_text(encoding="utf-8"))
    ]
    assert views
    assert [view for view in views if f"`{view}`" not in analysts] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_link_has_a_target(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in _anchors(linked), f"there is no heading for {target}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_pictures_of_the_readme_are_small() -> None:
    for picture in (REPO / "docs/images").iterdir():
        assert picture.stat().st_size < 600_000, picture.name


# Paths of a particular machine and names of mirrors are not portable.
FOREIGN = re.compile(
    r"(?<![\w.])/(?:work|root|home|Users|mnt)/|[a-z0-9.-]*pypi[a-z0-9-]*\.[a-z]{2,}|pythonhosted"
    r"|(?:index-url|find-links)[ =]+\S+://|download\.pytorch",
    re.IGNORECASE,
)
# Without PyTorch's own index of wheels for processors, an image has gigabytes for GPUs.
NEEDED = "https://download.pytorch.org/whl/cpu"
TEXT = {".py", ".md", ".sql", ".toml", ".yml", ".yaml", ".mako", ".txt", ".cfg", ".sh", ""}


def test_no_file_contains_a_machine_path_or_a_mirror() -> None:
    matches = [
        f"{path.relative_to(REPO)}:{number}: {match[0]}"
        for path in _files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (match := FOREIGN.search(line.replace(NEEDED, "")))
    ]
    assert matches == []


def _files() -> list[Path]:
    """Text files of the project outside the tests: tracked by git or not ignored."""
    if not (REPO / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    paths = [REPO / name for name in listed.split("\0") if name and not name.startswith("tests/")]
    return [path for path in paths if path.suffix in TEXT and path.is_file()]


def test_the_pictures_of_the_readme_are_there_and_small() -> None:
    text = (REPO / "README.md").read_text(encoding="utf-8")
    files = [REPO / name for name in re.findall(r'(?:src|srcset)="(.+?)"', text)]
    assert len(files) == 2
    assert [file.name for file in files if not 0 < file.stat().st_size < 1_500_000] == []
