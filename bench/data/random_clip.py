"""A CLIP as large as ViT-B/32 with random weights: as fast as the trained one, never downloaded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

MARKS = ("<|startoftext|>", "<|endoftext|>")


def save(folder: Path) -> Path:
    """Write the model to `folder` as sentence-transformers saves it; its text tower is tiny."""
    letters = {chr(code): code - 33 for code in range(33, 127)}
    letters |= {f"{letter}</w>": number + 94 for letter, number in letters.items()}
    words = letters | {mark: 188 + number for number, mark in enumerate(MARKS)}
    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": len(words), "bos_token_id": words[MARKS[0]],
        "eos_token_id": words[MARKS[1]], "pad_token_id": words[MARKS[1]],
    }  # fmt: skip
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as parts:
        CLIPModel(CLIPConfig(text_config=text)).save_pretrained(parts)
        tokenizer = CLIPTokenizerFast(vocab=words, merges=[], model_max_length=77)
        CLIPProcessor(CLIPImageProcessorPil(), tokenizer).save_pretrained(parts)
        SentenceTransformer(modules=[Transformer(parts)], device="cpu").save(str(folder))
    return folder
