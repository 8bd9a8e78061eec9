"""Presets: short names of models, each with a commit, a licence and a purpose."""

from __future__ import annotations

from dataclasses import dataclass

from app.encoders.base import CLIP, split_variant


@dataclass(frozen=True, slots=True)
class Preset:
    """A model of the hub under a short name.

    `model` is its full name, under which it is recorded, `repository` where it lies, `commit` what
    is downloaded of it. `published` is what its authors measured, `skips` are files that are not
    needed. All read words, and all licences allow commercial use.
    """

    name: str
    model: str
    repository: str
    commit: str
    dim: int
    licence: str
    suits: str
    published: str
    megabytes: int
    skips: tuple[str, ...] = ()


# The published SigLIP models of Marqo also hold code of their own and weights for it.
_OWN_CODE = ("model.safetensors", "onnx/*", "*.bin")

PRESETS = (
    Preset(
        "clip", CLIP, f"sentence-transformers/{CLIP}",
        "327ab6726d33c0e22f920c83f2ff9e4bd38ca37f", 512,
        "MIT (OpenAI's CLIP; the copy on the hub names none)",
        "everything, on little memory: the smallest and the fastest",
        "63.3 % zero-shot accuracy on ImageNet", 605,
    ),
    Preset(
        "siglip2", "google/siglip2-base-patch16-224", "google/siglip2-base-patch16-224",
        "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2", 768, "Apache-2.0",
        "words in many languages, and catalogues of all kinds",
        "78.2 % zero-shot accuracy on ImageNet; recall@1 of texts to pictures on COCO 52.1 %", 1501,
    ),
    Preset(
        "ecommerce", "Marqo/marqo-ecommerce-embeddings-B", "Marqo/marqo-ecommerce-embeddings-B",
        "05d9b360d16ec25315b7d8c8ff0a46e3eec1152e", 768, "Apache-2.0",
        "shops of all kinds",
        "recall@10 of titles to pictures 0.832 on a million products of Google Shopping, where "
        "ViT-B-16-SigLIP has 0.660", 813, _OWN_CODE,
    ),
    Preset(
        "fashion", "Marqo/marqo-fashionSigLIP", "Marqo/marqo-fashionSigLIP",
        "e5619578fd528afa0bf88d8fae37748336a57fa2", 768, "Apache-2.0",
        "clothing, shoes and accessories",
        "recall@10 of texts to pictures 0.340, the mean of six sets of fashion, where "
        "ViT-B-16-SigLIP has 0.314", 813, _OWN_CODE,
    ),
)  # fmt: skip

_BY_NAME = {preset.name: preset for preset in PRESETS}
_BY_REPOSITORY = {preset.repository: preset for preset in PRESETS}


def full_name(name: str) -> str:
    """The name under which the model of a preset is recorded, with the same suffix and
    `@REVISION`; any other name as it is."""
    model, at, revision = name.partition("@")
    plain, suffix = split_variant(model)
    preset = _BY_NAME.get(plain)
    if preset is None:
        return name
    return preset.model + suffix + at + revision


def preset_of(repository: str) -> Preset | None:
    """The preset whose model lies in this repository of the hub."""
    return _BY_REPOSITORY.get(repository)
