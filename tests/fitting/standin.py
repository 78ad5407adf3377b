"""A small labelled store without a model, whose classes differ in a few directions; a prime for every axis."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.spectrum import Moments
from tests.spectrum.random_tower import make_coordinates, make_maps

CLASSES = ("crow", "red fox", "ibis")
SIZES = {"train": 83, "val": 41, "test": 59}


@dataclass(frozen=True)
class StandInSplit:
    labels: torch.Tensor
    held: Coordinates

    def coordinates(self):
        return self.held

    def __len__(self):
        return len(self.labels)


@dataclass(frozen=True)
class StandInStore:
    maps: UnitMaps
    splits: dict[str, StandInSplit]
    class_names: tuple[str, ...] = CLASSES
    text_vectors: torch.Tensor | None = None
    logit_scale: float | None = None

    def split(self, name):
        return self.splits[name]


def consistent(maps, coordinates):
    """With the output that the units sum to."""
    return replace(coordinates, output=maps.sum(coordinates))


def make_spectra(maps, n=97, seed=5):
    moments = Moments.empty(maps)
    moments.update(consistent(maps, make_coordinates(n, seed, offset=0.4)))
    return moments.spectra(maps, source="noise")


def make_store(seed=0, separation=0.9, text=False, sizes=SIZES):
    maps = make_maps(seed)
    direction = make_coordinates(len(CLASSES), seed + 7)
    splits = {}
    for i, (name, n) in enumerate(sizes.items()):
        labels = torch.arange(n) % len(CLASSES)
        noise = make_coordinates(n, seed + 11 + i, offset=0.4)
        moved = replace(noise, heads=noise.heads + separation * direction.heads[labels])
        moved = replace(moved, mlps=noise.mlps + separation * direction.mlps[labels])
        splits[name] = StandInSplit(labels, consistent(maps, moved))
    vectors = None
    if text:
        means = [splits["train"].held.output[splits["train"].labels == c].mean(dim=0) for c in range(len(CLASSES))]
        blurred = torch.stack(means) + torch.randn(
            len(CLASSES), maps.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        vectors = torch.nn.functional.normalize(blurred, dim=-1)
    return StandInStore(maps, splits, text_vectors=vectors, logit_scale=12.0 if text else None)
