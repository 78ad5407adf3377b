"""The text tower of a CLIP: strings in, text embeddings out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["TextTower"]


class TextTower:
    """A transformers CLIP's tokenizer and text half. Texts longer than the tower's positions are cut."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._max_length = int(model.config.text_config.max_position_embeddings)

    @property
    def logit_scale(self) -> float:
        """The factor, already exponentiated, that turns cosines into logits."""
        return float(self._model.logit_scale.detach().double().exp())

    @property
    def logit_bias(self) -> None:
        """None: trained with a softmax."""
        return None

    def encode(self, texts: Sequence[str], batch_size: int = 256) -> Float[Tensor, "text dim"]:
        """Text embeddings, not normalised. A text's embedding does not depend on its neighbours in the batch."""
        device = self._model.logit_scale.device
        batches = []
        for start in range(0, len(texts), batch_size):
            tokens = self._tokenizer(
                list(texts[start : start + batch_size]),
                padding=True,
                truncation=True,
                max_length=self._max_length,
                return_tensors="pt",
            ).to(device)
            with torch.no_grad():
                batches.append(
                    self._model.get_text_features(
                        input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                    ).pooler_output
                )
        return torch.cat(batches)

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """The texts in which the tokenizer meets something outside its vocabulary."""
        unknown_id = self._tokenizer.unk_token_id
        if unknown_id is None:
            return []
        return [text for text in texts if unknown_id in self._tokenizer(text, add_special_tokens=False)["input_ids"]]
