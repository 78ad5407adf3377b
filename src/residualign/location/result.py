"""What `locate` finds: the parts of heads' contributions by patch, and the pictures they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from residualign._messages import plural
from residualign._result import Result, Table

if TYPE_CHECKING:
    from residualign.figures._figure import Figure

__all__ = ["Location", "Target", "shown_pixels"]


@dataclass(frozen=True)
class Target:
    """What a map is of: a head, seen along a direction; component is the head's own, where that is the direction."""

    unit: str
    component: int | None = None

    @property
    def label(self) -> str:
        """`L5.H3`, or `L5.H3 · 2` of component 2."""
        return self.unit if self.component is None else f"{self.unit} · {self.component}"


@dataclass(frozen=True, repr=False, eq=False)
class Location(Result):
    """Parts of the contributions of some heads to the embeddings of some images, by the token they were read from.

    A map says which *token* a head read from, in the layer it is in. In deep layers a token holds more than its own
    patch: the blocks before have mixed them.

    Attributes
    ----------
    targets : tuple of Target
        The heads, and the component of each map that follows one.
    kind : {"direction", "norm"}
        "direction": every number is the length of a part along the target's direction, in units of the embedding (which
        is not normalized), and ``maps.sum((2, 3)) + prefix.sum(2) + constant == total``, the head's whole contribution
        along it. "norm": every number is the length of a part; lengths do not add up, the parts themselves do.
    maps : (image, target, row, column) tensor
        Parts of the patches, in rows and columns of the preprocessed picture.
    prefix : (image, target, prefix) tensor
        Parts of the tokens before the patches: class token, registers.
    constant : (image, target) tensor
        What belongs to no token: the head's share of output biases and of the final norm's mean and bias.
    total : (image, target) tensor
        The whole contribution.
    error : float
        Largest |sum of parts - traced value| over largest |traced value|, checked at run time.
    names : tuple of str
        The images: their paths, or their positions.
    pictures : (image, height, width, 3) tensor
        The images as the model saw them, 0 to 255.
    """

    targets: tuple[Target, ...]
    kind: Literal["direction", "norm"]
    maps: Float[Tensor, "image target row column"]
    prefix: Float[Tensor, "image target prefix"]
    constant: Float[Tensor, "image target"]
    total: Float[Tensor, "image target"]
    error: float
    names: tuple[str, ...]
    pictures: UInt8[Tensor, "image height width 3"]

    def __len__(self) -> int:
        return self.maps.shape[0]

    @staticmethod
    def cat(parts: Sequence[Location]) -> Location:
        """Concatenate images; at least one part, all with the same targets."""
        names = ("maps", "prefix", "constant", "total", "pictures")
        tensors: dict[str, Any] = {name: torch.cat([getattr(one, name) for one in parts]) for name in names}
        error = max(one.error for one in parts)
        return replace(parts[0], error=error, names=tuple(name for one in parts for name in one.names), **tensors)

    def _summary(self) -> str:
        rows, columns = self.maps.shape[2:]
        targets = ", ".join(target.label for target in self.targets[:4]) + (", ..." if len(self.targets) > 4 else "")
        what = "parts along a direction" if self.kind == "direction" else "lengths of parts"
        return f"{len(self)} x {plural(len(self.targets), 'map')} of {rows} x {columns} patches, {what}: {targets}"

    @property
    def tables(self) -> dict[str, Table]:
        """`where`, one row per image and target: the total, its terms, and the patch of the largest part."""
        return {"where": [self._row(i, k, target) for i in range(len(self)) for k, target in enumerate(self.targets)]}

    def _row(self, image: int, k: int, target: Target) -> dict[str, Any]:
        patches = self.maps[image, k]
        peak = int(patches.abs().argmax())
        return {
            "image": self.names[image],
            "target": target.label,
            "total": float(self.total[image, k]),
            "patches": float(patches.sum()),
            "prefix": float(self.prefix[image, k].sum()),
            "constant": float(self.constant[image, k]),
            "peak": float(patches.flatten()[peak]),
            "peak_row": peak // patches.shape[1],
            "peak_column": peak % patches.shape[1],
        }

    @property
    def figures(self) -> dict[str, Figure]:
        """`where`: heat maps over the images, eight images per sheet."""
        from residualign.figures.where import where_figures

        pictures = list((self.pictures.float() / 255).numpy())
        maps, signed = self.maps.double().cpu().numpy(), self.kind == "direction"
        title = f"{'parts along the direction' if signed else 'lengths of parts'}, in embedding units"
        return where_figures(self.tables["where"], title, pictures, maps, signed=signed)

    def to_json(self) -> dict[str, Any]:
        """Targets and, by image, all numbers, as JSON types."""
        return {
            "kind": self.kind,
            "error": self.error,
            "targets": [{"label": one.label, "unit": one.unit, "component": one.component} for one in self.targets],
            "grid": list(self.maps.shape[2:]),
            "images": [
                {
                    "image": self.names[i],
                    "total": self.total[i].tolist(),
                    "constant": self.constant[i].tolist(),
                    "prefix": self.prefix[i].tolist(),
                    "maps": self.maps[i].tolist(),
                }
                for i in range(len(self))
            ],
        }


def shown_pixels(pixels: Tensor, preprocessing: dict[str, Any]) -> Tensor:
    """(image, height, width, 3) in [0, 1]: preprocessed pixels with their normalization undone.

    Where the preprocessing does not say how it normalizes, each picture is stretched to the whole range.
    """
    shown = pixels.detach().float().cpu()
    mean = preprocessing.get("image_mean", preprocessing.get("mean"))
    std = preprocessing.get("image_std", preprocessing.get("std"))
    if preprocessing.get("do_normalize") is False:
        mean, std = [0.0] * 3, [1.0] * 3
    if mean is None or std is None:
        low, high = shown.amin(dim=(1, 2, 3), keepdim=True), shown.amax(dim=(1, 2, 3), keepdim=True)
        shown = (shown - low) / (high - low).clamp_min(1e-12)
    else:
        shown = shown * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    pictures: Tensor = shown.clamp(0, 1).permute(0, 2, 3, 1).contiguous()
    return pictures
