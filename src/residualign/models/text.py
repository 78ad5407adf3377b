"""Text towers: strings in, text embeddings out."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.errors import BadInputError

__all__ = ["SigLipText", "TextEncoder", "TransformersText"]


# placeholders that some vocabularies are padded with, and no text contains
_NEVER_WRITTEN = re.compile(r"<(extra_id_|unused|reserved)")


class TextEncoder(ABC):
    """A tokenizer and a text tower. Texts longer than the tower's context are truncated."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer

    @property
    def logit_scale(self) -> float:
        """The factor, already exponentiated, that turns cosines into logits."""
        return float(self._model.logit_scale.detach().double().exp())

    @property
    def logit_bias(self) -> float | None:
        """What a model trained with a sigmoid loss adds to its logits; None for a model trained with a softmax."""
        bias = getattr(self._model, "logit_bias", None)
        return None if bias is None else float(bias.detach().double())

    def encode(self, texts: Sequence[str], batch_size: int = 256) -> Float[Tensor, "text dim"]:
        """Text embeddings, not normalized. They do not depend on the other texts of a batch."""
        device = next(self._model.parameters()).device
        with torch.no_grad():
            starts = range(0, len(texts), batch_size)
            return torch.cat([self._embed(list(texts[start : start + batch_size]), device) for start in starts])

    def refuse_foreign_ids(self, name: str) -> None:
        """`BadInputError` naming the first token whose id the text tower has no row for. name: of the model."""
        rows = self._n_rows()
        foreign = sorted(
            (i, token) for token, i in self._vocabulary().items() if rows <= i and not _NEVER_WRITTEN.match(token)
        )
        if foreign:
            i, token = foreign[0]
            raise BadInputError(
                f"model {name!r}: its tokenizer has the token {token!r} with the id {i}, but its text tower has only "
                f"{rows:,} rows (ids 0 to {rows - 1}); give the tokenizer that the model was trained with, or weights "
                "with a row for each token"
            )

    @abstractmethod
    def _vocabulary(self) -> dict[str, int]:
        """Every token with its id; empty where ids beyond the tower cannot occur."""

    @abstractmethod
    def _n_rows(self) -> int:
        """Rows of the token embedding."""

    @abstractmethod
    def unknown(self, texts: Sequence[str]) -> list[str]:
        """The texts with a token outside the tokenizer's vocabulary."""

    @abstractmethod
    def _embed(self, texts: list[str], device: torch.device) -> Tensor:
        """Embeddings of one batch."""


class TransformersText(TextEncoder):
    """Tokenizer and text tower of a transformers CLIP.

    max_length: number of positions of the tower; by default what its config says.
    """

    _padding: ClassVar[dict[str, Any]] = {"padding": True}

    def __init__(self, model: Any, tokenizer: Any, max_length: int | None = None) -> None:
        super().__init__(model, tokenizer)
        self._max_length = max_length or int(model.config.text_config.max_position_embeddings)

    def _vocabulary(self) -> dict[str, int]:
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary

    def _n_rows(self) -> int:
        return int(self._model.config.text_config.vocab_size)

    def unknown(self, texts: Sequence[str]) -> list[str]:
        unknown_id = self._tokenizer.unk_token_id
        if unknown_id is None:
            return []
        tokens = (self._tokenizer(self._spelled(text), add_special_tokens=False)["input_ids"] for text in texts)
        return [text for text, ids in zip(texts, tokens, strict=True) if unknown_id in ids]

    def _embed(self, texts: list[str], device: torch.device) -> Tensor:
        tokens = self._tokenizer(
            [self._spelled(text) for text in texts],
            truncation=True,
            max_length=self._max_length,
            return_tensors="pt",
            **self._padding,
        )
        return self._features(tokens.to(device))

    def _spelled(self, text: str) -> str:
        """A text as the tokenizer receives it."""
        return text

    def _features(self, tokens: Any) -> Tensor:
        """Embeddings of token ids and attention mask, both (text, token)."""
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        features: Tensor = self._model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return features


class SigLipText(TransformersText):
    """Tokenizer and text tower of a transformers SigLIP.

    The embedding is read at the last position, so every text is padded on the right to the full length. SigLIP 2 was
    trained on lower case, but older versions of its tokenizer files keep capitals, so texts are lowercased here.
    """

    _padding: ClassVar[dict[str, Any]] = {"padding": "max_length", "padding_side": "right"}

    def _spelled(self, text: str) -> str:
        return text.lower()

    def _features(self, tokens: Any) -> Tensor:
        features: Tensor = self._model.get_text_features(input_ids=tokens["input_ids"]).pooler_output
        return features
