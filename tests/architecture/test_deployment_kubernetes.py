"""The manifests of `deploy/kubernetes`, rendered and checked against the schemas of Kubernetes."""

from __future__ import annotations

import shlex

import kubernetes_validate
import pytest

from app.config import Settings
from support.command_lines import parse
from support.manifests import (
    Manifest,
    check_restricted,
    check_secrets,
    check_user,
    containers,
    rendered,
)

VARIANTS = ("cloudnative-pg", "external-database")
VERSION = "1.34"


@pytest.fixture(scope="module", params=VARIANTS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered(request.param)


@pytest.fixture(scope="module")
def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The specification of the pods of each workload, by its name."""
    return {
        each["metadata"]["name"]: each.get("jobTemplate", each)["spec"]["template"]["spec"]
        for each in map(_unwrapped, manifests)
        if each["kind"] in ("Deployment", "Job", "CronJob") and "containers" in str(each)
    }


def _unwrapped(manifest: Manifest) -> Manifest:
    """A cron job as the job that it starts."""
    if manifest["kind"] != "CronJob":
        return manifest
    return manifest | {"spec": manifest["spec"]["jobTemplate"]["spec"]}


def test_every_manifest_is_valid(manifests: list[Manifest]) -> None:
    """Strictly: a field that Kubernetes does not know is an error."""
    checked = 0
    for manifest in manifests:
        if manifest["apiVersion"] == "postgresql.cnpg.io/v1":  # a schema of that operator
            continue
        kubernetes_validate.validate(manifest, VERSION, strict=True)
        checked += 1
    assert checked >= 18


def test_everything_is_deployed(pods: dict[str, Manifest]) -> None:
    assert set(pods) == {"page", "api", "worker", "migrate", "backup"}


def test_pods_fulfil_the_restricted_standard_of_their_namespace(
    manifests: list[Manifest], pods: dict[str, Manifest]
) -> None:
    (namespace,) = [each for each in manifests if each["kind"] == "Namespace"]
    levels = namespace["metadata"]["labels"]
    assert levels["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in pods.items():
        check_restricted(name, pod)


def test_pods_run_as_the_user_of_the_image(pods: dict[str, Manifest]) -> None:
    for pod in pods.values():
        check_user(pod)


def test_every_command_of_a_pod_exists(pods: dict[str, Manifest]) -> None:
    for pod in pods.values():
        for container in containers(pod):
            words = container["args"]
            if "command" in container:
                assert container["command"] == ["sh", "-c"]
                words = shlex.split(words[0].removeprefix("exec lookalike "))
            parse(words)


def test_every_long_running_container_has_all_three_probes(
    manifests: list[Manifest],
) -> None:
    for manifest in manifests:
        if manifest["kind"] != "Deployment":
            continue
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in ports


def test_an_upgrade_leaves_page_and_api_without_a_gap(manifests: list[Manifest]) -> None:
    deployed = {
        each["metadata"]["name"]: each for each in manifests if each["kind"] == "Deployment"
    }
    for name in ("page", "api"):
        assert deployed[name]["spec"]["replicas"] >= 2
        assert deployed[name]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_every_setting_exists(manifests: list[Manifest], pods: dict[str, Manifest]) -> None:
    settings = {f"LOOKALIKE_{name.upper()}" for name in Settings.model_fields}
    named = {name for each in manifests if each["kind"] == "ConfigMap" for name in each["data"]}
    for pod in pods.values():
        for container in containers(pod):
            named |= {each["name"] for each in container.get("env", [])}
    assert named - settings <= {"MIGRATOR_PASSWORD_FILE", "SERVER_PASSWORD_FILE"}
    assert "LOOKALIKE_DATABASE_PASSWORD_FILE" in named


def test_no_password_is_in_a_manifest_or_in_the_environment(
    manifests: list[Manifest], pods: dict[str, Manifest]
) -> None:
    assert not [each for each in manifests if each["kind"] == "Secret"]
    for pod in pods.values():
        check_secrets(pod)


def test_what_is_not_allowed_between_pods_is_denied(manifests: list[Manifest]) -> None:
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in manifests
        if each["kind"] == "NetworkPolicy"
    }
    deny = policies.pop("deny-all")
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    opened = {port["port"] for spec in policies.values() for rule in spec.get("ingress", [])
              for port in rule["ports"]}  # fmt: skip
    assert opened - {5432, 8000} == {"http", 9464, 9465, 8502}
    private = policies["pictures-by-address"]["egress"][0]["to"][0]["ipBlock"]["except"]
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(private)
