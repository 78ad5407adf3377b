"""A small store of random numbers; `python -m tests.store.make_store FOLDER SECONDS` fills one slowly."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import torch

from residualign.decomposition.coordinates import Coordinates
from residualign.store import CoordinateShape, SplitPlan, StorePlan, StoreWriter
from tests.spectrum.random_tower import DIM, HEAD_DIM, HEADS, LAYERS, WIDTH, make_coordinates, make_maps

SIZES = {"train": 61, "val": 11, "test": 0}
BROKEN = ("train/7", "train/8", "train/60", "val/0")


def make_plan(**changes):
    fields = {
        "model": {"name": "tiny", "fingerprint": "f00d", "preprocessing": {"size": 32}, "dtype": "float32"},
        "data": {"name": "noise"},
        "splits": {
            name: SplitPlan(tuple(f"{name}/{i}" for i in range(n)), tuple(i % 3 for i in range(n)))
            for name, n in SIZES.items()
        },
        "class_names": ("a", "b", "c"),
        "templates": ("a photo of {}.",),
        "shape": CoordinateShape(LAYERS, HEADS, HEAD_DIM, WIDTH, DIM),
        "logit_scale": 100.0,
        "shard_size": 13,
        "batch_size": 5,
        "residual_error": 1e-7,
    }
    return StorePlan(**{**fields, **changes})


def coordinates_of(keys):
    """Random numbers that depend on the key alone."""
    seeds = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little") for key in keys]
    return Coordinates.cat([make_coordinates(1, seed=seed) for seed in seeds]).to(dtype=torch.float32)


def write_pending(writer, skip=(), pause=0.0):
    """What `extract` does: shard by shard, batch by batch."""
    for shard in writer.pending_shards():
        all_keys = writer.plan.splits[shard.split].keys
        batches, skipped = [make_coordinates(0).to(dtype=torch.float32)], []
        for batch in shard.batches(writer.plan.batch_size):
            keys = [all_keys[i] for i in batch]
            skipped += [key for key in keys if key in skip]
            kept = [key for key in keys if key not in skip]
            batches += [coordinates_of(kept)] if kept else []
            time.sleep(pause)
        writer.write_shard(shard, Coordinates.cat(batches), skipped)


def text_vectors():
    return torch.nn.functional.normalize(torch.randn(3, DIM, generator=torch.Generator().manual_seed(7)), dim=-1)


def fill(path, plan=None, skip=(), pause=0.0):
    with StoreWriter(path, plan or make_plan(), make_maps(), text_vectors()) as writer:
        write_pending(writer, skip, pause)
        return writer.finish()


def tree(path):
    """SHA-256 of every file below a folder, by relative path."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(Path(path).rglob("*"))
        if file.is_file()
    }


if __name__ == "__main__":
    print("ready", flush=True)
    fill(sys.argv[1], skip=BROKEN, pause=float(sys.argv[2]))
    print("done", flush=True)
