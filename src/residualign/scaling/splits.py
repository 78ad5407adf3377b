"""What fitting needs of a store, and how few shots are drawn from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError
from residualign.store.protocols import SplitLike, StoreLike

__all__ = ["LabelledCoordinates", "SplitLike", "StoreLike", "few_shots", "read_split"]

MAX_VAL_SHOTS = 4


@dataclass(frozen=True)
class LabelledCoordinates:
    """Coordinates of some images and their labels, (image,)."""

    coordinates: Coordinates
    labels: Int[Tensor, " image"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled_embeddings(self) -> tuple[Tensor, Tensor]:
        """The model's own embeddings and the labels."""
        return self.coordinates.output, self.labels


def few_shots(labels: Int[Tensor, " image"], shots: int, seed: int) -> Int[Tensor, " chosen"]:
    """Indices, ascending, of `shots` random images a class; a class with fewer gives all it has.

    Deterministic from the seed; the images of one class do not depend on how many other classes there are.
    """
    if shots < 1:
        raise BadInputError(f"shots is the number of training images a class, at least 1, got {shots}")
    chosen = []
    for label in sorted(set(labels.tolist())):
        generator = torch.Generator().manual_seed(seed)
        of_class = (labels == label).nonzero().flatten()
        chosen.append(of_class[torch.randperm(len(of_class), generator=generator)[:shots]])
    return torch.cat(chosen).sort().values if chosen else labels.new_zeros(0)


def read_split(store: StoreLike, name: str, shots: int | None = None, seed: int = 0) -> LabelledCoordinates:
    """One split in memory; with shots, that many images a class (at most 4 of the validation split)."""
    split = store.split(name)
    if len(split) == 0:
        raise BadInputError(f"fitting needs {name} images, the store has none")
    coordinates, labels = split.coordinates(), split.labels
    if shots is None:
        return LabelledCoordinates(coordinates, labels)
    chosen = few_shots(labels, min(shots, MAX_VAL_SHOTS) if name == "val" else shots, seed)
    return LabelledCoordinates(coordinates[chosen], labels[chosen])
