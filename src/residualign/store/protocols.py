"""What the parts behind a store need of it, so that a stand-in will do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from residualign.decomposition.coordinates import Coordinates, UnitMaps

__all__ = ["SplitLike", "StoreLike"]


@runtime_checkable
class SplitLike(Protocol):
    """One split: labels (image,) and coordinates."""

    @property
    def labels(self) -> Tensor:
        """(image,)."""
        ...

    def coordinates(self) -> Coordinates:
        """Of all images of the split."""
        ...

    def __len__(self) -> int: ...


@runtime_checkable
class StoreLike(Protocol):
    """Coordinates of labelled images with the tower's maps; `residualign.store.Store` is one."""

    @property
    def maps(self) -> UnitMaps:
        """The tower's fixed maps."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """In label order."""
        ...

    @property
    def text_vectors(self) -> Tensor | None:
        """Unit class vectors from text, (class, dim), where the model has a text tower."""
        ...

    @property
    def logit_scale(self) -> float | None:
        """The model's own, where it has a text tower."""
        ...

    def split(self, name: str) -> SplitLike:
        """The split called train, val or test."""
        ...
