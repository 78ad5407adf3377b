"""Spectra of generated images that come with the model, used if no reference is given."""

import argparse
from pathlib import Path

import torch
from PIL import Image

import residualign as ra
from recipes.mini.generate import generate
from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.spectrum import Moments

N_IMAGES, BATCH = 8192, 256
# no batch of the training run has this seed
SEED = 411


def main() -> None:
    """Write spectra.safetensors into a model directory: every image goes through the model's own preprocessing."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--mix", default="general")
    parser.add_argument("--images", type=int, default=N_IMAGES)
    args = parser.parse_args()
    model = ra.load_model(args.model)
    maps = unit_maps(model.tower)
    moments = Moments.empty(maps)
    for index in range(args.images // BATCH):
        images = generate(SEED, index, BATCH, mix=args.mix).images
        pixels = model.pixels([Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images])
        moments.update(trace_coordinates(model.tower, pixels))
    source = f"{moments.count} generated images, mix {args.mix}, seed {SEED}"
    path = args.model / "spectra.safetensors"
    moments.spectra(maps, source=source, model_fingerprint=model.fingerprint).save(path, dtype=torch.float32)
    print(f"{path.name}: {source}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
