"""Reading our own safetensors files, and refusing everything else by name."""

from __future__ import annotations

import json
import os
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from residualign.errors import BadInputError

__all__ = ["read_tensors"]


def read_tensors(path: str | os.PathLike[str], format: str, version: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a safetensors file with a JSON header under the key `residualign`.

    Raises `BadInputError` naming the file where it is absent, truncated, of another kind or of another version.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise BadInputError(f"no such file: {name}; expected a {format} file")
    try:
        with safe_open(name, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("residualign", "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise BadInputError(f"{name} is damaged or no safetensors file: {error}") from None
    if not isinstance(header, dict) or header.get("format") != format:
        found = header.get("format") if isinstance(header, dict) else "something else"
        raise BadInputError(f"{name} is no {format} file but {found}")
    if header.get("version") != version:
        raise BadInputError(f"{name} has version {header.get('version')}, this residualign reads version {version}")
    return header, tensors
