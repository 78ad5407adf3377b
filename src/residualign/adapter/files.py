"""An adapter on disk: `adapter.safetensors`, `adapter_config.json`, `history.jsonl` and a model card.

Knows files, not models: what the numbers mean is `adapter.py`'s. Everything that does not fit together is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from residualign._files import TEMPORARY_SUFFIX, saying_what_is_kept
from residualign.errors import BadInputError
from residualign.spectrum._tensorfile import read_tensors

__all__ = [
    "ADAPTER_FILES",
    "CARD",
    "CONFIG",
    "HISTORY",
    "TENSORS",
    "AdapterFiles",
    "field_of",
    "read_adapter",
    "write_adapter",
]

TENSORS, CONFIG, HISTORY, CARD = "adapter.safetensors", "adapter_config.json", "history.jsonl", "README.md"

ADAPTER_FILES = (TENSORS, CONFIG, HISTORY, CARD)
"""Every file that saving an adapter writes."""

FORMAT, VERSION = "residualign adapter", 1


@dataclass(frozen=True)
class AdapterFiles:
    """What the files of an adapter hold. config is JSON-able; history has one record a validation."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    history: Sequence[Mapping[str, Any]]


def write_adapter(folder: str | os.PathLike[str], files: AdapterFiles, card: str) -> None:
    """Write all files of an adapter, replacing an adapter that is there; other files of the folder stay.

    Equal contents give equal bytes. Everything is written beside its place first, then renamed, the config last: a
    full disk changes nothing, and a folder without a config is not yet an adapter. `RunError` where writing fails.
    """
    header = json.dumps({"format": FORMAT, "version": VERSION})
    # one key: safetensors writes several in an order that changes from process to process
    tensors = save({name: tensor.contiguous() for name, tensor in files.tensors.items()}, {"residualign": header})
    config = {
        "format": FORMAT,
        "version": VERSION,
        **files.config,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
    }
    contents = {
        TENSORS: tensors,
        HISTORY: "".join(json.dumps(record, allow_nan=False) + "\n" for record in files.history).encode(),
        CARD: card.encode(),
        CONFIG: (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(),
    }
    with saying_what_is_kept(folder, "no adapter was written there"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        _publish_together(Path(folder), contents)


def _publish_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write every file beside its place, and only then rename them all, in order."""
    staged = {name: folder / (name + TEMPORARY_SUFFIX) for name in contents}
    try:
        for name, content in contents.items():
            with open(staged[name], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name, path in staged.items():
            os.replace(path, folder / name)
    except OSError:
        for path in staged.values():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        raise


def read_adapter(folder: str | os.PathLike[str]) -> AdapterFiles:
    """Read what `write_adapter` wrote, bit for bit.

    `BadInputError` naming the file that is absent, damaged, changed since it was written, of another kind or of a
    newer version.
    """
    config = _read_config(Path(folder))
    path = Path(folder) / TENSORS
    _, tensors = read_tensors(path, FORMAT, VERSION)
    if hashlib.sha256(path.read_bytes()).hexdigest() != field_of(config, "tensors_sha256", str):
        raise BadInputError(f"{path} is not the file that was saved with {CONFIG}: its SHA-256 is another one")
    return AdapterFiles(config, tensors, _read_history(Path(folder) / HISTORY))


def field_of(mapping: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """A field of a config; `BadInputError` naming it where it is absent or of another type."""
    if name not in mapping:
        raise BadInputError(f"{CONFIG} lacks {name!r}")
    value = mapping[name]
    # JSON knows no bool that is a number
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        expected = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
        raise BadInputError(f"{CONFIG}: {name!r} is a {type(value).__name__}, expected {expected}")
    return value


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise BadInputError(f"{folder} is no adapter: it has no {CONFIG}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} is not readable as JSON ({error})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise BadInputError(f"{path} does not describe a {FORMAT}")
    version = field_of(config, "version", int)
    if version > VERSION:
        raise BadInputError(
            f"{path} has format version {version}, written by a newer residualign; this one reads up to {VERSION}"
        )
    return config


def _read_history(path: Path) -> tuple[dict[str, Any], ...]:
    """The records of the fit; none where the file was left behind, which costs the adapter nothing."""
    if not path.is_file():
        return ()
    try:
        return tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} is not readable as JSON lines ({error})") from None
