"""CLIP, SigLIP and SigLIP 2 of transformers, as a module of sentence-transformers.

sentence-transformers opens such folders itself, but pads texts to the longest one, where SigLIP was
trained on texts padded to its limit. This module computes what `get_image_features` and
`get_text_features` do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.input_module import InputModule
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    CLIPModel,
    Siglip2Model,
    SiglipModel,
)

from app.encoders.preprocessing import Preprocessor

_CLASSES = {"clip": CLIPModel, "siglip": SiglipModel, "siglip2": Siglip2Model}
_SIGLIP_TOKENS = 64
"""Length that the texts of SigLIP were padded to in its training, unless its settings say less."""


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """How texts become the input of a text network.

    `tokenizer` is one of transformers, `length` the maximum number of tokens, `clean` is applied
    to each text before. With `padded` texts are padded to the length, and padding is not masked.
    """

    tokenizer: Any
    length: int
    padded: bool
    clean: Callable[[str], str]

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids (n, tokens) and, unless `padded`, their mask."""
        tokens = self.tokenizer(
            [self.clean(text) for text in texts],
            padding="max_length" if self.padded else True,
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        names = ("input_ids",) if self.padded else ("input_ids", "attention_mask")
        return {name: tokens[name] for name in names}


class DualEncoderModule(InputModule):  # type: ignore[misc]
    """A network with a picture and a text half, whose vectors lie in one space.

    `processor` prepares pictures; with a `preprocessor` our own code does, and `processor` only
    holds its settings.
    """

    def __init__(
        self,
        network: Any,
        processor: Any,
        texts: TextTokenizer,
        preprocessor: Preprocessor | None = None,
    ) -> None:
        super().__init__()
        self.model = network
        self.processor = processor
        self.tokenizer = texts.tokenizer
        self.preprocessor = preprocessor
        self._texts = texts

    @property
    def modalities(self) -> list[str]:
        """Pictures and texts."""
        return ["text", "image"]

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> Any:
        """Pictures, or texts as {"text": …}, as the network's input. There are no prompts."""
        if isinstance(inputs[0], Mapping):
            return {**self._texts([each["text"] for each in inputs]), "modality": "text"}
        if self.preprocessor is not None:
            prepared = [self.preprocessor.prepare(picture) for picture in inputs]
            pixels = {"pixel_values": torch.from_numpy(self.preprocessor.normalised(prepared))}
        else:
            pixels = dict(self.processor(images=list(inputs), return_tensors="pt"))
        return {**pixels, "modality": "image"}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """The features with `sentence_embedding` (n, dim), not of unit length."""
        inputs = {name: value for name, value in features.items() if isinstance(value, Tensor)}
        encode = self.model.get_image_features
        if features["modality"] == "text":
            encode = self.model.get_text_features
        return {**features, "sentence_embedding": encode(**inputs).pooler_output}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Save the network and its tokenizer."""
        self.model.save_pretrained(output_path)
        self.tokenizer.save_pretrained(output_path)


def open_hugging_face(folder: Path) -> SentenceTransformer:
    """The model in a folder of transformers, from safetensors only and without its code.

    Raises one of LOADING_ERRORS.
    """
    here = {"local_files_only": True, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(folder, **here)
    network, loaded = _CLASSES[config.model_type].from_pretrained(
        folder, config=config, use_safetensors=True, dtype=torch.float32,
        output_loading_info=True, **here,
    )  # fmt: skip
    if loaded["missing_keys"]:
        raise LookupError(f"weights are missing, such as {min(loaded['missing_keys'])}")
    processor = AutoImageProcessor.from_pretrained(folder, **here)
    tokenizer = AutoTokenizer.from_pretrained(folder, **here)
    texts = _texts(config, tokenizer)
    module = DualEncoderModule(network.eval(), processor, texts)
    return SentenceTransformer(modules=[module], device="cpu")


def _texts(config: Any, tokenizer: Any) -> TextTokenizer:
    positions = int(config.text_config.max_position_embeddings)
    if config.model_type == "clip":
        return TextTokenizer(tokenizer, positions, padded=False, clean=str)
    # SigLIP was trained on texts in lower case, which not all of its tokenizers do themselves.
    return TextTokenizer(tokenizer, min(positions, _SIGLIP_TOKENS), padded=True, clean=str.lower)
