"""`timm:NAME`, `timm:local-dir:PATH` and `timm:hf-hub:ORG/NAME`: weights and preprocessing; timm has no text towers."""

from __future__ import annotations

import contextlib

from residualign.errors import BadInputError
from residualign.models import timm_vit
from residualign.models.hub import cache_alone_without_network, not_loaded
from residualign.models.preprocess import TransformPreprocess
from residualign.models.vision_model import VisionModel

__all__ = ["load"]


def load(name: str) -> VisionModel:
    """The model behind a name with prefix `timm:`, without its class head; float32, in evaluation mode, frozen."""
    try:
        import timm
    except ImportError as error:
        raise BadInputError(f"model {name!r} needs timm: pip install 'residualign[timm]'") from error
    spec = name.removeprefix("timm:")
    network = contextlib.nullcontext() if spec.startswith("local-dir:") else cache_alone_without_network()
    try:
        with network:
            model = timm.create_model(spec, pretrained=True, num_classes=0)
    except Exception as error:
        # the library raises whatever its config, its downloads and torch raise
        raise not_loaded(name, "by timm", error) from error
    model = model.float().eval().requires_grad_(False)
    settings = timm.data.resolve_model_data_config(model)
    preprocess = TransformPreprocess(timm.data.create_transform(**settings, is_training=False), settings)
    return VisionModel(name, spec, model, timm_vit.tower(model, name), preprocess)
