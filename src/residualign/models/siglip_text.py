"""The text tower of a SigLIP: lower case, padded to its full length, no attention mask, as it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["SigLipText"]


class SigLipText:
    """A transformers SigLIP's tokenizer and text half. Texts longer than the tower's positions are cut.

    The embedding is read at the last position, so padding is part of the text: to the right, up to all positions.
    SigLIP 2's tokenizer keeps capitals in older files, although the model was trained without: they are lowered here.
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
        """The texts in which the tokenizer meets something outside its vocabulary."""
        unknown_id = self._tokenizer.unk_token_id
        if unknown_id is None:
            return []
        lowered = ((text, text.lower()) for text in texts)
        return [text for text, low in lowered if unknown_id in self._tokenizer(low)["input_ids"]]
