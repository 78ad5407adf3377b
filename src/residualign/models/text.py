"""Text towers of transformers models: strings in, text embeddings out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["SigLipText", "TextTower", "encode_texts", "unknown_texts"]


class TextTower:
    """Tokenizer and text tower of a transformers CLIP. Texts longer than `max_length` tokens are cut.

    max_length: number of positions of the tower; by default what its config says.
    """

    def __init__(self, model: Any, tokenizer: Any, max_length: int | None = None) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._max_length = max_length or int(model.config.text_config.max_position_embeddings)

    @property
    def logit_scale(self) -> float:
        """The factor, already exponentiated, that turns cosines into logits."""
        return float(self._model.logit_scale.detach().double().exp())

    @property
    def logit_bias(self) -> None:
        """None: trained with a softmax."""
        return None

    def encode(self, texts: Sequence[str], batch_size: int = 256) -> Float[Tensor, "text dim"]:
        """Text embeddings, not normalised. They do not depend on the other texts of a batch."""
        device = self._model.logit_scale.device
        return encode_texts(self._tokenizer, self._features, texts, self._max_length, device, batch_size)

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """The texts with a token outside the tokenizer's vocabulary."""
        return unknown_texts(self._tokenizer, texts)

    def _features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        features = self._model.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
        pooled: Tensor = features.pooler_output
        return pooled


def encode_texts(
    tokenizer: Any,
    features: Callable[[Tensor, Tensor], Tensor],
    texts: Sequence[str],
    max_length: int,
    device: torch.device,
    batch_size: int,
) -> Float[Tensor, "text dim"]:
    """`features` of token ids and attention mask, both (text, token); `batch_size` texts at a time, no gradients."""
    batches = []
    for start in range(0, len(texts), batch_size):
        tokens = tokenizer(
            list(texts[start : start + batch_size]),
            padding=True,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        ).to(device)
        with torch.no_grad():
            batches.append(features(tokens["input_ids"], tokens["attention_mask"]))
    return torch.cat(batches)


def unknown_texts(tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """The texts with a token outside a transformers tokenizer's vocabulary."""
    unknown_id = tokenizer.unk_token_id
    if unknown_id is None:
        return []
    return [text for text in texts if unknown_id in tokenizer(text, add_special_tokens=False)["input_ids"]]


class SigLipText:
    """Tokenizer and text tower of a transformers SigLIP. Texts longer than its context are cut.

    The embedding is read at the last position, so every text is padded on the right to the full length. SigLIP 2 was
    trained on lower case, but older files of its tokenizer keep capitals: texts are lowered here.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._length = int(model.config.text_config.max_position_embeddings)

    @property
    def logit_scale(self) -> float:
        """The factor, already exponentiated, that turns cosines into logits."""
        return float(self._model.logit_scale.detach().double().exp())

    @property
    def logit_bias(self) -> float:
        """What is added to a logit before the sigmoid."""
        return float(self._model.logit_bias.detach().double())

    def encode(self, texts: Sequence[str], batch_size: int = 256) -> Float[Tensor, "text dim"]:
        """Text embeddings, not normalised."""
        device = self._model.logit_scale.device
        batches = []
        for start in range(0, len(texts), batch_size):
            tokens = self._tokenizer(
                [text.lower() for text in texts[start : start + batch_size]],
                padding="max_length",
                padding_side="right",
                truncation=True,
                max_length=self._length,
                return_tensors="pt",
            )["input_ids"].to(device)
            with torch.no_grad():
                batches.append(self._model.get_text_features(input_ids=tokens).pooler_output)
        return torch.cat(batches)

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """The texts with a token outside the tokenizer's vocabulary."""
        unknown_id = self._tokenizer.unk_token_id
        if unknown_id is None:
            return []
        lowered = ((text, text.lower()) for text in texts)
        return [text for text, low in lowered if unknown_id in self._tokenizer(low)["input_ids"]]
