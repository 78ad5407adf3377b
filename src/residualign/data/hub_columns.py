"""Which column of a hub data set holds the images and which the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from residualign.errors import BadInputError

if TYPE_CHECKING:
    from datasets import Features

__all__ = ["class_names_of", "image_column", "label_column"]

IMAGE_NAMES = ("image", "img", "images", "pixel_values", "picture", "jpg", "jpeg", "png", "webp")
"""Names that columns of plain bytes are taken for images by; an Image feature needs no name."""

LABEL_NAMES = ("label", "labels", "class", "fine_label", "cls", "target", "category", "class_id")
"""Names that columns without a ClassLabel feature are taken for labels by."""


def image_column(features: Features, name: str, wanted: str | None = None) -> str:
    """The one column with the Image feature, else the one of bytes that is called as images are.

    wanted: the column to take where that is known. name: the data set, for errors. Raises `BadInputError` naming the
    columns where there is no such column, or more than one.
    """
    if wanted is not None:
        return _present(features, wanted, name)
    found = [column for column, feature in features.items() if _kind(feature) == "Image"]
    if not found:
        found = [column for column in IMAGE_NAMES if column in features and _holds_bytes(features[column])]
    return _only(found, "image", features, name)


def label_column(features: Features, name: str, wanted: str | None = None, labelled: bool = True) -> str | None:
    """The one column with the ClassLabel feature, else the one that is called as labels are.

    wanted and name as in `image_column`. None where there is none and none is needed. Raises `BadInputError` naming the
    columns where there is no such column, more than one, or one that holds several labels an image.
    """
    if wanted is not None:
        found = [_present(features, wanted, name)]
    else:
        found = [column for column, feature in features.items() if _kind(feature) == "ClassLabel"]
        found = found or [column for column in LABEL_NAMES if column in features]
        if not found and not labelled:
            return None
    column = _only(found, "label", features, name)
    feature = features[column]
    if _kind(feature) not in ("ClassLabel", "Value"):
        raise BadInputError(
            f"column {column!r} of {name!r} holds several labels an image ({_kind(feature)}); expected one"
        )
    return column


def class_names_of(feature: Any) -> tuple[str, ...] | None:
    """The names of a ClassLabel feature; None for any other."""
    return tuple(feature.names) if _kind(feature) == "ClassLabel" and feature.names else None


def _only(found: Sequence[str], what: str, features: Mapping[str, Any], name: str) -> str:
    if len(found) > 1:
        raise BadInputError(f"{name!r} has several {what} columns ({', '.join(found)}); expected one")
    if not found:
        raise BadInputError(f"{name!r} has no {what} column, only {', '.join(features)}")
    return found[0]


def _present(features: Mapping[str, Any], column: str, name: str) -> str:
    if column not in features:
        raise BadInputError(f"{name!r} has no column {column!r}, only {', '.join(features)}")
    return column


def _kind(feature: Any) -> str:
    # by name: a nested feature is a list or a dict in some versions of the library and a class in others
    return type(feature).__name__


def _holds_bytes(feature: Any) -> bool:
    if isinstance(feature, Mapping):
        return "bytes" in feature and _holds_bytes(feature["bytes"])
    return _kind(feature) == "Value" and feature.dtype in ("binary", "large_binary")
