"""The classifier that goes with a store: its class vectors from text, or the class means of its training images."""

from __future__ import annotations

import torch
from torch import Tensor

from residualign.classification.classifier import Classifier, choose_logit_scale, class_means, text_classifier
from residualign.errors import BadInputError
from residualign.store.protocols import StoreLike

__all__ = ["Labelled", "store_classifier"]

Labelled = tuple[Tensor, Tensor]
"""Embeddings (image, dim) and labels (image,)."""


def store_classifier(
    store: StoreLike, wanted: Classifier | str | None, train: Labelled, val: Labelled, dtype: torch.dtype
) -> Classifier:
    """The classifier asked for; class means are made from the training images, their scale chosen on validation.

    wanted: "text", "means" or a ready one; None takes text where the store has class vectors from text. dtype: of the
    class means. `BadInputError` for another name, and for text where the store has none.
    """
    if isinstance(wanted, Classifier):
        return wanted
    kind = wanted or ("means" if store.text_vectors is None else "text")
    if kind == "means":
        means = class_means(train[0].to(dtype), train[1], store.class_names)
        return choose_logit_scale(means, *val)
    if kind != "text":
        raise BadInputError(f"classifier is 'text' or 'means', got {wanted!r}")
    if store.text_vectors is None or store.logit_scale is None:
        raise BadInputError("the store has no class vectors from text (a model without text tower): use means")
    # stand-ins for a store need not know of sigmoid losses
    bias = getattr(store, "logit_bias", None)
    return text_classifier(store.text_vectors, store.class_names, store.logit_scale, bias)
