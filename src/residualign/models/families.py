"""Loaders of models in transformers format, by model type; the only place that lists families."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils import logging

from residualign.errors import BadInputError
from residualign.models import blip, clip, siglip, vit
from residualign.models.accounting import check_weights, refuse_adapter_beside
from residualign.models.hub import SAFETENSORS, not_loaded
from residualign.models.preprocess import Preprocess, load_preprocess
from residualign.models.proof import picture_pixels
from residualign.models.text import SigLipText, TextEncoder, TransformersText
from residualign.models.tower import Tower
from residualign.models.trust import check_sizes
from residualign.models.vision_model import VisionModel

__all__ = ["load"]


def load(name: str, folder: Path) -> VisionModel:
    """The model in a directory in transformers format, whose config.json names the family."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"model {name!r}: config.json is not readable as JSON") from error
    check_sizes(config, str(folder / "config.json"))
    kind = str(config.get("model_type"))
    if "model_type" not in config and "architecture" in config:
        raise BadInputError(f"model {name!r} is in timm's format: give timm:local-dir:{name}")
    if kind not in _LOADERS:
        raise BadInputError(
            f"model {name!r} is of type {config.get('model_type')!r}; "
            f"supported are {', '.join(_LOADERS)} in transformers format"
        )
    return _LOADERS[kind](_Checkpoint(name, str(folder), tuple(config.get("architectures") or ())))


@dataclass(frozen=True)
class _Checkpoint:
    """A directory in transformers format. architectures: the classes it was saved from."""

    name: str
    source: str
    architectures: tuple[str, ...]

    def module(self, kind: str, **options: Any) -> Any:
        """The model in float32, in evaluation mode, frozen; `BadInputError` as `check_weights` says.

        kind: transformers' class. Read from safetensors, or from `pytorch_model.bin` if the checkpoint has none: with
        torch's `weights_only`, so that no code in such a file is run.
        """
        refuse_adapter_beside(self.name, Path(self.source))
        older = not any((Path(self.source) / file).is_file() for file in SAFETENSORS)
        how = "from pytorch_model.bin" if older else "from its safetensors weights"
        with _quiet():
            try:
                model, report = getattr(transformers, kind).from_pretrained(
                    self.source,
                    dtype=torch.float32,
                    use_safetensors=not older,
                    weights_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                    # reported below, with the names that the library only logs
                    ignore_mismatched_sizes=True,
                    **options,
                )
            except Exception as error:
                # a config of other sizes than the library expects raises whatever it leads to
                raise not_loaded(self.name, how, error) from error
        module: nn.Module = model
        check_weights(self.name, module, report["missing_keys"], report["unexpected_keys"], report["mismatched_keys"])
        return module.eval().requires_grad_(False)

    def tokenizer(self) -> Any:
        """The tokenizer that comes with the weights."""
        sentence = (
            f"model {self.name!r} has no readable tokenizer; expected the tokenizer files that come with the checkpoint"
        )
        try:
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(self.source, trust_remote_code=False)
        except ImportError as error:
            raise BadInputError(
                f"model {self.name!r} has a SentencePiece tokenizer, which needs: pip install 'residualign[siglip]'"
            ) from error
        except (OSError, ValueError) as error:
            raise BadInputError(sentence) from error
        # without its files the library silently makes a tokenizer without any words
        if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
            raise BadInputError(sentence)
        return tokenizer

    @cached_property
    def preprocess(self) -> Preprocess:
        """The image processor that comes with the weights."""
        return load_preprocess(self.source, self.name)

    def assembled(self, module: Any, tower: Tower, text: TextEncoder | None = None) -> VisionModel:
        """The parts of the checkpoint as one model; `BadInputError` for a tokenizer with ids beyond the text tower."""
        if text is not None:
            text.refuse_foreign_ids(self.name)
        return VisionModel(self.name, self.source, module, tower, self.preprocess, text)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's progress bars and load reports; what matters in them is raised as an error here."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def _clip(kind: str, files: _Checkpoint) -> VisionModel:
    """CLIP's image tower with its own text tower, or in Chinese-CLIP with a BERT."""
    model = files.module(kind)
    return files.assembled(model, clip.tower(model), TransformersText(model, files.tokenizer()))


def _altclip(files: _Checkpoint) -> VisionModel:
    """CLIP's image tower with a RoBERTa as text tower, whose positions begin after that of the padding."""
    model = files.module("AltCLIPModel")
    config = model.config.text_config
    length = config.max_position_embeddings - config.pad_token_id - 1
    return files.assembled(model, clip.tower(model), TransformersText(model, files.tokenizer(), length))


def _clip_vision(files: _Checkpoint) -> VisionModel:
    projected = "CLIPVisionModel" not in files.architectures
    model = files.module("CLIPVisionModelWithProjection" if projected else "CLIPVisionModel")
    return files.assembled(model, clip.tower(model))


def _siglip(files: _Checkpoint) -> VisionModel:
    model = files.module("SiglipModel")
    text = SigLipText(model, files.tokenizer())
    return files.assembled(model, siglip.tower(model.vision_model, files.name), text)


def _siglip_vision(files: _Checkpoint) -> VisionModel:
    model = files.module("SiglipVisionModel")
    return files.assembled(model, siglip.tower(model, files.name))


def _blip(files: _Checkpoint) -> VisionModel:
    blip.refuse_other_heads(files.name, files.architectures)
    model = files.module("BlipForImageTextRetrieval")
    return files.assembled(model, blip.tower(model), blip.BlipText(model, files.tokenizer()))


def _vit(files: _Checkpoint) -> VisionModel:
    model = files.module("ViTModel", add_pooling_layer=False)
    return files.assembled(model, vit.tower(model))


def _dino(files: _Checkpoint) -> VisionModel:
    model = files.module("AutoModel")
    height = picture_pixels(files.preprocess, files.name).shape[-2]
    return files.assembled(model, vit.dino_tower(model, height))


_LOADERS: dict[str, Callable[[_Checkpoint], VisionModel]] = {
    "clip": partial(_clip, "CLIPModel"),
    "clip_vision_model": _clip_vision,
    "siglip": _siglip,
    "siglip_vision_model": _siglip_vision,
    "chinese_clip": partial(_clip, "ChineseCLIPModel"),
    "altclip": _altclip,
    "blip": _blip,
    "vit": _vit,
    "dinov2": _dino,
    "dinov2_with_registers": _dino,
    "dinov3_vit": _dino,
}
