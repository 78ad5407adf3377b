"""`open_clip:NAME/tag`, `open_clip:local-dir:PATH` and `open_clip:hf-hub:ORG/NAME`: both towers and preprocessing."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from residualign.errors import BadInputError
from residualign.models import openclip, timm_vit
from residualign.models.hub import cache_alone_without_network, not_loaded
from residualign.models.preprocess import TransformPreprocess
from residualign.models.tower import Tower
from residualign.models.vision_model import VisionModel

__all__ = ["load", "timm_tower"]

_SCHEMAS = ("local-dir:", "hf-hub:")


def load(name: str) -> VisionModel:
    """The model behind a name with prefix `open_clip:`; float32, in evaluation mode, frozen.

    The QuickGELU setting is that of the tag, with a warning where it differs from that of the architecture's name;
    `BadInputError` where the two cannot be reconciled, and for a tag that open_clip does not know.
    """
    try:
        import open_clip
    except ImportError as error:
        raise BadInputError(f"model {name!r} needs open_clip: pip install 'residualign[open_clip]'") from error
    spec = name.removeprefix("open_clip:")
    identifier, tag = (spec, None) if spec.startswith(_SCHEMAS) else _parts(open_clip, name, spec)
    quick = tag is not None and _wants_quick_gelu(open_clip, name, identifier, tag)
    network = contextlib.nullcontext() if spec.startswith("local-dir:") else cache_alone_without_network()
    try:
        with _quiet(), network:
            model = open_clip.create_model(identifier, tag, force_quick_gelu=quick, require_pretrained=True)
            tokenizer = open_clip.get_tokenizer(identifier)
    except Exception as error:
        # the library raises whatever its config, its downloads and torch raise
        raise not_loaded(name, "by open_clip", error) from error
    model = model.float().eval().requires_grad_(False)
    describe = timm_tower if type(model.visual).__name__ == "TimmModel" else openclip.tower
    preprocess, text = _preprocess(model.visual.preprocess_cfg), OpenClipText(model, tokenizer)
    return VisionModel(name, spec, model, describe(model, name), preprocess, text)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's lines on the root logger; what they say is raised as an error here."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _parts(open_clip: Any, name: str, spec: str) -> tuple[str, str]:
    identifier, _, tag = spec.partition("/")
    if identifier not in open_clip.list_models():
        raise BadInputError(
            f"model {name!r}: open_clip has no architecture {identifier!r}; see open_clip.list_models()"
        )
    known = open_clip.list_pretrained_tags_by_model(identifier)
    if tag not in known:
        # a file of weights does not tell its activation, and the wrong one gives wrong embeddings without an error
        raise BadInputError(f"model {name!r}: {identifier} has the tags {', '.join(known)}; got {tag!r}")
    return identifier, tag


def _wants_quick_gelu(open_clip: Any, name: str, identifier: str, tag: str) -> bool:
    trained = bool(open_clip.get_pretrained_cfg(identifier, tag).get("quick_gelu", False))
    named = bool(open_clip.get_model_config(identifier).get("quick_gelu", False))
    if named and not trained:
        raise BadInputError(
            f"model {name!r}: {tag} was trained without QuickGELU, which {identifier} has; "
            f"use open_clip:{identifier.removesuffix('-quickgelu')}/{tag}"
        )
    if trained and not named:
        warnings.warn(
            f"model {name!r}: {tag} was trained with QuickGELU, so QuickGELU is used", UserWarning, stacklevel=4
        )
    return trained


def _preprocess(settings: dict[str, Any]) -> TransformPreprocess:
    """The checkpoint's evaluation transform."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(**settings)
    return TransformPreprocess(image_transform_v2(config, is_train=False), asdict(config))


def timm_tower(model: Any, name: str) -> Tower:
    """Where the parts of `model.visual`, an open_clip `TimmModel`, are; `BadInputError` for unsupported ones."""
    visual = model.visual
    inner = timm_vit.tower(visual.trunk, name)
    projection = _timm_projection(visual, name)

    def forward(pixels: Tensor) -> Tensor:
        output: Tensor = visual(pixels)
        return output

    tensors = dict(inner.tensors)
    if projection is not None:
        tensors |= {f"projection.{part}": value for part, value in projection.named_parameters()}
    return replace(inner, module=visual, forward=forward, projection=projection, tensors=tensors, tokens=None)


def _timm_projection(visual: Any, name: str) -> nn.Linear | None:
    """The trunk's class head, or open_clip's own layer after a trunk without one; None if there is neither."""
    steps = {part: module for part, module in visual.head.named_children() if not isinstance(module, nn.Dropout)}
    trunk_head = visual.trunk.head
    if not isinstance(trunk_head, nn.Identity):
        steps["the trunk's class head"] = trunk_head
    for part, module in steps.items():
        if not isinstance(module, nn.Linear):
            raise BadInputError(f"model {name!r} has {part!r} as its projection, which is not one linear map")
    if len(steps) > 1:
        raise BadInputError(f"model {name!r} has {len(steps)} projections in a row; expected at most one")
    return next(iter(steps.values()), None)


class OpenClipText:
    """open_clip's tokenizer and text tower. Texts longer than its context are cut."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer

    @property
    def logit_scale(self) -> float:
        """The factor, already exponentiated, that turns cosines into logits."""
        return float(self._model.logit_scale.detach().double().exp())

    @property
    def logit_bias(self) -> float | None:
        """What a model trained with a sigmoid loss adds to its logits; None for other models."""
        bias = getattr(self._model, "logit_bias", None)
        return None if bias is None else float(bias.detach().double())

    def encode(self, texts: Sequence[str], batch_size: int = 256) -> Float[Tensor, "text dim"]:
        """Text embeddings, not normalised."""
        batches = []
        for start in range(0, len(texts), batch_size):
            tokens = self._tokenizer(list(texts[start : start + batch_size])).to(self._model.logit_scale.device)
            with torch.no_grad():
                batches.append(self._model.encode_text(tokens))
        return torch.cat(batches)

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """An empty list: byte pairs spell every text."""
        return []
