"""A small CLIP model folder: real loading code, random weights, meaningless vectors.

The libraries are imported on use: each process collects all tests, and few run those of CLIP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from support.characters import END, START, vocabulary

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPProcessor

DIM = 32
_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@contextmanager
def without_messages() -> Iterator[None]:
    """Without what the libraries print while they load a model."""
    from app.encoders.clip_loading import _without_messages

    with _without_messages():
        yield


def save_small_clip(folder: Path, *, seed: int = 0) -> Path:
    """Write a CLIP model of a few kilobytes to `folder` in the format of sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    parts = save_clip_parts(folder.with_name(folder.name + "-parts"), seed=seed)
    SentenceTransformer(modules=[Transformer(str(parts))], device="cpu").save(str(folder))
    return folder


def save_published_clip(folder: Path) -> Path:
    """Write the same model in the layout of the pinned commit of clip-ViT-B-32: in a subfolder,
    under the module's former name, beside a pickle, with the vocabulary of a slow tokenizer."""
    parts = save_clip_parts(folder / "0_CLIPModel")
    (parts / "tokenizer.json").unlink()
    (parts / "vocab.json").write_text(json.dumps(vocabulary()))
    (parts / "merges.txt").write_text("#version: 0.2\n")
    (parts / "pytorch_model.bin").write_bytes(b"not even a pickle")
    settings = json.loads((parts / "processor_config.json").read_text())["image_processor"]
    (parts / "processor_config.json").unlink()
    (parts / "preprocessor_config.json").write_text(json.dumps(settings))
    module = {"idx": 0, "name": "0", "path": parts.name}
    module["type"] = "sentence_transformers.models.CLIPModel"
    (folder / "modules.json").write_text(json.dumps([module]))
    return folder


def save_clip_parts(folder: Path, *, seed: int = 0, dim: int = DIM) -> Path:
    """Write the same model in the format of transformers; its vectors have `dim` elements."""
    _model(seed, dim).save_pretrained(folder)
    _processor().save_pretrained(folder)
    return folder


def _model(seed: int, dim: int) -> CLIPModel:
    import torch
    from transformers import CLIPConfig, CLIPModel

    letters = vocabulary()
    config = CLIPConfig(
        projection_dim=dim,
        text_config={
            **_SHAPE,
            "vocab_size": len(letters),
            "max_position_embeddings": 77,
            "bos_token_id": letters[START],
            "eos_token_id": letters[END],
            "pad_token_id": letters[END],
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
        tokenizer=CLIPTokenizerFast(vocab=vocabulary(), merges=[], model_max_length=77),
    )
