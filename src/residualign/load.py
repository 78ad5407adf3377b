"""`load_model`: find the checkpoint, pick the family, and check on a probe batch that its units add up."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from residualign.decomposition.contributions import Contributions
from residualign.decomposition.diagnose import failing_part
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import Trace
from residualign.errors import BadInputError
from residualign.models.finite import not_finite
from residualign.models.hub import fetch
from residualign.models.names import ModelSource, resolve, without_pooling
from residualign.models.proof import fitting_pixels, picture_pixels
from residualign.models.tower import Tower, mean_of_patches, refuse_non_finite
from residualign.models.trust import no_remote_code, refuse_unnamed_model, remember_model
from residualign.models.vision_model import VisionModel

__all__ = ["TOLERANCES", "check_sum", "load_model", "load_named_by_file", "prove"]

# Largest residual_error of a model that is accepted, by the dtype its tower runs in. In the half types the tower rounds
# its own output and every unit's value to 11 (float16) or 8 (bfloat16) bits; contributions are summed in float32.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in TOLERANCES}

_N_PROBE = 4


def load_model(name: str | os.PathLike[str], *, device: str = "cpu", dtype: str = "float32") -> VisionModel:
    """Load a frozen encoder, and check that its residual units sum to its output.

    Parameters
    ----------
    name : str or path
        - `"mini"`, the model that ships with the package (a directory of that name is `"./mini"`);
        - a directory in transformers format, which wins over all names below;
        - a registered name, such as `"clip-b"`: see `residualign models`;
        - `"org/name"` or `"hf:org/name"` on the Hugging Face hub, with `@revision` for a branch, tag or commit;
        - `"open_clip:NAME/tag"`, `"open_clip:local-dir:PATH"` or `"open_clip:hf-hub:org/name"`;
        - `"timm:NAME"`, `"timm:local-dir:PATH"` or `"timm:hf-hub:org/name"`.

        `#mean` after the name of a ViT or DINO takes the mean of its patches instead of the class token.
    device : str
        Where the model runs: `"cpu"`, `"cuda"`, `"cuda:1"`.
    dtype : {"float32", "float64", "float16", "bfloat16"}
        Floating-point type the encoder runs in. Contributions are in float32 for the half types.

    Returns
    -------
    VisionModel
        In evaluation mode, without gradients.

    Raises
    ------
    BadInputError
        For a model that does not exist, cannot be reached or needs a library that is not installed; for a model
        family that is not supported; for NaN or infinity among the weights; for a missing tokenizer, or one with ids
        that the text tower has no rows for; where the preprocessing does not make what the tower takes; and where the
        units do not sum to the output (relative error above 1e-10 in float64, 1e-4 in float32).

    Notes
    -----
    Models that are not on disk are downloaded once, into the cache of their library. No code that comes with a model is
    run. The name is noted for this user, so that an adapter or a store that names the model may load it. The check
    costs a forward pass of four images of noise and of two pictures of different shape, which pass through the
    checkpoint's own preprocessing. docs/models.md lists the supported families.

    Examples
    --------
    >>> import residualign as ra
    >>> ra.load_model("mini")
    VisionModel('mini', Units(n_layers=6, n_heads=6), dim=128, float32, text=True)
    """
    model = _loaded(os.fspath(name), device, dtype)
    remember_model(model.name)
    return model


def load_named_by_file(name: str, named_by: str, *, device: str = "cpu", dtype: str = "float32") -> VisionModel:
    """`load_model` for a name that stands in a file, which may be a stranger's.

    named_by: says which file. `BadInputError` for a model that the user has not named before, see `models.trust`.
    """
    refuse_unnamed_model(name, named_by)
    return _loaded(name, device, dtype)


def _loaded(name: str, device: str, dtype: str) -> VisionModel:
    if dtype not in _DTYPES:
        raise BadInputError(f"dtype is one of {', '.join(_DTYPES)}; got {dtype!r}")
    plain, takes_mean = without_pooling(name)
    source = resolve(plain)
    wanted_device = _device(device)
    try:
        with no_remote_code():
            model = _load(source)
        if takes_mean:
            model.tower = mean_of_patches(model.tower, source.name)
        refuse_non_finite(model.tower, source.name)
        model.to(wanted_device, _DTYPES[dtype])
        model.residual_error = prove(model, source.name)
    except BadInputError as error:
        if source.name == plain:
            raise
        raise BadInputError(f"{name!r} stands for {source.name!r}: {error}") from error
    # stores and adapters record what was typed, and load the model by it again
    model.name = name
    return model


def prove(model: VisionModel, name: str) -> float:
    """The residual error on a seeded probe batch of the shape that the model's own preprocessing makes.

    `BadInputError` where its preprocessing and its tower do not fit together, or the units do not sum to the output:
    of the probe batch, or of two pictures of different shape.
    """
    pixels = picture_pixels(model.preprocess, name)
    channels, height, width = pixels.shape[1:]
    model.tower = replace(model.tower, pixels_shape=(channels, height, width))
    pixels = pixels.to(device=model.device, dtype=model.dtype)
    with fitting_pixels(pixels, name):
        check_sum(model.tower, name, pixels)
    return check_sum(model.tower, name)


def check_sum(tower: Tower, name: str, pixels: Tensor | None = None) -> float:
    """The residual error on these pixels, or a seeded probe batch; `BadInputError` above the tolerance of the dtype."""
    own_pictures = pixels is not None
    pixels = tower.probe(_N_PROBE) if pixels is None else pixels
    # not `trace_coordinates`: where the numbers are not finite, the part that fails is named
    with torch.no_grad(), Trace(tower) as trace:
        coordinates = trace.coordinates(tower.forward(pixels))
    if own_pictures and (sentence := not_finite(coordinates.output, pixels, ["a test picture"] * len(pixels))):
        # the dtype is too short for some pictures; each that is read is checked by itself
        warnings.warn(f"model {name!r}: {sentence}", stacklevel=2)
        return math.nan
    error = Contributions.of(coordinates, unit_maps(tower)).residual_error
    tolerance = TOLERANCES[tower.dtype]
    if not error <= tolerance:
        part = failing_part(tower, pixels, tolerance)
        raise BadInputError(
            f"model {name!r}: the units do not sum to the model's output: relative error {error:.1e}, expected at most "
            f"{tolerance:.0e} in {str(tower.dtype).removeprefix('torch.')}; what fails is {part}"
        )
    return error


def _device(device: str) -> torch.device:
    try:
        wanted = torch.device(device)
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise BadInputError(f"device {device!r} is not available on this machine; cpu always is") from error
    return wanted


def _load(source: ModelSource) -> VisionModel:
    # a family's library is imported only when one of its models is loaded
    if source.kind == "open_clip":
        from residualign.models import openclip

        return openclip.load(source.name)
    if source.kind == "timm":
        from residualign.models import timm_vit

        return timm_vit.load(source.name)
    from residualign.models import families

    if source.kind == "directory":
        return families.load(source.name, Path(source.place))
    folder = fetch(source.name, source.place, source.revision)
    model = families.load(source.name, folder)
    model.source, model.revision = source.place, folder.name
    return model
