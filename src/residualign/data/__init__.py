"""Labeled images from folders, parquet files, tar shards, the Hugging Face hub and registered names."""

from residualign.data.images import BadImageError, read_image, to_rgb
from residualign.data.load import load_data
from residualign.data.prompts import DEFAULT_TEMPLATE
from residualign.data.registered import registered_names, registered_sets
from residualign.data.split import ImageData, Split

__all__ = [
    "DEFAULT_TEMPLATE",
    "BadImageError",
    "ImageData",
    "Split",
    "load_data",
    "read_image",
    "registered_names",
    "registered_sets",
    "to_rgb",
]
