"""A small CLIP model folder: real loading code, random weights, meaningless vectors.

The libraries are imported on use: each process collects all tests, and few run those of CLIP.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPProcessor

DIM = 32
_END = "<|endoftext|>"
_START = "<|startoftext|>"
_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def save_small_clip(folder: Path, *, seed: int = 0) -> Path:
    """Write a CLIP model of a few kilobytes to `folder` in the format of sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    parts = folder.with_name(folder.name + "-parts")
    _model(seed).save_pretrained(parts)
    _processor().save_pretrained(parts)
    SentenceTransformer(modules=[Transformer(str(parts))], device="cpu").save(str(folder))
    return folder


def _model(seed: int) -> CLIPModel:
    import torch
    from transformers import CLIPConfig, CLIPModel

    letters = _vocabulary()
    config = CLIPConfig(
        projection_dim=DIM,
        text_config={
            **_SHAPE,
            "vocab_size": len(letters),
            "max_position_embeddings": 77,
            "bos_token_id": letters[_START],
            "eos_token_id": letters[_END],
            "pad_token_id": letters[_END],
        },
        vision_config={**_SHAPE, "image_size": 32, "patch_size": 8},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(config)


def _processor() -> CLIPProcessor:
    from transformers import CLIPProcessor, CLIPTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        tokenizer=CLIPTokenizerFast(vocab=_vocabulary(), merges=[], model_max_length=77),
    )


def _vocabulary() -> dict[str, int]:
    """Each printable ASCII character, inside a word and at its end; the two special tokens are
    last."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), _START, _END]
    return {token: number for number, token in enumerate(tokens)}
