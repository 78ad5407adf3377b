"""Small image sets on disk for the tests of loading."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def noise(number: int, size: tuple[int, int] = (5, 3)) -> Image.Image:
    """An RGB image (width, height) that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    """The image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def class_folders(root: Path, counts: Mapping[str, int]) -> Path:
    """`root/class/i.png` for each class; gives root."""
    for c, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            noise(100 * c + i).save(root / name / f"{i}.png")
    return root


def parquet(path: Path, labels: Sequence[Any], names: Sequence[str] | None = None, **options: Any) -> Path:
    """A parquet file as `datasets` writes it: `path`, with image i made by noise(i); gives its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(noise(i)), "path": None} for i in range(len(labels))]
    table = pa.table({"image": images, "label": labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, **options)
    return path.parent


def hub_parquet(columns: Mapping[str, Sequence[Any]], features: Any, **options: Any) -> bytes:
    """A parquet file with the features of the `datasets` library in its metadata, as the hub holds it."""
    from datasets import Dataset

    table = Dataset.from_dict(dict(columns), features=features).data.table
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def hub_repo(splits: Mapping[str, bytes], config: str = "default") -> dict[str, bytes]:
    """The files of a hub data set of one config, with a parquet file for each split."""
    files = "".join(f"  - split: {name}\n    path: {config}/{name}-*\n" for name in splits)
    card = f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n"
    return {
        "README.md": card.encode(),
        **{f"{config}/{name}-00000-of-00001.parquet": content for name, content in splits.items()},
    }
