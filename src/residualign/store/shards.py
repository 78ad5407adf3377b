"""One shard: the coordinates of a range of samples as one safetensors file that says whose it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from residualign.decomposition.coordinates import Coordinates, first_not_finite
from residualign.errors import BadInputError
from residualign.store.folder import Folder
from residualign.store.plan import CoordinateShape, ShardEntry, ShardRange, StoreDtype, StorePlan

__all__ = ["encode_shard", "examine_shard", "parse_tensors", "read_marks", "tensor_shapes"]

_FORMAT, _VERSION = "residualign shard", 1

_BLOCK = 1 << 22

_NUMPY_DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}


def tensor_shapes(shape: CoordinateShape) -> dict[str, tuple[int, ...]]:
    """The shape of one image's part of each tensor, by field of `Coordinates`."""
    contributions = shape.layout == "contributions"
    of_head, of_mlp = (shape.dim, shape.dim) if contributions else (shape.head_dim, shape.width)
    shapes: dict[str, tuple[int, ...]] = {
        "heads": (shape.n_layers, shape.n_heads, of_head),
        "mlps": (shape.n_layers, of_mlp),
    }
    if not contributions:
        shapes |= {"inverse_std": (), "mean_over_std": ()}
    shapes["output"] = (shape.dim,)
    if shape.layout != "token":
        shapes["embedding"] = (of_mlp,)
    if shape.pool_mlp:
        shapes["pool_mlp"] = (of_mlp,)
    return shapes


def encode_shard(
    plan: StorePlan, shard: ShardRange, coordinates: Coordinates, skipped: Sequence[str], marks: Sequence[str] = ()
) -> bytes:
    """The bytes of a shard: equal input gives equal bytes. marks: see `StoreWriter.write_shard`.

    Raises `BadInputError` where the coordinates are not those of the plan's tower or of as many images as the range
    leaves after `skipped`, and, naming the unit, where they are not finite or overflow the plan's dtype.
    """
    keys = plan.splits[shard.split].keys[shard.start : shard.stop]
    unknown = sorted(set(skipped) - set(keys))
    if unknown:
        raise BadInputError(f"{unknown[0]!r} is skipped in {shard.name} but is not one of its samples")
    rows = len(keys) - len(set(skipped))
    given, expected = coordinates.tensors(), tensor_shapes(plan.shape)
    if set(given) != set(expected):
        raise BadInputError(f"{shard.name} takes {', '.join(expected)}, got {', '.join(given)}")
    for name, shape in expected.items():
        got = tuple(given[name].shape)
        if got != (rows, *shape):
            raise BadInputError(f"{shard.name} takes {name} of shape {(rows, *shape)}, got {got}")
    where = first_not_finite(coordinates)
    if where is not None:
        raise BadInputError(f"the coordinates of {where} hold NaN or infinity in {shard.name}")
    stored = _rounded(coordinates, plan.dtype)
    where = first_not_finite(stored)
    if where is not None:
        raise BadInputError(f"the coordinates of {where} overflow {plan.dtype} in {shard.name}; store them as float32")
    tensors = {name: tensor.contiguous() for name, tensor in stored.tensors().items()}
    header: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "plan": plan.fingerprint,
        "range": asdict(shard),
        "skipped": [key for key in keys if key in set(skipped)],
        "checksum": hashlib.sha256(_payload(save(tensors))).hexdigest(),
    }
    if any(marks):
        if len(marks) != len(keys):
            raise BadInputError(f"{shard.name} has {len(keys)} samples, got {len(marks)} marks")
        header["marks"] = list(marks)
    # one key: safetensors writes several in an order that changes from process to process
    return save(tensors, {"residualign": json.dumps(header, sort_keys=True)})


def examine_shard(folder: Folder, plan: StorePlan, shard: ShardRange) -> ShardEntry:
    """Read a whole shard once and say what it is.

    Raises `BadInputError` naming the file and what differs: cut short, changed, of a different store or range.
    """
    where = f"{folder.name}/{shard.name}"
    header, offset = _read_header(folder, shard.name)
    if not isinstance(header, dict) or header.get("format") != _FORMAT or header.get("version") != _VERSION:
        raise BadInputError(f"{where} is not a shard of a store")
    if header["plan"] != plan.fingerprint:
        raise BadInputError(
            f"{where} belongs to a different store: its plan is {header['plan'][:12]}, expected {plan.fingerprint[:12]}"
        )
    if header["range"] != asdict(shard):
        found = ShardRange(**header["range"])
        raise BadInputError(
            f"{where} holds samples {found.start} to {found.stop} of {found.split}, "
            f"expected {shard.start} to {shard.stop} of {shard.split}"
        )
    with folder.open(shard.name) as file:
        whole, payload = hashlib.sha256(file.read(offset)), hashlib.sha256()
        while block := file.read(_BLOCK):
            whole.update(block)
            payload.update(block)
    if payload.hexdigest() != header["checksum"]:
        raise BadInputError(f"{where} is damaged: its numbers are not the ones that were written")
    skipped = tuple(header["skipped"])
    size = folder.size(shard.name) or 0
    return ShardEntry(
        shard.name, **vars(shard), rows=len(shard) - len(skipped), bytes=size, sha256=whole.hexdigest(), skipped=skipped
    )


def read_marks(folder: Folder, shard: ShardRange) -> tuple[str, ...]:
    """The marks of a shard's images; empty for a shard of an older version, and of images without bytes."""
    header, _ = _read_header(folder, shard.name)
    marks = header.get("marks") if isinstance(header, dict) else None
    if not isinstance(marks, list) or len(marks) != len(shard):
        return ()
    return tuple(map(str, marks))


def parse_tensors(content: NDArray[np.uint8], where: str) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file as views of its bytes, so that reading a row reads only that row.

    Raises `BadInputError` where the bytes are not such a file, or truncated.
    """
    try:
        length = int.from_bytes(content[:8].tobytes(), "little")
        described = json.loads(content[8 : 8 + length].tobytes())
        tensors = {}
        for name, tensor in described.items():
            if name == "__metadata__":
                continue
            begin, end = tensor["data_offsets"]
            part = content[8 + length + begin : 8 + length + end]
            tensors[name] = part.view(_NUMPY_DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(f"{where} is damaged or not a safetensors file: {error}") from None
    return tensors


def _rounded(coordinates: Coordinates, dtype: StoreDtype) -> Coordinates:
    large = getattr(torch, dtype)
    # the statistics and the output are a few numbers per image, and everything depends on them
    small = torch.float32 if dtype == "float16" else large
    few = ("inverse_std", "mean_over_std", "output")
    return Coordinates.of_tensors(
        {
            name: tensor.detach().to(device="cpu", dtype=small if name in few else large)
            for name, tensor in coordinates.tensors().items()
        }
    )


def _payload(file: bytes) -> memoryview:
    return memoryview(file)[8 + int.from_bytes(file[:8], "little") :]


def _read_header(folder: Folder, name: str) -> tuple[Any, int]:
    """The JSON under the key `residualign`, and where the numbers begin."""
    where = f"{folder.name}/{name}"
    content = folder.view(name) if folder.size(name) else np.zeros(0, np.uint8)
    parse_tensors(content, where)
    length = int.from_bytes(content[:8].tobytes(), "little")
    try:
        described = json.loads(content[8 : 8 + length].tobytes())
        return json.loads(described["__metadata__"]["residualign"]), 8 + length
    except (KeyError, ValueError):
        return None, 8 + length
