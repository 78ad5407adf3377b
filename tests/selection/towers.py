"""Stores of the three layouts: random maps, and random models that pool means or by attention."""

from __future__ import annotations

import torch

from residualign.decomposition.contributions import Contributions
from tests.fitting.standin import CLASSES, make_store
from tests.fitting.standin import store_of as standin_of

LAYOUTS = ("token", "mean", "contributions")
SIZES = {"train": 31, "val": 17, "test": 23}


def store_of(layout, folder):
    """A store in float64 with text vectors; images and labels are random but where the layout is a class token."""
    if layout == "token":
        return make_store(separation=0.4, text=True)
    # imported here: models need their library, random maps do not
    import residualign as ra
    from residualign.decomposition.maps import unit_maps
    from residualign.decomposition.trace import trace_coordinates
    from tests import random_models

    saved = random_models.save_vit(folder / "vit") if layout == "mean" else random_models.save_siglip(folder / "siglip")
    model = ra.load_model(f"{saved}#mean" if layout == "mean" else saved, dtype="float64")
    maps = unit_maps(model.tower)
    assert maps.layout == layout
    splits = {}
    for i, (name, n) in enumerate(SIZES.items()):
        coordinates = trace_coordinates(model.tower, model.tower.probe(n, seed=i))
        labels = torch.randint(len(CLASSES), (n,), generator=torch.Generator().manual_seed(i))
        # every class in every split
        splits[name] = torch.where(torch.arange(n) < 3, torch.arange(n), labels), coordinates
    vectors = torch.randn(len(CLASSES), maps.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    return standin_of(maps, splits, vectors, 12.0)


def values_of(store, split):
    """(image, unit, dim) contributions as numpy."""
    return Contributions.of(store.split(split).coordinates(), store.maps).values.numpy()
