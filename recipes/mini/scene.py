"""What is in each image of a batch: objects with their places and colors, and the ground truth rows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.mini.identity import draw_identity
from recipes.mini.kinds import MAX_OBJECTS, MIXES
from recipes.mini.looks import draw_colors, draw_pose
from recipes.mini.objects import Objects
from recipes.mini.places import draw_places
from recipes.mini.rng import Rng
from recipes.mini.truth import image_views, object_rows


@dataclass
class Scene:
    """A batch to be painted. `kind`: (image,) indices into KIND; `views` is the ground truth, (image, 2, attribute)."""

    kind: Tensor
    views: Tensor
    objects: Objects


def compose(rng: Rng, n: int, mix: str = "general") -> Scene:
    """Draw the content of n images; `mix` names one of `MIXES`."""
    kind = rng.choice(n, list(MIXES[mix].values()))
    number, center, radius = draw_places(rng, kind)
    image, slot = (torch.arange(MAX_OBJECTS)[None] < number[:, None]).nonzero(as_tuple=True)
    identity = draw_identity(rng, kind, image, slot, mix)
    bold, aspect, shear, rotation, wave = draw_pose(rng, identity)
    background, color, texture = draw_colors(rng, identity, kind, image, slot, radius[image, slot])
    objects = Objects(
        image=image, slot=slot, written=identity.written, drawing=identity.drawing, center=center[image, slot],
        radius=radius[image, slot], bold=bold, aspect=aspect, shear=shear, rotation=rotation, wave=wave,
        texture=texture, color=color,
    )  # fmt: skip
    truth = object_rows(kind, background, identity, objects)
    return Scene(kind, image_views(kind, truth, objects), objects)
