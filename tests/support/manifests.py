"""The manifests of `deploy/kubernetes`, as kubectl renders them, and the standard of their pods."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from support.paths import REPO

FOLDER = REPO / "deploy" / "kubernetes"
Manifest = dict[str, Any]


def documents(folder: Path) -> list[Manifest]:
    """The manifests that a kustomization lists, with those of the folders it lists."""
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    found: list[Manifest] = []
    for name in listed["resources"]:
        if (folder / name).is_dir():
            found += documents(folder / name)
        else:
            found += yaml.safe_load_all((folder / name).read_text(encoding="utf-8"))
    return found


def rendered(name: str) -> list[Manifest]:
    """What `kubectl kustomize` renders; where there is no kubectl, the files that it would read."""
    folder = FOLDER / name
    if shutil.which("kubectl") is None:
        patches = [yaml.safe_load(file.read_text()) for file in folder.glob("migrate-*.yaml")]
        return documents(folder) + patches
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = list(yaml.safe_load_all(done.stdout))
    assert len(found) == len(documents(folder))
    return found


def containers(pod: Manifest) -> Iterator[Manifest]:
    yield from pod.get("initContainers", [])
    yield from pod.get("containers", [])


def check_restricted(name: str, pod: Manifest) -> None:
    """A pod fulfils the standard `restricted`, asks for what it needs, and has limited memory."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert container["resources"]["limits"]["memory"]


def check_secrets(pod: Manifest) -> None:
    """Secrets are files that the user of the pod alone can read."""
    assert "secretKeyRef" not in str(pod) and "secretRef" not in str(pod)
    mounted = {each["name"]: each["secret"] for each in pod["volumes"] if "secret" in each}
    assert mounted and all(each["defaultMode"] == 0o440 for each in mounted.values())


def check_user(pod: Manifest) -> None:
    """A pod runs as the user of the image."""
    image = (REPO / "Dockerfile").read_text(encoding="utf-8")
    user = pod["securityContext"]["runAsUser"]
    assert f"\nUSER {user}:{pod['securityContext']['runAsGroup']}\n" in image
