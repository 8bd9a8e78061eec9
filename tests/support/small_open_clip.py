"""Small models in the file layout of open_clip, with drawn weights: real loading code, meaningless
vectors. `tests/encoders/open_clip_reference.py` has open_clip itself encode with them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from support.characters import vocabulary

if TYPE_CHECKING:
    from transformers import CLIPTokenizerFast, T5Tokenizer

SIZES = ((64, 64), (331, 97), (61, 259), (45, 32))
TEXTS = ("A red coat!", "  Été   &amp; winter_shoes ", "schÃ¶ne Jacke “XL”", "", "x" * 300)
"""What the reference vectors are of: `photo`s of these sizes, and texts."""

SIGLIP = "siglip"
CLIP = "clip"
_WIDTH, _LAYERS, _SIDE, _PATCH, _DIM = 64, 2, 32, 8, 32
_PIECES = 100
_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

# The name is unknown to timm; the script registers it. The keys are those of the published models.
_SIGLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": _WIDTH,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": _SIDE,
            "timm_model_name": f"vit_test_patch{_PATCH}_siglip_{_SIDE}",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": 64,
            "vocab_size": _PIECES,
            "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": _WIDTH,
            "heads": 4,
            "layers": _LAYERS,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
        },
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}
_CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": _DIM,
        "vision_cfg": {
            "image_size": _SIDE,
            "layers": _LAYERS,
            "width": _WIDTH,
            "head_width": 16,
            "patch_size": _PATCH,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": len(vocabulary()),
            "width": _WIDTH,
            "heads": 4,
            "layers": _LAYERS,
        },
    },
    "preprocess_cfg": {"mean": _MEAN, "std": _STD},
}


def save_small_open_clip(folder: Path, kind: str, *, changes: Mapping[str, object] = {}) -> Path:
    """Write a model of this kind, SIGLIP or CLIP; `changes` are merged into its `model_cfg`."""
    folder.mkdir(parents=True)
    config = json.loads(json.dumps(_SIGLIP_CONFIG if kind == SIGLIP else _CLIP_CONFIG))
    for part, value in changes.items():
        before = config["model_cfg"].get(part)
        merged = {**before, **value} if isinstance(value, Mapping) and before else value
        config["model_cfg"][part] = merged
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=4))
    shapes = _siglip_shapes() if kind == SIGLIP else _clip_shapes()
    weights = {name: _drawn(name, shape) for name, shape in shapes.items()}
    save_file(weights, folder / "open_clip_model.safetensors", {"format": "pt"})
    (_pieces() if kind == SIGLIP else _characters()).save_pretrained(folder)
    return folder


def photo(width: int, height: int) -> Image.Image:
    """Coloured blocks, the same wherever they are drawn."""
    rng = np.random.default_rng([width, height])
    blocks = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def add_own_code(folder: Path) -> None:
    """What the published SigLIP models hold besides: code of their own, and weights for it."""
    mapped = {name: f"own_model.{name}" for name in ("AutoConfig", "AutoModel", "AutoProcessor")}
    config = {"auto_map": mapped, "model_type": "siglip"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own_model.py").write_text("raise SystemExit('code of the model was run')")
    save_file({"model.x": np.zeros(1, np.float32)}, folder / "model.safetensors", {"format": "pt"})
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"not even a pickle")


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    numbers = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("weight") and len(shape) == 1:  # of a layer norm
        return (1 + 0.2 * numbers).astype(np.float32)
    return np.asarray(0.15 * numbers, np.float32)


def _block(names: Mapping[str, tuple[int, ...]], prefix: str) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.{n}.{name}": shape for n in range(_LAYERS) for name, shape in names.items()}


_TEXT_BLOCK = {
    "ln_1.weight": (_WIDTH,),
    "ln_1.bias": (_WIDTH,),
    "attn.in_proj_weight": (3 * _WIDTH, _WIDTH),
    "attn.in_proj_bias": (3 * _WIDTH,),
    "attn.out_proj.weight": (_WIDTH, _WIDTH),
    "attn.out_proj.bias": (_WIDTH,),
    "ln_2.weight": (_WIDTH,),
    "ln_2.bias": (_WIDTH,),
    "mlp.c_fc.weight": (4 * _WIDTH, _WIDTH),
    "mlp.c_fc.bias": (4 * _WIDTH,),
    "mlp.c_proj.weight": (_WIDTH, 4 * _WIDTH),
    "mlp.c_proj.bias": (_WIDTH,),
}
_TIMM_BLOCK = {
    "norm1.weight": (_WIDTH,),
    "norm1.bias": (_WIDTH,),
    "attn.qkv.weight": (3 * _WIDTH, _WIDTH),
    "attn.qkv.bias": (3 * _WIDTH,),
    "attn.proj.weight": (_WIDTH, _WIDTH),
    "attn.proj.bias": (_WIDTH,),
    "norm2.weight": (_WIDTH,),
    "norm2.bias": (_WIDTH,),
    "mlp.fc1.weight": (4 * _WIDTH, _WIDTH),
    "mlp.fc1.bias": (4 * _WIDTH,),
    "mlp.fc2.weight": (_WIDTH, 4 * _WIDTH),
    "mlp.fc2.bias": (_WIDTH,),
}


def _siglip_shapes() -> dict[str, tuple[int, ...]]:
    trunk = "visual.trunk"
    pool = {
        "latent": (1, 1, _WIDTH),
        "q.weight": (_WIDTH, _WIDTH),
        "q.bias": (_WIDTH,),
        "kv.weight": (2 * _WIDTH, _WIDTH),
        "kv.bias": (2 * _WIDTH,),
        "proj.weight": (_WIDTH, _WIDTH),
        "proj.bias": (_WIDTH,),
        "norm.weight": (_WIDTH,),
        "norm.bias": (_WIDTH,),
        **{name: shape for name, shape in _TIMM_BLOCK.items() if name.startswith("mlp")},
    }
    return {
        "logit_scale": (),
        "logit_bias": (),
        f"{trunk}.pos_embed": (1, (_SIDE // _PATCH) ** 2, _WIDTH),
        f"{trunk}.patch_embed.proj.weight": (_WIDTH, 3, _PATCH, _PATCH),
        f"{trunk}.patch_embed.proj.bias": (_WIDTH,),
        **_block(_TIMM_BLOCK, f"{trunk}.blocks"),
        f"{trunk}.norm.weight": (_WIDTH,),
        f"{trunk}.norm.bias": (_WIDTH,),
        **{f"{trunk}.attn_pool.{name}": shape for name, shape in pool.items()},
        "text.positional_embedding": (64, _WIDTH),
        "text.token_embedding.weight": (_PIECES, _WIDTH),
        **_block(_TEXT_BLOCK, "text.transformer.resblocks"),
        "text.ln_final.weight": (_WIDTH,),
        "text.ln_final.bias": (_WIDTH,),
        "text.text_projection.weight": (_WIDTH, _WIDTH),
        "text.text_projection.bias": (_WIDTH,),
    }


def _clip_shapes() -> dict[str, tuple[int, ...]]:
    return {
        "logit_scale": (),
        "positional_embedding": (77, _WIDTH),
        "text_projection": (_WIDTH, _DIM),
        "visual.class_embedding": (_WIDTH,),
        "visual.positional_embedding": (1 + (_SIDE // _PATCH) ** 2, _WIDTH),
        "visual.proj": (_WIDTH, _DIM),
        "visual.conv1.weight": (_WIDTH, 3, _PATCH, _PATCH),
        "visual.ln_pre.weight": (_WIDTH,),
        "visual.ln_pre.bias": (_WIDTH,),
        **_block(_TEXT_BLOCK, "visual.transformer.resblocks"),
        "visual.ln_post.weight": (_WIDTH,),
        "visual.ln_post.bias": (_WIDTH,),
        **_block(_TEXT_BLOCK, "transformer.resblocks"),
        "token_embedding.weight": (len(vocabulary()), _WIDTH),
        "ln_final.weight": (_WIDTH,),
        "ln_final.bias": (_WIDTH,),
    }


def _pieces() -> T5Tokenizer:
    """A tokenizer like that of SigLIP, whose pieces are single characters."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -1.0)]
    pieces += [(chr(code), -2.0) for code in range(33, 127)]
    assert len(pieces) <= _PIECES
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=64)


def _characters() -> CLIPTokenizerFast:
    from transformers import CLIPTokenizerFast

    return CLIPTokenizerFast(vocab=vocabulary(), merges=[], model_max_length=77)
