"""Models of open_clip: their published weights in the networks of transformers.

open_clip itself is not used: it needs torchvision, and its vision transformers and those of timm
compute what CLIP and SigLIP of transformers do, under other names. A configuration that asks for
anything else is refused by name. `tests/encoders/test_open_clip.py` compares with vectors that
open_clip computed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from app.encoders.dual_encoder import DualEncoderModule
from app.encoders.model_layouts import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS
from app.encoders.open_clip_inputs import ProcessorSettings, preprocessor_of, tokenizer_of

Settings = Mapping[str, Any]

_SIGLIP_NAME = re.compile(r"vit_[a-z0-9]+_patch(\d+)_siglip_\d+")
_SIGLIP_HEADS = {1152: 16, 1536: 16}
"""Attention heads of timm's SigLIP by width, where a head is not 64 wide (so400m, giantopt)."""

_TANH = "vit_giantopt"
"""timm's only SigLIP that approximates its activation by tanh."""

# What a setting may be. Any other setting, or another value, makes another network.
_MODEL = {
    "embed_dim": None, "vision_cfg": None, "text_cfg": None, "init_logit_bias": None,
    "init_logit_scale": None, "custom_text": None, "quick_gelu": None,
}  # fmt: skip
_SIGLIP_VISION = {
    "image_size": None, "timm_model_name": None, "timm_model_pretrained": None,
    "timm_pool": ("map",), "timm_proj": ("none",), "timm_drop": None, "timm_drop_path": None,
}  # fmt: skip
_CLIP_VISION = {
    "image_size": None, "layers": None, "width": None, "patch_size": None, "head_width": None,
    "mlp_ratio": None, "patch_dropout": None,
}  # fmt: skip
_TEXT = {
    "context_length": None, "vocab_size": None, "width": None, "heads": None, "layers": None,
    "hf_tokenizer_name": None, "tokenizer_kwargs": None, "mlp_ratio": None,
}  # fmt: skip
_SIGLIP_TEXT = {
    **_TEXT, "no_causal_mask": (True,), "proj_bias": (True,), "pool_type": ("last",),
    "norm_kwargs": ({"eps": 1e-6},), "act_kwargs": ({"approximate": "tanh"},),
}  # fmt: skip
_CLIP_TEXT = {**_TEXT, "pool_type": ("argmax",), "no_causal_mask": (False,)}


def open_open_clip(folder: Path) -> SentenceTransformer:
    """The model in a folder of open_clip, from safetensors only and without any code of it.

    Raises one of LOADING_ERRORS; ValueError for a network that is neither CLIP nor SigLIP.
    """
    config = json.loads((folder / OPEN_CLIP_CONFIG).read_bytes())
    model = config["model_cfg"]
    weights = load_file(folder / OPEN_CLIP_WEIGHTS)
    network = _siglip(model, weights) if _is_siglip(model) else _clip(model, weights)
    preprocessor = preprocessor_of(config.get("preprocess_cfg", {}), _side(model["vision_cfg"]))
    processor = ProcessorSettings(preprocessor)
    texts = tokenizer_of(folder, model["text_cfg"], padded=_is_siglip(model))
    module = DualEncoderModule(network.eval(), processor, texts, preprocessor)
    return SentenceTransformer(modules=[module], device="cpu")


def _is_siglip(model: Settings) -> bool:
    return bool(model["vision_cfg"].get("timm_model_name"))


def _siglip(model: Settings, weights: Mapping[str, Tensor]) -> Any:
    vision, text = model["vision_cfg"], model["text_cfg"]
    _check(model, _MODEL, "model_cfg")
    _check(vision, _SIGLIP_VISION, "vision_cfg")
    _check(text, _SIGLIP_TEXT, "text_cfg", demanded=("no_causal_mask", "proj_bias", "pool_type"))
    name = str(vision["timm_model_name"])
    match = _SIGLIP_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"its picture network {name} is not supported, only those of SigLIP are")
    width = len(weights["visual.trunk.norm.weight"])
    act = "gelu_pytorch_tanh"
    network = SiglipModel(SiglipConfig(
        vision_config={
            "hidden_size": width, "num_attention_heads": _SIGLIP_HEADS.get(width, width // 64),
            "num_hidden_layers": _depth(weights, r"visual\.trunk\.blocks\.(\d+)\."),
            "intermediate_size": len(weights["visual.trunk.blocks.0.mlp.fc1.bias"]),
            "patch_size": int(match[1]), "image_size": _side(vision),
            "hidden_act": act if name.startswith(_TANH) else "gelu",
        },
        text_config={
            **_text_sizes(text), "projection_size": model["embed_dim"],
            "hidden_act": act if text.get("act_kwargs") else "gelu",
            "intermediate_size": len(weights["text.transformer.resblocks.0.mlp.c_fc.bias"]),
        },
    ))  # fmt: skip
    _load(network, _with_joined_pooling(weights), _SIGLIP_NAMES)
    return network


def _with_joined_pooling(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with those of the pooling's query, key and value as one, as transformers does."""
    joined, pool = dict(weights), "visual.trunk.attn_pool"
    for kind in ("weight", "bias"):
        parts = [joined.pop(f"{pool}.q.{kind}"), joined.pop(f"{pool}.kv.{kind}")]
        joined[f"vision_model.head.attention.in_proj_{kind}"] = torch.cat(parts)
    return joined


def _clip(model: Settings, weights: Mapping[str, Tensor]) -> Any:
    vision, text = model["vision_cfg"], model["text_cfg"]
    _check(model, {**_MODEL, "custom_text": (False,)}, "model_cfg")
    _check(vision, _CLIP_VISION, "vision_cfg")
    _check(text, _CLIP_TEXT, "text_cfg")
    if not isinstance(vision["layers"], int):
        raise ValueError("its picture network is a ResNet, which is not supported")
    act = "quick_gelu" if model.get("quick_gelu") else "gelu"
    width = int(vision["width"])
    network = CLIPModel(CLIPConfig(
        projection_dim=model["embed_dim"],
        vision_config={
            "hidden_size": width, "num_attention_heads": width // vision.get("head_width", 64),
            "num_hidden_layers": vision["layers"], "patch_size": vision["patch_size"],
            "intermediate_size": len(weights["visual.transformer.resblocks.0.mlp.c_fc.bias"]),
            "image_size": _side(vision), "hidden_act": act,
        },
        # This end of a text makes transformers take the token with the highest number, as
        # open_clip does.
        text_config={
            **_text_sizes(text), "hidden_act": act, "eos_token_id": 2, "bos_token_id": 0,
            "intermediate_size": len(weights["transformer.resblocks.0.mlp.c_fc.bias"]),
        },
    ))  # fmt: skip
    _load(network, weights, _CLIP_NAMES)
    return network


def _check(
    settings: Settings, allowed: Settings, part: str, demanded: tuple[str, ...] = ()
) -> None:
    """Raise ValueError for a setting that is not computed here."""
    for name, value in settings.items():
        values = allowed.get(name, (None, False, "default"))
        if values is not None and value not in values:
            raise ValueError(f"its {part}.{name} = {value!r} is not supported")
    for name in demanded:
        if name not in settings:
            raise ValueError(f"its {part} without {name} is not supported")


def _text_sizes(text: Settings) -> dict[str, int]:
    return {
        "hidden_size": text["width"],
        "num_attention_heads": text["heads"],
        "num_hidden_layers": text["layers"],
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["context_length"],
    }


def _side(vision: Settings) -> int:
    size = vision["image_size"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ValueError(f"its input of {size} is not a square")
    return int(sides.pop())


def _depth(weights: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(match[1]) for name in weights if (match := re.match(pattern, name)))


_TEXT_BLOCK = [
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
]
_SIGLIP_NAMES = [
    (r"^visual\.trunk\.pos_embed$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.trunk\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.trunk\.blocks\.", "vision_model.encoder.layers."),
    (r"^visual\.trunk\.norm\.", "vision_model.post_layernorm."),
    (r"^visual\.trunk\.attn_pool\.latent$", "vision_model.head.probe"),
    (r"^visual\.trunk\.attn_pool\.proj\.", "vision_model.head.attention.out_proj."),
    (r"^visual\.trunk\.attn_pool\.norm\.", "vision_model.head.layernorm."),
    (r"^visual\.trunk\.attn_pool\.mlp\.", "vision_model.head.mlp."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.attn\.proj\.", ".self_attn.out_proj."),
    (r"^text\.positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^text\.token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^text\.transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^text\.ln_final\.", "text_model.final_layer_norm."),
    (r"^text\.text_projection\.", "text_model.head."),
    *_TEXT_BLOCK,
]
_CLIP_NAMES = [
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    *_TEXT_BLOCK,
]
_TRANSPOSED = ("visual.proj", "text_projection")
"""Matrices that open_clip multiplies from the other side."""

_NOT_USED = frozenset({"attn_mask", "logit_scale", "logit_bias"})
"""Weights that no vector depends on."""


def _load(network: Any, weights: Mapping[str, Tensor], names: list[tuple[str, str]]) -> None:
    """Copy weights into the network; LookupError unless each has its place and none is missing."""
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name not in _NOT_USED:
            tensor = tensor.float()
            state |= _renamed(name, tensor.T if name in _TRANSPOSED else tensor, names)
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for name in state.keys() ^ (wanted.keys() - _NOT_USED):
        raise LookupError(f"its weights are not those of its configuration: {name}")
    # Position embeddings have one more dimension in timm.
    state = {name: tensor.reshape(wanted[name]) for name, tensor in state.items()}
    network.load_state_dict(state, strict=False)


def _renamed(name: str, tensor: Tensor, names: list[tuple[str, str]]) -> dict[str, Tensor]:
    """A weight under its name in transformers; joined attention weights as their parts."""
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    joined = re.fullmatch(r"(.*)\.attn\.(?:qkv\.|in_proj_)(weight|bias)", name)
    if joined:
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{joined[1]}.self_attn.{part}_proj.{joined[2]}": value for part, value in parts}
    return {name: tensor}
