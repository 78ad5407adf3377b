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

    images: PIL images, paths, or preprocessed pixels (image, 3, height, width). rule: what becomes of the final
    LayerNorm's mean, see `residualign.decomposition.maps`. One plain forward pass; memory (2 x layer + 1) x width
    numbers an image. `BadInputError` for images that cannot be used. Source: arXiv 2411.00246, section 3; arXiv
    2310.05916, section 3.1.

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
