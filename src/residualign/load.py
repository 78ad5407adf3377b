"""load_model: find the checkpoint, pick the family, and prove on a probe batch that its units add up."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from residualign.decomposition.contributions import Contributions
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.errors import BadInputError
from residualign.models.tower import Tower, refuse_non_finite
from residualign.models.vision_model import VisionModel

__all__ = ["TOLERANCES", "check_sum", "load_model"]

# Largest residual_error with which a model is accepted, by the dtype its tower runs in. Half types: the tower rounds
# its own output and every unit's value to 11 (float16) or 8 (bfloat16) bits; contributions are summed in float32.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_N_PROBE = 4


def load_model(name: str | os.PathLike[str], *, device: str = "cpu", dtype: str = "float32") -> VisionModel:
    """Load a frozen encoder that can be taken apart, and check that its units sum to its output.

    name: `"mini"` (ships with the package; a folder of that name is `"./mini"`); a local directory in transformers
    format, which wins over a hub id of the same name; `"hf:org/name"` or a bare hub id; `"open_clip:NAME/tag"`,
    `"open_clip:local-dir:PATH"` or `"open_clip:hf-hub:org/name"`; `"timm:NAME"`, `"timm:local-dir:PATH"`.
    dtype: float64, float32, float16 or bfloat16.
    Supported: transformers CLIP (full, or the vision tower alone), Chinese-CLIP, AltCLIP, BLIP for image-text
    retrieval, ViT, DINOv2 with and without registers, DINOv3 ViT; open_clip's own and timm's class-token ViTs and EVAs.
    `BadInputError` for anything else, for NaN in the weights, for a tokenizer that is not there, and for a tower whose
    units do not add up (above 1e-10 in float64, 1e-4 in float32).
    """
    if dtype not in _DTYPES:
        raise BadInputError(f"dtype is one of {', '.join(_DTYPES)}; got {dtype!r}")
    name = os.fspath(name)
    source = _resolve(name)
    wanted_device = _device(device)
    model = _load(name, source)
    refuse_non_finite(model.tower, name)
    model.to(wanted_device, _DTYPES[dtype])
    model.residual_error = check_sum(model.tower, name)
    return model


def check_sum(tower: Tower, name: str) -> float:
    """The residual error on a seeded probe batch; `BadInputError` above the tolerance of the tower's dtype."""
    coordinates = trace_coordinates(tower, tower.probe(_N_PROBE))
    error = Contributions.of(coordinates, unit_maps(tower)).residual_error
    tolerance = TOLERANCES[tower.dtype]
    if not error <= tolerance:
        raise BadInputError(
            f"model {name!r}: the units do not sum to the model's output: relative error {error:.1e}, "
            f"expected at most {tolerance:.0e} in {str(tower.dtype).removeprefix('torch.')}"
        )
    return error


def _resolve(name: str) -> str:
    """The local directory or hub id behind a model name."""
    if name == "mini":
        # whatever lies in the current directory: the demo and a saved adapter must find the same model everywhere
        return str(files("residualign") / "models" / "mini")
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise BadInputError(f"model directory {name!r} has no config.json; expected a model in transformers format")
        return name
    for prefix in ("open_clip:", "timm:"):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    if Path(name).exists():
        raise BadInputError(f"model {name!r} is a file; expected a directory in transformers format")
    hub_id = name.removeprefix("hf:")
    if name.startswith((".", "/", "~")) or hub_id.count("/") > 1 or not hub_id.strip("/"):
        raise BadInputError(f"model {name!r}: no such directory")
    return hub_id


def _device(device: str) -> torch.device:
    try:
        wanted = torch.device(device)
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise BadInputError(f"device {device!r} is not to be had here; expected e.g. cpu or cuda") from error
    return wanted


def _load(name: str, source: str) -> VisionModel:
    # families import their library only when one is used
    if name.startswith("open_clip:"):
        from residualign.models import openclip_load

        return openclip_load.load(name)
    if name.startswith("timm:"):
        from residualign.models import timm_load

        return timm_load.load(name)
    config = _config(name, source)
    kind, architectures = config.get("model_type"), tuple(config.get("architectures") or ())
    from residualign.models import families

    try:
        loader = families.LOADERS[str(kind)]
    except KeyError:
        raise BadInputError(
            f"model {name!r} is of type {kind!r}; supported are {', '.join(families.LOADERS)} in transformers format"
        ) from None
    return loader(name, source, architectures)


def _config(name: str, source: str) -> dict[str, Any]:
    """config.json of a local directory or hub id. The hub's errors are many lines; ours is one."""
    if Path(source).is_dir():
        path = Path(source) / "config.json"
    else:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(source, "config.json"))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
            raise BadInputError(
                f"model {name!r} is neither 'mini', nor a local directory, nor a hub model that could be reached or "
                f"found in the local cache ({type(error).__name__})"
            ) from error
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"model {name!r}: config.json is not readable as JSON") from error
    return config
