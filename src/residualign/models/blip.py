"""transformers BLIP for image-text retrieval: the contrastive half (ITC) of `BlipForImageTextRetrieval`.

The cross-attention and its matching head (ITM) read an image and a text together and are not part of an embedding.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from residualign.errors import BadInputError
from residualign.models.text import TransformersText
from residualign.models.tower import Block, Tower
from residualign.models.weights import neutral_tensors

__all__ = ["BlipText", "refuse_other_heads", "tower"]

_WHY_REFUSED = {
    "BlipForConditionalGeneration": "a captioning model, which has no projection to a space shared with text",
    "BlipForQuestionAnswering": "a question answering model, which has no projection to a space shared with text",
    "BlipModel": "which norms its class token twice before the projection",
}

_NAMES = {
    "embedding.class": "embeddings.class_embedding",
    "embedding.patch": "embeddings.patch_embedding",
    "embedding.position": "embeddings.position_embedding",
    "norm_final": "post_layernorm",
}
_BLOCK_NAMES = {
    "norm_attention": "layer_norm1",
    "[query,key,value]": "self_attn.qkv",
    "out": "self_attn.projection",
    "norm_mlp": "layer_norm2",
    "mlp.in": "mlp.fc1",
    "mlp.out": "mlp.fc2",
}


def refuse_other_heads(name: str, architectures: tuple[str, ...]) -> None:
    """Raise `BadInputError` for a BLIP that was saved for a different task; only its config shows that."""
    for architecture in architectures:
        if architecture != "BlipForImageTextRetrieval":
            why = _WHY_REFUSED.get(architecture, "which is not supported")
            raise BadInputError(
                f"model {name!r} is a {architecture}, {why}; expected a BlipForImageTextRetrieval, "
                "for example Salesforce/blip-itm-base-coco"
            )


def tower(model: Any) -> Tower:
    """Where the parts of a `BlipForImageTextRetrieval` are; the projection has a bias.

    Positions are interpolated for images of a different size, as the published code does when it loads a checkpoint.
    """
    vision = model.vision_model
    config = vision.config

    return Tower(
        module=vision,
        forward=partial(_embedding, model),
        blocks=tuple(Block(layer.self_attn.projection, layer.mlp) for layer in vision.encoder.layers),
        entry=vision.encoder.layers[0],
        n_heads=config.num_attention_heads,
        final_norm=vision.post_layernorm,
        projection=model.vision_proj,
        image_size=config.image_size if isinstance(config.image_size, int) else config.image_size[0],
        tensors=neutral_tensors(vision, _NAMES, vision.encoder.layers, _BLOCK_NAMES)
        | neutral_tensors(model, {"projection": "vision_proj"}),
        constants={"activation": config.hidden_act, "eps": repr(config.layer_norm_eps)},
    )


def _embedding(model: Any, pixels: Tensor) -> Tensor:
    vision = model.vision_model
    # the library's own vision forward norms the class token once more, for an output that is not used here
    stream = vision.encoder(vision.embeddings(pixels, interpolate_pos_encoding=True)).last_hidden_state
    embedding: Tensor = model.vision_proj(vision.post_layernorm(stream)[:, 0])
    return embedding


class BlipText(TransformersText):
    """BLIP's tokenizer and text tower: the projected class token of the text encoder, without an image."""

    @property
    def logit_scale(self) -> float:
        """1 / 0.07, the value that training began with: retrieval checkpoints do not hold the trained temperature.

        Source: arXiv 2201.12086's published pretraining code (`temp`, initialized to 0.07).
        """
        return 1 / 0.07

    def _features(self, tokens: Any) -> Tensor:
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        hidden = self._model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        features: Tensor = self._model.text_proj(hidden[:, 0])
        return features
