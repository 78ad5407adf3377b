"""Loaders of models in transformers format, by model type; the only place that lists families."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from residualign.errors import BadInputError
from residualign.models.hub import SAFETENSORS, not_loaded
from residualign.models.preprocess import load_preprocess
from residualign.models.text import SigLipText, TextTower
from residualign.models.vision_model import VisionModel

__all__ = ["LOADERS"]


def _clip(name: str, source: str, architectures: tuple[str, ...]) -> VisionModel:
    from transformers import CLIPModel

    return _full_clip(_pretrained(CLIPModel, name, source), name, source)


def _chinese_clip(name: str, source: str, architectures: tuple[str, ...]) -> VisionModel:
    from transformers import ChineseCLIPModel

    # CLIP's image tower with a BERT as text tower
    return _full_clip(_pretrained(ChineseCLIPModel, name, source), name, source)


def _altclip(name: str, source: str, architectures: tuple[str, ...]) -> VisionModel:
    from transformers import AltCLIPModel

    # CLIP's image tower with a RoBERTa as text tower, whose positions begin after that of the padding
    model = _pretrained(AltCLIPModel, name, source)
    config = model.config.text_config
    return _full_clip(model, name, source, config.max_position_embeddings - config.pad_token_id - 1)


def _full_clip(model: Any, name: str, source: str, max_length: int | None = None) -> VisionModel:
    from residualign.models import clip

    text = TextTower(model, _tokenizer(source, name), max_length)
    return VisionModel(name, source, model, clip.tower(model), load_preprocess(source, name), text)


def _blip(name: str, source: str, architectures: tuple[str, ...]) -> VisionModel:
    from transformers import BlipForImageTextRetrieval

    from residualign.models import blip

    blip.refuse_other_heads(name, architectures)
    model = _pretrained(BlipForImageTextRetrieval, name, source)
    text = blip.BlipText(model, _tokenizer(source, name))
    return VisionModel(name, source, model, blip.tower(model), load_preprocess(source, name), text)


def _siglip(name: str, source: str, architectures: tuple[str, ...]) -> VisionModel:
    from transformers import SiglipModel

    from residualign.models import siglip

    model = _pretrained(SiglipModel, name, source)
    text = SigLipText(model, _tokenizer(source, name))
    return VisionModel(name, source, model, siglip.tower(model.vision_model, name), load_preprocess(source, name), text)


def _siglip_vision(name: str, source: str, architectures: tuple[str, ...]) -> VisionModel:
    from transformers import SiglipVisionModel

    from residualign.models import siglip

    model = _pretrained(SiglipVisionModel, name, source)
    return VisionModel(name, source, model, siglip.tower(model, name), load_preprocess(source, name))


def _clip_vision(name: str, source: str, architectures: tuple[str, ...]) -> VisionModel:
    from transformers import CLIPVisionModel, CLIPVisionModelWithProjection

    from residualign.models import clip

    kind = CLIPVisionModel if "CLIPVisionModel" in architectures else CLIPVisionModelWithProjection
    model = _pretrained(kind, name, source)
    return VisionModel(name, source, model, clip.tower(model), load_preprocess(source, name))


def _vit(name: str, source: str, architectures: tuple[str, ...]) -> VisionModel:
    from transformers import ViTModel

    from residualign.models import vit

    model = _pretrained(ViTModel, name, source, add_pooling_layer=False)
    return VisionModel(name, source, model, vit.tower(model), load_preprocess(source, name))


def _dino(name: str, source: str, architectures: tuple[str, ...]) -> VisionModel:
    from transformers import AutoModel

    from residualign.models import dino

    model, preprocess = _pretrained(AutoModel, name, source), load_preprocess(source, name)
    return VisionModel(name, source, model, dino.tower(model, preprocess.image_size()), preprocess)


def _tokenizer(source: str, name: str) -> Any:
    from transformers import AutoTokenizer

    sentence = f"model {name!r} has no readable tokenizer; expected the tokenizer files that come with the checkpoint"
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source)
    except ImportError as error:
        raise BadInputError(
            f"model {name!r} has a SentencePiece tokenizer, which needs: pip install 'residualign[siglip]'"
        ) from error
    except (OSError, ValueError) as error:
        raise BadInputError(sentence) from error
    # without its files the library makes a tokenizer without any words, and does not say so
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise BadInputError(sentence)
    return tokenizer


def _pretrained(kind: Any, name: str, source: str, **options: Any) -> Any:
    """The model in float32, in evaluation mode, frozen; `BadInputError` where the file lacks a weight.

    From safetensors, or from `pytorch_model.bin` where a checkpoint has none: with torch's `weights_only`, so that no
    code in such a file is run.
    """
    older = not any((Path(source) / file).is_file() for file in SAFETENSORS)
    how = "from pytorch_model.bin" if older else "from its safetensors weights"
    with _quiet():
        try:
            model, report = kind.from_pretrained(
                source,
                dtype=torch.float32,
                use_safetensors=not older,
                weights_only=True,
                output_loading_info=True,
                **options,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
            raise not_loaded(name, how, error) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise BadInputError(f"model {name!r}: the weights file lacks {missing[0]!r} ({len(missing)} tensors in all)")
    module: nn.Module = model
    return module.eval().requires_grad_(False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's progress bars and load reports; what matters in them is raised as an error here."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


LOADERS: dict[str, Callable[[str, str, tuple[str, ...]], VisionModel]] = {
    "clip": _clip,
    "clip_vision_model": _clip_vision,
    "siglip": _siglip,
    "siglip_vision_model": _siglip_vision,
    "chinese_clip": _chinese_clip,
    "altclip": _altclip,
    "blip": _blip,
    "vit": _vit,
    "dinov2": _dino,
    "dinov2_with_registers": _dino,
    "dinov3_vit": _dino,
}
