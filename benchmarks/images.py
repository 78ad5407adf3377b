"""Stand-ins for labeled photographs, and a random vision tower on disk, for benchmarks that start from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.towers import clip_vision_model

__all__ = ["save_images", "save_tower"]

# weak enough that class means of a random tower misclassify many images, and a fit has something to learn
_CLASS_SHARE = 0.15


def save_images(folder: Path, n: int, classes: int = 10, size: int = 256, seed: int = 0) -> Path:
    """n JPEG files in class folders: a weak coarse pattern of the class, a strong one of the image, and noise."""
    generator = np.random.default_rng(seed)
    patterns = generator.uniform(0, 255, (classes, 8, 8, 3))
    for i in range(n):
        label = i % classes
        coarse = _CLASS_SHARE * patterns[label] + (1 - _CLASS_SHARE) * generator.uniform(0, 255, (8, 8, 3))
        image = Image.fromarray(coarse.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        noisy = np.asarray(image, np.float32) + generator.normal(0, 12, (size, size, 3)).astype(np.float32)
        place = folder / f"class_{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(place / f"{i:05d}.jpg", quality=88)
    return folder


def save_tower(folder: Path, layers: int = 12, image_size: int = 224) -> Path:
    """A random ViT-B/32 CLIP vision tower with projection, in transformers format, with its image processor."""
    from transformers import CLIPImageProcessorPil

    clip_vision_model(layers=layers, image_size=image_size).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=image_size).save_pretrained(folder)
    return folder
