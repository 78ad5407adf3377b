"""The weights of a tower under family-neutral names, read by way of a table of each family.

A table says where a weight is: family-neutral name -> path of attributes from the tower, or from one of its blocks.
The neutral names are what a fingerprint is made of, so one checkpoint has one fingerprint in every library; a table
that changes makes every store and adapter of its family foreign.

    "norm_final": "post_layernorm"                a tensor, or a module: all of its parameters, `.weight` and so on
    "[query,key,value]": "attn.qkv"               one tensor that holds several, in equal parts along its first axis
    "mlp.in": "mlp.fc1|mlp.up_proj"               the first of these that exists and holds weights
    "embedding.registers": "register_tokens?"     may be missing; without the mark that is an error
    "attention": "attn"                           only what no other entry of the table names: the rest of a module

A part that is None has no weights and is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["neutral_tensors"]

# number of axes to keep: some libraries store these with leading axes of size one
_AXES = {"embedding.class": 1, "embedding.position": 2, "embedding.registers": 2, "pool.probe": 1}

# batch-norm statistics are buffers; buffers of other modules can be recomputed
_WITH_BUFFERS = "embedding.patch"

_PACKED = re.compile(r"\[(.+)\]")


def neutral_tensors(
    tower: nn.Module,
    names: Mapping[str, str],
    blocks: Iterable[nn.Module] = (),
    block_names: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """The tower's weights by neutral name: by `names` those of the tower, by `block_names` those of each block.

    AttributeError for a weight that is not where the table says: the library has renamed it.
    """
    tensors = dict(_named(tower, names))
    for i, block in enumerate(blocks):
        tensors |= {f"block.{i}.{name}": tensor for name, tensor in _named(block, block_names or {})}
    return tensors


def _named(module: nn.Module, names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    every_path = [path for entry in names.values() for path in _paths(entry)]
    for name, entry in names.items():
        path, found = _find(module, entry)
        if isinstance(found, Tensor):
            yield from _unpacked(name, found.flatten(0, found.ndim - _AXES[name]) if name in _AXES else found)
        elif found is not None:
            others = {other.removeprefix(f"{path}.") for other in every_path if other.startswith(f"{path}.")}
            for part, tensor in _weights(found, name):
                if not any(part == other or part.startswith(f"{other}.") for other in others):
                    yield from _unpacked(f"{name}.{part}", tensor)


def _paths(entry: str) -> list[str]:
    return entry.removesuffix("?").split("|")


def _find(module: nn.Module, entry: str) -> tuple[str, Any]:
    """The first path that holds weights, and the tensor or module there; None if there are no weights."""
    known = entry.endswith("?")
    for path in _paths(entry):
        found: Any = module
        for attribute in path.split("."):
            found = getattr(found, attribute, _MISSING)
            if found is None or found is _MISSING:
                break
        known |= found is not _MISSING
        if isinstance(found, Tensor) or (isinstance(found, nn.Module) and any(True for _ in found.parameters())):
            return path, found
    if not known:
        raise AttributeError(f"{type(module).__name__} has no {' or '.join(_paths(entry))}")
    return "", None


_MISSING = object()


def _weights(module: nn.Module, name: str) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    if name.startswith(_WITH_BUFFERS):
        yield from ((part, buffer) for part, buffer in module.named_buffers() if buffer.is_floating_point())


def _unpacked(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    packed = _PACKED.search(name)
    if packed is None:
        yield name, tensor
        return
    parts = packed[1].split(",")
    for part, piece in zip(parts, tensor.chunk(len(parts)), strict=True):
        yield name.replace(packed[0], part), piece
