"""A small labeled store without a model, whose classes differ in a few directions; a prime for every axis."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch

from residualign.fitting.fit import FitSettings, fit_method
from residualign.spectrum import Moments
from residualign.store import CoordinateShape, SplitPlan, StorePlan, StoreWriter
from tests.spectrum.random_tower import make_coordinates, make_maps

CLASSES = ("crow", "red fox", "ibis")
SIZES = {"train": 83, "val": 41, "test": 59}

_numbers = itertools.count()


def fit(store, method="residual", spectra=None, *, classifier=None, scaling=None, **settings):
    """`fit_method` with its settings as keywords."""
    return fit_method(store, method, spectra, classifier=classifier, scaling=scaling, settings=FitSettings(**settings))


def store_of(maps, splits, text_vectors=None, logit_scale=None, model=None):
    """A float64 store in memory of (labels, coordinates) by split."""
    contributions = maps.layout == "contributions"
    like = next(iter(splits.values()))[1]
    plan = StorePlan(
        model=model or {"name": "random", "fingerprint": "f00d", "preprocessing": {}, "dtype": "float64"},
        data={"name": "noise"},
        splits={
            name: SplitPlan(tuple(f"{name}/{i}" for i in range(len(labels))), tuple(labels.tolist()))
            for name, (labels, _) in splits.items()
        },
        class_names=CLASSES,
        templates=(),
        shape=CoordinateShape(
            n_layers=like.heads.shape[1],
            n_heads=like.heads.shape[2],
            head_dim=maps.head_dim if contributions else like.heads.shape[3],
            width=like.mlps.shape[2],
            dim=maps.dim,
            layout=maps.layout,
            pool_mlp=like.pool_mlp is not None,
        ),
        logit_scale=logit_scale,
        dtype="float64",
    )
    with StoreWriter(f"memory://standin/{next(_numbers)}", plan, maps, text_vectors) as writer:
        for shard in writer.pending_shards():
            writer.write_shard(shard, splits[shard.split][1][shard.start : shard.stop])
        return writer.finish().in_memory()


def with_split(store, name, labels, coordinates):
    """The store with other images in one of its splits."""
    splits = {one: (store.split(one).labels, store.split(one).coordinates()) for one in store.splits}
    return store_of(store.maps, {**splits, name: (labels, coordinates)}, store.text_vectors, store.logit_scale)


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
        splits[name] = labels, consistent(maps, moved)
    if not text:
        return store_of(maps, splits)
    labels, coordinates = splits["train"]
    means = [coordinates.output[labels == c].mean(dim=0) for c in range(len(CLASSES))]
    blurred = torch.stack(means) + torch.randn(
        len(CLASSES), maps.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    return store_of(maps, splits, torch.nn.functional.normalize(blurred, dim=-1), 12.0)
