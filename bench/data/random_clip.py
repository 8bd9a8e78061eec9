"""A CLIP model of the size of ViT-B/32 with random weights: as fast as the trained one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")


def save(folder: Path) -> Path:
    """Write the model to `folder` in the format of sentence-transformers; returns `folder`.

    Only the image encoder has the real size; the text encoder is tiny. Nothing is downloaded.
    """
    letters = {chr(code): code - 33 for code in range(33, 127)}
    letters |= {f"{letter}</w>": number + 94 for letter, number in letters.items()}
    vocabulary = letters | {token: 188 + number for number, token in enumerate(SPECIAL_TOKENS)}
    start, end = (vocabulary[token] for token in SPECIAL_TOKENS)
    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": len(vocabulary), "bos_token_id": start,
        "eos_token_id": end, "pad_token_id": end,
    }  # fmt: skip
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as parts:
        CLIPModel(CLIPConfig(text_config=text)).save_pretrained(parts)
        tokenizer = CLIPTokenizerFast(vocab=vocabulary, merges=[], model_max_length=77)
        CLIPProcessor(CLIPImageProcessorPil(), tokenizer).save_pretrained(parts)
        SentenceTransformer(modules=[Transformer(parts)], device="cpu").save(str(folder))
    return folder
