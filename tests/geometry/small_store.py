"""A store of a random tower of four layers, with duplicates and with units that do not vary."""

from __future__ import annotations

from dataclasses import replace

import torch

from residualign.store import CoordinateShape, SplitPlan, Store, StorePlan, StoreWriter
from tests.spectrum.random_tower import DIM, HEAD_DIM, HEADS, WIDTH, make_coordinates, make_maps

LAYERS = 4
N = 97
COPIES = 5
"""The last images of the training split are copies of the first."""


def make_small_store(path, dim=DIM) -> Store:
    """train: 97 images, 5 of them copies; val: 11; test: none. Head L1.H2 and the MLP of layer 2 do not vary."""
    maps = make_maps(layers=LAYERS, dim=dim)
    maps.heads[1, 2] = 0.0
    maps.mlps[2, :] = 0.0
    sizes = {"train": N, "val": 11, "test": 0}
    splits = {
        name: SplitPlan(tuple(f"{name}/{i}" for i in range(n)), tuple(i % 3 for i in range(n)))
        for name, n in sizes.items()
    }
    plan = StorePlan(
        model={"name": "tiny", "fingerprint": "f00d", "preprocessing": {}, "dtype": "float64"},
        data={"name": "noise"},
        splits=splits,
        class_names=("a", "b", "c"),
        templates=(),
        shape=CoordinateShape(LAYERS, HEADS, HEAD_DIM, WIDTH, dim),
        logit_scale=None,
        shard_size=13,
        batch_size=5,
        residual_error=1e-12,
        dtype="float64",
    )
    drawn = {name: make_coordinates(n, seed=3 + n, layers=LAYERS, dim=dim, offset=0.7) for name, n in sizes.items()}
    index = torch.arange(N)
    index[N - COPIES :] = torch.arange(COPIES)
    drawn["train"] = drawn["train"][index]
    drawn = {name: replace(one, output=maps.sum(one)) for name, one in drawn.items()}
    with StoreWriter(path, plan, maps, None) as writer:
        for shard in writer.pending_shards():
            writer.write_shard(shard, drawn[shard.split][slice(shard.start, shard.stop)], [])
        return writer.finish()
