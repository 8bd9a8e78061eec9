"""The manifests of a Ray cluster and of jobs on it, checked against schemas and the other ones."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from app.config import Settings
from support.command_lines import parse
from support.manifests import (
    FOLDER,
    Manifest,
    check_restricted,
    check_secrets,
    check_user,
    containers,
    rendered,
)
from support.paths import REPO

VERSION = "1.34"
JOBS = ("ray-ingest", "ray-rebuild")
SCHEMA = json.loads((REPO / "tests/support/raycluster-v1.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    return [each for name in ("ray", *JOBS) for each in rendered(name)]


@pytest.fixture(scope="module")
def cluster(manifests: list[Manifest]) -> Manifest:
    (found,) = [each for each in manifests if each["kind"] == "RayCluster"]
    return found


@pytest.fixture(scope="module")
def jobs(manifests: list[Manifest]) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == "Job"]


@pytest.fixture(scope="module")
def pods(cluster: Manifest, jobs: list[Manifest]) -> dict[str, Manifest]:
    """The specification of the pods of each group and job, by its name."""
    found = {group["groupName"]: group["template"]["spec"] for group in groups(cluster)}
    found["head"] = cluster["spec"]["headGroupSpec"]["template"]["spec"]
    return found | {job["metadata"]["name"]: job["spec"]["template"]["spec"] for job in jobs}


def groups(cluster: Manifest) -> list[Manifest]:
    return list(cluster["spec"]["workerGroupSpecs"])


def validate_cluster(cluster: Manifest) -> None:
    """By the schema of its own fields, and each template of a pod by that of Kubernetes."""
    jsonschema.validate(cluster, SCHEMA)
    for group in (cluster["spec"]["headGroupSpec"], *groups(cluster)):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
        kubernetes_validate.validate(pod | {"metadata": {"name": "pod"}}, VERSION, strict=True)


def test_every_manifest_is_valid(manifests: list[Manifest], cluster: Manifest) -> None:
    validate_cluster(cluster)
    others = [each for each in manifests if each is not cluster]
    for manifest in others:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    assert [each["kind"] for each in others] == ["NetworkPolicy"] * 4 + ["Job"] * 2


@pytest.mark.parametrize(
    "mistake",
    [
        lambda spec: spec.update(rayVersoin="2.60.0"),
        lambda spec: spec.pop("headGroupSpec"),
        lambda spec: spec["workerGroupSpecs"][0].pop("maxReplicas"),
        lambda spec: spec["workerGroupSpecs"][0].update(replicas="2"),
        lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda spec: spec["headGroupSpec"]["template"]["spec"].update(container=[]),
        lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0].pop("name"),
    ],
)
def test_a_mistake_in_the_cluster_is_found(cluster: Manifest, mistake: Any) -> None:
    wrong = copy.deepcopy(cluster)
    mistake(wrong["spec"])
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate_cluster(wrong)


def test_pods_are_as_restricted_as_the_others(pods: dict[str, Manifest]) -> None:
    assert set(pods) == {"head", "processors", "graphics-cards", *JOBS}
    for name, pod in pods.items():
        check_restricted(name, pod)
        check_user(pod)
        check_secrets(pod)


def test_all_have_the_image_of_the_other_pods(pods: dict[str, Manifest]) -> None:
    named = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text(encoding="utf-8"))
    (image,) = named["images"]
    for folder in ("ray", *JOBS):
        own = yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text(encoding="utf-8"))
        assert own["images"] == [image]
    for pod in pods.values():
        (container,) = containers(pod)
        assert container["image"] in ("lookalike", f"{image['newName']}:{image['newTag']}")


def test_a_node_lets_in_only_who_has_the_token(pods: dict[str, Manifest]) -> None:
    for pod in pods.values():
        (container,) = containers(pod)
        environment = {each["name"]: each["value"] for each in container["env"]}
        assert environment["RAY_AUTH_MODE"] == "token"
        folder, _, name = environment["RAY_AUTH_TOKEN_PATH"].rpartition("/")
        (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == folder]
        (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]
        assert (name, volume["secret"]["secretName"]) == ("token", "lookalike-ray")


def test_nodes_know_no_password_of_the_database(pods: dict[str, Manifest]) -> None:
    """A task brings what it needs; a job has it as a file."""
    for name, pod in pods.items():
        secrets = {each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}
        assert secrets == {"lookalike-ray"} | ({"lookalike-server"} if name in JOBS else set())


def test_every_node_has_all_three_probes_of_its_own(pods: dict[str, Manifest]) -> None:
    """Those that the operator would add call programs that the image does not have."""
    for name in set(pods) - set(JOBS):
        (container,) = containers(pods[name])
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["tcpSocket"]["port"] in ports


def test_a_probed_port_is_one_that_ray_opens(cluster: Manifest, pods: dict[str, Manifest]) -> None:
    for group in groups(cluster):
        (container,) = containers(pods[group["groupName"]])
        opened = int(group["rayStartParams"]["node-manager-port"])
        assert [port["containerPort"] for port in container["ports"]] == [opened]


def test_tasks_run_on_workers_with_the_processors_they_ask_for(
    cluster: Manifest, pods: dict[str, Manifest]
) -> None:
    assert cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in groups(cluster):
        (container,) = containers(pods[group["groupName"]])
        resources = container["resources"]
        assert group["rayStartParams"]["num-cpus"] == resources["requests"]["cpu"]
        cards = resources["limits"].get("nvidia.com/gpu")
        assert group["rayStartParams"].get("num-gpus") == cards
    assert [group["replicas"] for group in groups(cluster)] == [2, 0]


def test_the_commands_of_the_jobs_exist_and_reach_the_head(
    cluster: Manifest, jobs: list[Manifest]
) -> None:
    for job in jobs:
        (container,) = containers(job["spec"]["template"]["spec"])
        parse(container["args"])
        address = container["args"][container["args"].index("--on") + 1]
        assert address == f"ray://{cluster['metadata']['name']}-head-svc:10001"
        assert container["envFrom"] == [{"configMapRef": {"name": "lookalike-server"}}]
        named = {each["name"] for each in container["env"] if each["name"][:4] != "RAY_"}
        assert named <= {f"LOOKALIKE_{name.upper()}" for name in Settings.model_fields}


def test_only_nodes_reach_nodes_and_only_jobs_the_port_of_clients(
    manifests: list[Manifest], cluster: Manifest, jobs: list[Manifest]
) -> None:
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in manifests
        if each["kind"] == "NetworkPolicy"
    }
    nodes = {"ray.io/cluster": cluster["metadata"]["name"]}
    among = policies["ray-nodes"]
    assert among["podSelector"] == {"matchLabels": nodes}
    assert among["ingress"] == [{"from": [{"podSelector": {"matchLabels": nodes}}]}]
    assert among["egress"] == [{"to": [{"podSelector": {"matchLabels": nodes}}]}]
    (clients,) = policies["ray-clients"]["ingress"]
    job = {"app.kubernetes.io/name": "ray-job"}
    assert clients["from"] == [{"podSelector": {"matchLabels": job}}]
    assert clients["ports"] == [{"port": "client", "protocol": "TCP"}]
    for each in jobs:
        assert job.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    ingress = [name for name, spec in policies.items() if "Ingress" in spec["policyTypes"]]
    assert sorted(ingress) == ["ray-clients", "ray-nodes"]
    private = policies["ray-pictures-by-address"]["egress"][0]["to"][0]["ipBlock"]["except"]
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(private)
