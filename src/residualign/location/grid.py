"""Which token is which patch of the image."""

from __future__ import annotations

from math import sqrt

from residualign.errors import BadInputError
from residualign.models.tower import Tower

__all__ = ["patch_grid"]


def patch_grid(tower: Tower, n_patches: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the patches of pixels of this size, row by row as every family orders its tokens.

    By the size of the patch convolution; where that does not say it, patches are taken to be square. `BadInputError`
    where no grid has so many patches.
    """
    weight = tower.tensors.get("embedding.patch.weight")
    if weight is not None and weight.ndim == 4:
        high, wide = weight.shape[-2:]
        # a convolution drops what is left over at the edge; some towers pad it instead
        for rows, columns in ((height // high, width // wide), (-(-height // high), -(-width // wide))):
            if rows * columns == n_patches:
                return rows, columns
    side = sqrt(height * width / n_patches) if n_patches else 0.0
    rows, columns = (round(height / side), round(width / side)) if side else (0, 0)
    if n_patches and rows * columns == n_patches:
        return rows, columns
    raise BadInputError(
        f"{n_patches} patches of an image of {height} x {width} pixels are no grid of square patches, so it is not "
        "known where each of them lies"
    )
