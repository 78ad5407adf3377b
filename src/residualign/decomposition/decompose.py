"""From a model and images to contributions in one call."""

from __future__ import annotations

from residualign.decomposition.contributions import Contributions
from residualign.decomposition.coordinates import Coordinates
from residualign.decomposition.maps import MeanRule, unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.models.vision_model import Images, VisionModel

__all__ = ["decompose"]


def decompose(model: VisionModel, images: Images, *, batch_size: int = 32, rule: MeanRule = "shared") -> Contributions:
    """Write each image's embedding as an exact sum of residual units: the embedding, every MLP, every head.

    Parameters
    ----------
    model : VisionModel
        The encoder, from `load_model`.
    images : list of PIL images or paths, or Tensor of shape (image, 3, height, width)
        A tensor holds pixels that were already preprocessed by `model.preprocess`.
    batch_size : int
        Number of images per forward pass.
    rule : {"shared", "own"}
        Where the mean that the final LayerNorm subtracts goes: shared out equally over the units, as in the paper, or
        each unit loses its own mean. Both are exact; see `residualign.decomposition.maps`.

    Returns
    -------
    Contributions
        Of every unit to every image's embedding.

    Raises
    ------
    BadInputError
        For images that cannot be read, a single image instead of a list, or a tensor of another shape.

    Notes
    -----
    One plain forward pass. Memory of (2 x layer + 1) x width numbers per image; models that norm all tokens before
    they pool them hold those of all tokens of a batch, until its pass ends.

    References
    ----------
    arXiv 2411.00246, section 3; arXiv 2310.05916, section 3.1.

    Examples
    --------
    >>> import residualign as ra, torch
    >>> model = ra.load_model("mini")
    >>> c = ra.decompose(model, torch.zeros(2, 3, 32, 32))
    >>> c.values.shape == (2, len(c.units), model.dim), bool(c.residual_error < 1e-4)
    (True, True)
    """
    batches = []
    for start in range(0, max(len(images), 1), batch_size):
        batches.append(trace_coordinates(model.tower, model.pixels(images[start : start + batch_size]), rule))
    return Contributions.of(Coordinates.cat(batches), unit_maps(model.tower, rule))
