"""The container files, checked statically without a container engine."""

from __future__ import annotations

import ast
import re
import shlex
from typing import Any

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from app.config import Settings
from support.command_lines import parse
from support.dockerfile import Step, dockerfile_steps
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
def lookalike_services(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The services that run Lookalike."""
    return {n: s for n, s in services.items() if str(s["image"]).startswith("lookalike:")}


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return dockerfile_steps()


def with_defaults(text: str) -> str:
    """Substitute `${NAME:-default}` as Compose does in an empty environment."""
    return VARIABLE.sub(lambda match: (match[3] or "") if match[2] == "-" else "given", text)


def test_every_command_of_a_container_exists(lookalike_services: dict[str, dict[str, Any]]) -> None:
    assert set(lookalike_services) == {
        "roles", "migrate", "page", "api", "worker", "ingest", "ingest-gpu", "backup", "restore"
    }  # fmt: skip
    for service in lookalike_services.values():
        _, *words = [*service.get("entrypoint", ["lookalike"]), *service["command"]]
        if words[0] == "-c":
            words = shlex.split(words[1].removeprefix("exec lookalike "))
        parse([with_defaults(word) for word in words])


def test_services_wait_for_their_dependencies(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for other, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert services[other]["healthcheck"]["test"], f"{name} waits for {other}"
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert services[other]["restart"] in ONE_SHOT, f"{name} waits for {other}"
    assert set(services["roles"]["depends_on"]) == {"db"}
    assert set(services["migrate"]["depends_on"]) == {"db", "roles"}
    for name in ("page", "api", "worker"):
        assert set(services[name]["depends_on"]) == {"db", "migrate"}


def test_a_load_or_a_backup_runs_no_migration_and_changes_no_password(
    services: dict[str, dict[str, Any]],
) -> None:
    for name in ("ingest", "ingest-gpu", "backup"):
        assert set(services[name]["depends_on"]) == {"db"}
    # A restore is into a database without roles.
    assert set(services["restore"]["depends_on"]) == {"db", "roles"}


def test_one_off_services_and_monitoring_do_not_start_by_default(
    services: dict[str, dict[str, Any]],
) -> None:
    profiles = {name: s["profiles"] for name, s in services.items() if "profiles" in s}
    assert profiles == {
        "ingest": ["jobs"], "backup": ["jobs"], "restore": ["jobs"], "ingest-gpu": ["gpu"],
        "prometheus": ["monitoring"], "grafana": ["monitoring"],
    }  # fmt: skip
    lasting = {name for name, s in services.items() if s["restart"] == "unless-stopped"}
    assert lasting == {"db", "page", "api", "worker", "prometheus", "grafana"}


def test_every_secret_is_a_file_that_git_ignores(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    folder = "./secrets"
    for name, secret in compose["secrets"].items():
        assert {key: with_defaults(value) for key, value in secret.items()} == {
            "file": f"{folder}/{name}"
        }
    used = set()
    for service in services.values():
        mounted = {f"/run/secrets/{name}" for name in service.get("secrets", [])}
        used |= set(service.get("secrets", []))
        for name, value in service.get("environment", {}).items():
            assert not re.search(r"://[^/@]*:[^/@]*@", value), f"{name} holds a password"
            if re.search("PASSWORD|SECRET|TOKEN|KEY", name):
                assert name.endswith("_FILE") and value in mounted
    assert used == set(compose["secrets"])
    ignored = (REPO / ".gitignore").read_text(encoding="utf-8").split()
    assert {"/.env", "/secrets/", "/backups/"} <= set(ignored)


def test_one_service_builds_the_image_and_no_registry_is_asked_for_it(
    lookalike_services: dict[str, dict[str, Any]],
) -> None:
    images: dict[str, list[str]] = {}
    for name, service in lookalike_services.items():
        assert service["pull_policy"] == "never"
        builders = images.setdefault(with_defaults(service["image"]), [])
        builders += [name] if "build" in service else []
    assert images == {"lookalike:local": ["roles"], "lookalike:local-gpu": ["ingest-gpu"]}


def test_torch_is_that_for_processors_unless_a_gpu_is_asked_for(
    lookalike_services: dict[str, dict[str, Any]], steps: list[Step]
) -> None:
    cpu = "https://download.pytorch.org/whl/cpu"
    arguments = {
        name: with_defaults(service["build"]["args"]["TORCH_INDEX_URL"])
        for name, service in lookalike_services.items() if "build" in service
    }  # fmt: skip
    assert arguments == {"roles": cpu, "ingest-gpu": ""}
    assert f"TORCH_INDEX_URL={cpu}" in [step.words for step in steps if step.name == "ARG"]
    (torch,) = [step.words for step in steps if "torch==${TORCH_VERSION}" in step.words]
    # Of one index alone, so that one that does not answer is not passed over.
    assert '--no-deps ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"}' in torch
    (device,) = lookalike_services["ingest-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_each_service_has_only_the_role_and_password_it_needs(
    lookalike_services: dict[str, dict[str, Any]],
) -> None:
    server = ("lookalike_server", ["server_password"])
    migrator = ("lookalike_migrator", ["migrator_password"])
    roles = {
        name: (
            conninfo_to_dict(service["environment"]["LOOKALIKE_DATABASE_URL"])["user"],
            service["secrets"],
        )
        for name, service in lookalike_services.items()
    }
    every = ["postgres_password", "migrator_password", "server_password"]
    assert roles == {
        "roles": ("lookalike", every),
        "migrate": migrator, "backup": migrator, "restore": migrator,
        "page": server, "api": server, "worker": server, "ingest": server, "ingest-gpu": server,
    }  # fmt: skip
    for service in lookalike_services.values():
        password = service["environment"]["LOOKALIKE_DATABASE_PASSWORD_FILE"]
        assert password == f"/run/secrets/{service['secrets'][0]}"
    words = lookalike_services["roles"]["command"]
    assert words[words.index("--server") + 1] == server[0]
    assert words[words.index("--migrator") + 1] == migrator[0]


def test_containers_use_a_configured_model(
    lookalike_services: dict[str, dict[str, Any]], steps: list[Step]
) -> None:
    for service in lookalike_services.values():
        if "build" in service:
            assert with_defaults(service["build"]["args"]["MODEL"]) == "embedded"
        assert "auto" not in service["command"]
    assert {s.words for s in steps if s.name == "ARG" and s.words.startswith("MODEL=")} == {
        "MODEL=embedded"
    }
    # The command refuses 'auto'. Where the model cannot be had, advice ends the build.
    (fetch,) = [step.words for step in steps if "lookalike model fetch" in step.words]
    assert "exit 1" in fetch and "LOOKALIKE_MODEL=embedded" in fetch


def test_the_model_of_the_services_is_the_one_in_the_image(
    lookalike_services: dict[str, dict[str, Any]],
) -> None:
    assert (
        lookalike_services["migrate"]["command"][-1]
        == lookalike_services["roles"]["build"]["args"]["MODEL"]
    )


def test_ports_are_published_on_localhost_only(services: dict[str, dict[str, Any]]) -> None:
    ports = {name: s["ports"] for name, s in services.items() if "ports" in s}
    assert {name: [with_defaults(port) for port in ports[name]] for name in ports} == {
        "page": ["127.0.0.1:8501:8501"],
        "api": ["127.0.0.1:8502:8502"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_containers_run_with_minimal_privileges(
    services: dict[str, dict[str, Any]], lookalike_services: dict[str, dict[str, Any]]
) -> None:
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    for service in lookalike_services.values():
        assert service["init"] is True
        assert "cap_add" not in service
        assert service["tmpfs"] == ["/tmp"]


def test_every_container_has_resource_limits(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        assert re.fullmatch(r"\d+g", with_defaults(service["mem_limit"]))
        assert int(with_defaults(str(service["cpus"]))) > 0
        assert service["pids_limit"] > 0
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}


def test_every_long_running_service_has_a_health_check(
    services: dict[str, dict[str, Any]],
) -> None:
    for service in services.values():
        if service["restart"] == "unless-stopped":  # that of the page is in the image
            assert "test" in service.get("healthcheck", {"test": "of the image"})
        else:
            assert service["healthcheck"] == {"disable": True}


def test_the_index_is_written_by_one_service_and_read_by_the_page(
    compose: dict[str, Any], lookalike_services: dict[str, dict[str, Any]]
) -> None:
    folder = lookalike_services["worker"]["environment"]["LOOKALIKE_INDEX_DIR"]
    assert lookalike_services["worker"]["volumes"] == [f"index:{folder}"]
    for name in ("page", "api"):
        assert lookalike_services[name]["volumes"] == [f"index:{folder}:ro"]
    assert set(compose["volumes"]) == {
        "postgres", "index", "downloads", "prometheus", "grafana"
    }  # fmt: skip
    assert lookalike_services["page"]["environment"]["LOOKALIKE_PAGE_REBUILD"] == "false"


def test_a_load_remembers_what_it_downloaded(
    lookalike_services: dict[str, dict[str, Any]], steps: list[Step]
) -> None:
    folder = "/var/lib/lookalike/downloads"
    for name in ("ingest", "ingest-gpu"):
        assert f"downloads:{folder}" in lookalike_services[name]["volumes"]
    # A new volume has the owner of the folder in the image.
    (made,) = [step.words for step in steps if "install -d -o lookalike" in step.words]
    assert folder in made.split()


def test_the_worker_has_a_health_check(lookalike_services: dict[str, dict[str, Any]]) -> None:
    *words, program = lookalike_services["worker"]["healthcheck"]["test"]
    assert words == ["CMD", "python", "-c"]
    ast.parse(program)
    port = Settings.model_fields["worker_metrics_port"].default
    assert f"http://127.0.0.1:{port}/healthz" in program


def test_the_api_has_a_health_check_on_its_port(
    lookalike_services: dict[str, dict[str, Any]],
) -> None:
    service = lookalike_services["api"]
    *words, program = service["healthcheck"]["test"]
    assert words == ["CMD", "python", "-c"]
    ast.parse(program)
    assert f"http://127.0.0.1:{service['command'][-1]}/healthz" in program


def test_every_setting_of_a_container_exists(
    lookalike_services: dict[str, dict[str, Any]], steps: list[Step]
) -> None:
    named = {name for service in lookalike_services.values() for name in service["environment"]}
    named |= set(re.findall(r"\b(LOOKALIKE_\w+)=", " ".join(s.words for s in steps)))
    assert {name for name in named if name.startswith("LOOKALIKE_")} <= SETTINGS


def test_every_variable_of_compose_is_documented() -> None:
    text = (REPO / "docker-compose.yml").read_text(encoding="utf-8")
    guide = (REPO / "docs/containers.md").read_text(encoding="utf-8")
    outside = {match[1] for match in VARIABLE.finditer(text)}
    assert [
        name for name in sorted(outside) if not re.search(rf"^\| .*`{name}`.* \|", guide, re.M)
    ] == []


def test_build_arguments_of_compose_are_declared(
    lookalike_services: dict[str, dict[str, Any]], steps: list[Step]
) -> None:
    declared = {step.words.split("=")[0] for step in steps if step.name == "ARG"}
    for name in ("roles", "ingest-gpu"):
        assert set(lookalike_services[name]["build"]["args"]) <= declared


def test_the_database_image_has_a_supported_pgvector(
    services: dict[str, dict[str, Any]],
) -> None:
    image = re.fullmatch(r"pgvector/pgvector:([\d.]+)-pg(\d+)-\w+", services["db"]["image"])
    assert image
    assert tuple(map(int, image[1].split("."))) >= (0, 8, 4)
    # From version 18 the image refuses a volume on the data folder itself.
    assert int(image[2]) >= 18
    assert services["db"]["volumes"] == ["postgres:/var/lib/postgresql"]
