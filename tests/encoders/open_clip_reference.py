"""Script: the vectors that open_clip itself computes with the small models of the tests.

Run where open_clip_torch, timm, torchvision and transformers are installed, from the root of the
repository: `PYTHONPATH=tests python tests/encoders/open_clip_reference.py`. It writes
`tests/encoders/open_clip_reference.json`, which `test_open_clip.py` compares with.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import open_clip
import timm
import torch
from safetensors.torch import load_file
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer

from support.small_open_clip import CLIP, SIGLIP, SIZES, TEXTS, photo, save_small_open_clip

TARGET = Path(__file__).with_suffix(".json")


@register_model
def vit_test_patch8_siglip_32(pretrained: bool = False, **more: object) -> VisionTransformer:
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, class_token=False,
        **{"global_pool": "map", **{k: v for k, v in more.items() if k != "pretrained_cfg"
           and k != "pretrained_cfg_overlay" and k != "cache_dir"}},
    )  # fmt: skip


def vectors(folder: Path) -> dict[str, list[list[float]]]:
    config = json.loads((folder / "open_clip_config.json").read_text())
    model_cfg, text_cfg = config["model_cfg"], config["model_cfg"]["text_cfg"]
    make = open_clip.CustomTextCLIP if model_cfg.pop("custom_text", False) else open_clip.CLIP
    model = make(**model_cfg).eval()
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"), strict=True)
    preprocess = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(size=32, **config["preprocess_cfg"]), is_train=False
    )
    clean = text_cfg.get("tokenizer_kwargs", {"clean": "lower"})
    tokenizer = open_clip.tokenizer.HFTokenizer(str(folder), text_cfg["context_length"], **clean)
    with torch.inference_mode():
        pixels = torch.stack([preprocess(photo(*size)) for size in SIZES])
        pictures = model.encode_image(pixels, normalize=True)
        words = model.encode_text(tokenizer(list(TEXTS)), normalize=True)
    return {"pictures": pictures.numpy().tolist(), "texts": words.numpy().tolist()}


def main() -> None:
    result: dict[str, object] = {
        "libraries": {"open_clip": open_clip.__version__, "timm": timm.__version__,
                      "torch": torch.__version__},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        for kind in (SIGLIP, CLIP):
            result[kind] = vectors(save_small_open_clip(Path(name) / kind, kind))
    TARGET.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    sys.exit(main())
