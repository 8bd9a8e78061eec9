"""The container files, read as far as that goes without an engine to run them."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from app.cli import cli
from app.config import Settings
from support.paths import REPO

SETTINGS = {f"LOOKALIKE_{name.upper()}" for name in Settings.model_fields}
ONE_SHOT = {"no", "on-failure:3"}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((REPO / "docker-compose.yml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(compose["services"])


@pytest.fixture(scope="module")
def ours(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The services that run Lookalike."""
    return {name: service for name, service in services.items() if "build" in service}


@dataclass(frozen=True)
class Step:
    """An instruction of the Dockerfile, in the stage it belongs to (0: before the first)."""

    stage: int
    name: str
    words: str

    def listed(self) -> list[str]:
        """The words of an instruction in exec form."""
        return list(json.loads(self.words))


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    text = (REPO / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found: list[Step] = []
    for instruction in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, words = instruction.split(maxsplit=1)
        stage = (found[-1].stage if found else 0) + (name == "FROM")
        found.append(Step(stage, name, words))
    return found


def with_defaults(text: str) -> str:
    """What Compose makes of `${NAME:-default}` in an empty environment."""
    return VARIABLE.sub(lambda found: (found[3] or "") if found[2] == "-" else "given", text)


def parse(words: list[str]) -> None:
    """Raise UsageError unless `lookalike` understands these words."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    command.make_parser(context).parse_args(list(words))


def test_every_command_of_a_container_exists(ours: dict[str, dict[str, Any]]) -> None:
    assert set(ours) == {"roles", "migrate", "page", "ingest", "worker", "backup"}
    for service in ours.values():
        _, *words = [*service.get("entrypoint", ["lookalike"]), *service["command"]]
        if words[0] == "-c":
            words = shlex.split(words[1].removeprefix("exec lookalike "))
        parse([with_defaults(word) for word in words])


def test_services_wait_for_what_they_need(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for other, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert services[other]["healthcheck"]["test"], f"{name} waits for {other}"
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert services[other]["restart"] in ONE_SHOT, f"{name} waits for {other}"
    assert set(services["roles"]["depends_on"]) == {"db"}
    assert set(services["migrate"]["depends_on"]) == {"db", "roles"}
    for name in ("page", "ingest", "worker", "backup"):
        assert set(services[name]["depends_on"]) == {"db", "migrate"}


def test_what_waits_for_nothing_to_serve_does_not_come_up_by_itself(
    services: dict[str, dict[str, Any]],
) -> None:
    jobs = {name for name, service in services.items() if "profiles" in service}
    assert jobs == {"ingest", "backup"}
    assert {name for name, s in services.items() if s["restart"] == "unless-stopped"} == {
        "db",
        "page",
        "worker",
    }


def test_no_secret_is_in_the_file(services: dict[str, dict[str, Any]]) -> None:
    secret = re.compile("PASSWORD|SECRET|TOKEN|KEY")
    found = 0
    for service in services.values():
        for name, value in service["environment"].items():
            if secret.search(name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name} must come from outside"
                found += 1
            assert not re.search(r"://[^/@]*:[^/@]*@", value), f"{name} holds a password"
    assert found == 1 + 3 + 5


def test_each_service_has_the_role_it_needs_and_no_password_of_another(
    ours: dict[str, dict[str, Any]],
) -> None:
    server = ("lookalike_server", "SERVER_PASSWORD")
    migrator = ("lookalike_migrator", "MIGRATOR_PASSWORD")
    found = {
        name: (
            conninfo_to_dict(service["environment"]["LOOKALIKE_DATABASE_URL"])["user"],
            VARIABLE.findall(service["environment"]["PGPASSWORD"])[0][0],
        )
        for name, service in ours.items()
    }
    assert found == {
        "roles": ("lookalike", "POSTGRES_PASSWORD"),
        "migrate": migrator, "backup": migrator,
        "page": server, "worker": server, "ingest": server,
    }  # fmt: skip
    words = ours["roles"]["command"]
    assert words[words.index("--server") + 1] == server[0]
    assert words[words.index("--migrator") + 1] == migrator[0]


def test_containers_never_choose_a_model_by_themselves(
    ours: dict[str, dict[str, Any]], steps: list[Step]
) -> None:
    for service in ours.values():
        assert with_defaults(service["build"]["args"]["MODEL"]) == "embedded"
        assert "auto" not in service["command"]
    assert {s.words for s in steps if s.name == "ARG" and s.words.startswith("MODEL=")} == {
        "MODEL=embedded"
    }
    assert any('"${MODEL%-int8}" = auto' in step.words and "exit 1" in step.words for step in steps)


def test_the_recorded_model_is_the_baked_one(ours: dict[str, dict[str, Any]]) -> None:
    assert ours["migrate"]["command"][-1] == ours["page"]["build"]["args"]["MODEL"]


def test_ports_are_open_to_this_machine_only(services: dict[str, dict[str, Any]]) -> None:
    ports = {name: s["ports"] for name, s in services.items() if "ports" in s}
    assert set(ports) == {"page"}
    assert [with_defaults(port) for port in ports["page"]] == ["127.0.0.1:8501:8501"]


def test_containers_run_with_as_little_as_they_need(
    services: dict[str, dict[str, Any]], ours: dict[str, dict[str, Any]]
) -> None:
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    for service in ours.values():
        assert service["init"] is True
        assert "cap_add" not in service
        assert service["tmpfs"] == ["/tmp"]


def test_no_container_can_take_the_whole_machine(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        assert re.fullmatch(r"\d+g", with_defaults(service["mem_limit"]))
        assert int(with_defaults(str(service["cpus"]))) > 0
        assert service["pids_limit"] > 0
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}


def test_every_service_that_stays_says_whether_it_is_well(
    services: dict[str, dict[str, Any]],
) -> None:
    for service in services.values():
        if service["restart"] == "unless-stopped":  # the page's check is that of the image
            assert "test" in service.get("healthcheck", {"test": "of the image"})
        else:
            assert service["healthcheck"] == {"disable": True}


def test_the_index_is_written_by_one_service_and_read_by_the_page(
    compose: dict[str, Any], ours: dict[str, dict[str, Any]]
) -> None:
    folder = ours["worker"]["environment"]["LOOKALIKE_INDEX_DIR"]
    assert ours["worker"]["volumes"] == [f"index:{folder}"]
    assert ours["page"]["volumes"] == [f"index:{folder}:ro"]
    assert set(compose["volumes"]) == {"postgres", "index"}
    assert ours["page"]["environment"]["LOOKALIKE_PAGE_REBUILD"] == "false"


def test_the_worker_says_whether_it_is_well(ours: dict[str, dict[str, Any]]) -> None:
    *words, program = ours["worker"]["healthcheck"]["test"]
    assert words == ["CMD", "python", "-c"]
    ast.parse(program)
    port = Settings.model_fields["worker_metrics_port"].default
    assert f"http://127.0.0.1:{port}/healthz" in program


def test_the_settings_of_containers_exist(
    ours: dict[str, dict[str, Any]], steps: list[Step]
) -> None:
    named = {name for service in ours.values() for name in service["environment"]}
    named |= set(re.findall(r"\b(LOOKALIKE_\w+)=", " ".join(s.words for s in steps)))
    assert {name for name in named if name.startswith("LOOKALIKE_")} <= SETTINGS


def test_what_can_be_set_from_outside_is_described() -> None:
    text = (REPO / "docker-compose.yml").read_text(encoding="utf-8")
    ops = (REPO / "docs/ops.md").read_text(encoding="utf-8")
    outside = {found[1] for found in VARIABLE.finditer(text)} - {"LOOKALIKE_TAG"}
    assert [
        name for name in sorted(outside) if not re.search(rf"^\\| .*`{name}`.* \\|", ops, re.M)
    ] == []


def test_build_arguments_of_compose_are_declared(
    ours: dict[str, dict[str, Any]], steps: list[Step]
) -> None:
    declared = {step.words.split("=")[0] for step in steps if step.name == "ARG"}
    for service in ours.values():
        assert set(service["build"]["args"]) <= declared


def test_the_database_offers_a_pgvector_that_is_new_enough(
    services: dict[str, dict[str, Any]],
) -> None:
    image = re.fullmatch(r"pgvector/pgvector:([\d.]+)-pg(\d+)-\w+", services["db"]["image"])
    assert image
    assert tuple(map(int, image[1].split("."))) >= (0, 8, 4)
    # From 18 on the image refuses a volume on the data folder itself.
    assert int(image[2]) >= 18
    assert services["db"]["volumes"] == ["postgres:/var/lib/postgresql"]


def test_the_image_does_not_run_as_root(steps: list[Step]) -> None:
    last = steps[-1].stage
    users = [step.words for step in steps if step.name == "USER" and step.stage == last]
    assert users and not re.match(r"(root|0)\b", users[-1])
    made = next(s.words for s in steps if "useradd" in s.words)
    assert f"--uid {users[-1].split(':')[0]} " in made


def test_what_the_image_copies_is_there_and_not_ignored(steps: list[Step]) -> None:
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
    found = project["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {name.removesuffix("*") for name in found}
    assert packages | {"alembic", "sql", "pyproject.toml", project["project"]["readme"]} <= copied


def _stages(steps: list[Step]) -> set[str]:
    return {step.words.split(" AS ")[1] for step in steps if " AS " in step.words}


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
        used = {found[1] for found in re.finditer(r"\$\{(\w+)", step.words)}
        assert used <= known, f"{step.name} {step.words}"
        if step.name in ("ARG", "ENV"):
            known |= {word.split("=")[0] for word in shlex.split(step.words)}


def _environment(steps: list[Step], stage: int | None) -> Iterator[str]:
    """What a stage built upon another inherits: ENV, but not ARG."""
    for step in steps:
        if step.stage == stage and step.name == "ENV":
            yield from (word.split("=")[0] for word in shlex.split(step.words))


def test_torch_is_pinned_alike_everywhere(steps: list[Step]) -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pinned,) = [name for name in project["dependencies"] if name.startswith("torch")]
    assert f"TORCH_VERSION={pinned.removeprefix('torch==')}" in [step.words for step in steps]
    assert f"pip install {pinned}\n" in (REPO / "Makefile").read_text(encoding="utf-8")


def test_the_image_says_whether_it_is_well(steps: list[Step], compose: dict[str, Any]) -> None:
    (check,) = [step.words for step in steps if step.name == "HEALTHCHECK"]
    port = compose["services"]["page"]["ports"][0].split(":")[-1]
    assert f"http://127.0.0.1:{port}/_stcore/health" in check
    assert [step.words for step in steps if step.name == "EXPOSE"] == [port]
    jobs = ("roles", "migrate", "ingest", "backup")
    assert all(compose["services"][name]["healthcheck"] == {"disable": True} for name in jobs)


def test_the_image_starts_the_page_for_the_outside(steps: list[Step]) -> None:
    (entry,) = [step.listed() for step in steps if step.name == "ENTRYPOINT"]
    (words,) = [step.listed() for step in steps if step.name == "CMD"]
    assert entry == ["lookalike"] and "0.0.0.0" in words
    parse(words)


def test_programs_inside_the_image_are_python(steps: list[Step]) -> None:
    programs = [
        program
        for step in steps
        for program in re.findall(r'python"?,? "?-c"?,? "(.*?)"(?: |\])', step.words)
    ]
    assert len(programs) == 3
    for program in programs:
        ast.parse(program)
