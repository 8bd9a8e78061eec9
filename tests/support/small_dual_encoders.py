"""Small CLIP, SigLIP and SigLIP 2 models in the file layout of transformers: drawn weights, real
loading code, meaningless vectors.

The libraries are imported on use: each process collects all tests, and few run those of models.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch

from support.small_clip import save_clip_parts

LENGTH = 64
_PIECES = 120
_TRAINED = 40
_SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
          "num_attention_heads": 2}  # fmt: skip
_TEXT = {**_SHAPE, "vocab_size": _PIECES, "max_position_embeddings": LENGTH,
         "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}  # fmt: skip
_VISION = {**_SHAPE, "image_size": 32, "patch_size": 8}
_CORPUS = ["the quick brown fox jumps over the lazy dog", "red coat size forty two", "blue shoe"]


def save_bare_clip(folder: Path) -> Path:
    """A CLIP of transformers: a folder without `modules.json`."""
    return save_clip_parts(folder)


def save_siglip(folder: Path) -> Path:
    """The layout of google/siglip-base-patch16-224: its vocabulary is a file of sentencepiece."""
    from transformers import SiglipConfig, SiglipModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        text = {**_TEXT, "vocab_size": _TRAINED}
        config = SiglipConfig(text_config=text, vision_config=dict(_VISION))
        _loud(SiglipModel(config)).save_pretrained(folder)
    _preprocessor(folder, "SiglipImageProcessor", resample=3)
    (folder / "spiece.model").write_bytes(_trained())
    settings = {
        "tokenizer_class": "SiglipTokenizer", "model_input_names": ["input_ids"],
        "model_max_length": LENGTH, "do_lower_case": True, "eos_token": "</s>",
        "pad_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": True,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def save_siglip2(folder: Path) -> Path:
    """The layout of google/siglip2-base-patch16-224: SigLIP's network, Gemma's vocabulary."""
    from transformers import GemmaTokenizer, SiglipConfig, SiglipModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = SiglipConfig(text_config=dict(_TEXT), vision_config=dict(_VISION))
        _loud(SiglipModel(config)).save_pretrained(folder)
    _preprocessor(folder, "SiglipImageProcessor", resample=2)
    _letters(GemmaTokenizer).save_pretrained(folder)
    return folder


def save_naflex(folder: Path) -> Path:
    """The layout of google/siglip2-base-patch16-naflex: pictures keep their ratio."""
    from transformers import Siglip2Config, Siglip2Model, Siglip2Tokenizer
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        vision = {**_SHAPE, "num_patches": 16, "patch_size": 8}
        config = Siglip2Config(text_config=dict(_TEXT), vision_config=vision)
        _loud(Siglip2Model(config)).save_pretrained(folder)
    Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16).save_pretrained(folder)
    _letters(Siglip2Tokenizer).save_pretrained(folder)
    return folder


def save_picture_half(folder: Path) -> Path:
    """The picture network of a SigLIP alone."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    SiglipVisionModel(SiglipVisionConfig(**_VISION)).save_pretrained(folder)
    _preprocessor(folder, "SiglipImageProcessor", resample=3)
    return folder


def _loud(model: torch.nn.Module) -> torch.nn.Module:
    """The model with larger weights, so that what differs in its input differs in its vector."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return model


def _preprocessor(folder: Path, kind: str, *, resample: int) -> None:
    settings = {
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_processor_type": kind,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "processor_class": "SiglipProcessor", "resample": resample,
        "rescale_factor": 1 / 255, "size": {"height": 32, "width": 32},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def _trained() -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_CORPUS * 20), model_writer=model, vocab_size=60,
        model_type="unigram", hard_vocab_limit=False, unk_id=2, eos_id=1, pad_id=0, bos_id=-1,
        minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def _letters(kind: type) -> object:
    """A tokenizer of this class whose pieces are characters."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"]
    pieces = [*special, *(chr(code) for code in range(33, 127))]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return kind(
        vocab=vocab, merges=[], model_max_length=LENGTH, padding_side="right",
        model_input_names=["input_ids"], add_bos_token=False, add_eos_token=True,
    )  # fmt: skip
