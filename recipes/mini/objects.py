"""The objects of a batch, ready to be drawn."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Objects:
    """Objects of a batch, in drawing order within an image. All tensors have length object."""

    image: Tensor  # image each belongs to
    slot: Tensor  # drawing order within its image, 0 first
    written: Tensor  # drawn from a skeleton (True) or from a sprite
    drawing: Tensor  # index into strokes.CHARACTERS or into the atlas
    center: Tensor  # (object, 2) in [-1, 1]
    radius: Tensor  # half of the longer side; 1 = half the image
    bold: Tensor  # stroke radius (written) or growth of the outline (sprite), in units of `radius`
    aspect: Tensor  # sprite: width factor
    shear: Tensor
    rotation: Tensor  # radians
    wave: Tensor  # amplitude of the smooth distortion, units of radius
    texture: Tensor  # index into VALUES["texture"]
    color: Tensor  # index into COLORS
