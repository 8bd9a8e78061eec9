"""`deploy/containers.sh` replaces services, with a program in the place of Docker that notes how it
is called and plays the containers of each service."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from support.paths import REPO

DOCKER = r"""#!/bin/sh
# Plays Docker: a container of each service. BROKEN does not start; PROXY is there or is not.
echo "$*" >>"$FOLDER/calls"
for service; do :; done
broken=false
case $service in "$BROKEN" | "$BROKEN"-*) broken=true ;; esac
case "$*" in
"image inspect"*len*) echo 1 ;;
"image inspect"*) echo "sha256:$service" ;;
"compose config"*) printf 'page\napi\nworker\n%s\n' "$PROXY" ;;
"compose ps"*)
    echo "$service-1"
    [ ! -e "$FOLDER/$service" ] || echo "$service-2" ;;
"compose up"*)
    case "$*" in *--scale*) : >"$FOLDER/$service" ;; esac
    [ $broken = false ] || exit "$UP" ;;
inspect*) [ $broken = true ] && echo starting || echo healthy ;;
logs*) echo "no module named $service" ;;
esac
"""


@dataclass(frozen=True)
class Engine:
    folder: Path

    def containers(
        self, command: str, broken: str = "none", up: int = 1, proxy: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """`deploy/containers.sh COMMAND` where Compose ends with `up` for the broken service."""
        played = {
            "BROKEN": broken, "UP": str(up), "PROXY": "proxy" if proxy else "",
            "FOLDER": str(self.folder), "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip
        return subprocess.run(
            ["sh", REPO / "deploy/containers.sh", command],
            env=os.environ | played, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def calls(self, *verbs: str) -> list[str]:
        """What was asked of Docker beginning with one of the verbs, in its order."""
        told = (self.folder / "calls").read_text(encoding="utf-8").splitlines()
        return [line for line in told if line.startswith(verbs)]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    for name, program in {"docker": DOCKER, "sleep": "#!/bin/sh\n"}.items():
        (tmp_path / name).write_text(program, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    return Engine(tmp_path)


@pytest.mark.parametrize("command", ["upgrade", "rollback"])
@pytest.mark.parametrize("up", [1, 0])
def test_a_service_that_does_not_start_is_named_with_its_log_and_those_after_it_stay(
    engine: Engine, command: str, up: int
) -> None:
    done = engine.containers(command, broken="api", up=up)
    assert done.returncode == 1
    assert "The service api does not start" in done.stderr
    assert "no module named api-1" in done.stdout + done.stderr
    assert "`deploy/containers.sh rollback` goes" in done.stderr
    assert "up --detach --no-deps --wait --wait-timeout 180 page" in " ".join(
        engine.calls("compose")
    )
    assert not [call for call in engine.calls("compose up") if call.endswith("worker")]


@pytest.mark.parametrize("command", ["upgrade", "rollback"])
def test_all_services_are_replaced_by_those_that_pass_their_health_checks(
    engine: Engine, command: str
) -> None:
    done = engine.containers(command)
    assert done.returncode == 0, done.stderr
    replaced = [call.split()[-1] for call in engine.calls("compose up")]
    assert replaced == ["page", "api", "worker"]
    assert len(engine.calls("inspect")) == 3


def test_behind_a_proxy_a_container_stops_when_the_new_one_serves(engine: Engine) -> None:
    done = engine.containers("rollback", proxy=True)
    assert done.returncode == 0, done.stderr
    told = [call.split() for call in engine.calls("compose up", "inspect", "stop", "rm")]
    assert [f"{call[0]} {call[-1]}" for call in told] == [
        "compose page", "inspect page-1", "inspect page-2", "stop page-1", "rm page-1",
        "compose api", "inspect api-1", "inspect api-2", "stop api-1", "rm api-1",
        "compose worker", "inspect worker-1",
    ]  # fmt: skip
    assert "--no-recreate --scale page=2 page" in engine.calls("compose up")[0]


def test_behind_a_proxy_the_old_container_goes_on_if_the_new_one_does_not_start(
    engine: Engine,
) -> None:
    done = engine.containers("upgrade", broken="page", proxy=True)
    assert done.returncode == 1 and "no module named page-2" in done.stdout + done.stderr
    assert engine.calls("stop", "rm") == ["rm --force page-2"]
    assert len(engine.calls("compose up")) == 1


class Override(yaml.SafeLoader):
    """Reads what takes a list of an earlier file away as None."""


Override.add_constructor("!reset", lambda loader, node: None)


def test_the_proxy_has_the_ports_of_page_and_api_and_no_more_rights_than_the_others() -> None:
    text = (REPO / "deploy/proxy/compose.yml").read_text(encoding="utf-8")
    services = yaml.load(text, Override)["services"]
    base = yaml.safe_load((REPO / "docker-compose.yml").read_text(encoding="utf-8"))
    proxy, page, api = services["proxy"], base["services"]["page"], base["services"]["api"]
    assert (services["page"], services["api"]) == ({"ports": None}, {"ports": None})
    assert proxy["ports"] == page["ports"] + api["ports"]
    for name in ("logging", "security_opt", "cap_drop", "read_only", "pids_limit"):
        assert proxy[name] == base["x-limits"][name], name
    assert proxy["mem_limit"] and proxy["cpus"] and proxy["user"] == "65534:65534"
    rules = (REPO / "deploy/proxy/Caddyfile").read_text(encoding="utf-8")
    assert re.findall(r"dynamic a (\w+ \d+)", rules) == ["page 8501", "api 8502"]
    guide = (REPO / "docs/containers.md").read_text(encoding="utf-8")
    for name in re.findall(r"\$\{(\w+)", text):
        assert f"`{name}`" in guide
