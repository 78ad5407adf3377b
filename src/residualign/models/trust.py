"""What a checkpoint and a file that names one may do: no code of theirs runs, and no model is loaded unasked.

A stranger's adapter or store names its own model. It is loaded without a word only if its user has named the same model
before, if it is `mini`, or if it is a hub model that is in the local cache already.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from residualign._files import json_bytes, publish
from residualign.errors import BadInputError
from residualign.models.names import ModelSource, resolve, without_pooling

__all__ = ["check_keywords", "check_sizes", "no_remote_code", "own_config", "refuse_unnamed_model", "remember_model"]

_FILE = "models.json"
_MOST = 1000

_LOCAL = "local-dir:"


@contextlib.contextmanager
def no_remote_code() -> Iterator[None]:
    """Whatever a checkpoint's files ask for, transformers runs no code of theirs in here, and asks nobody on stdin.

    Loaders that we call get `trust_remote_code=False`; this is for those that other libraries call for us.
    """
    from transformers import dynamic_module_utils as dynamic

    kept = dynamic.get_class_in_module, dynamic.TIME_OUT_REMOTE_CODE
    dynamic.get_class_in_module = _refuse_code
    # the question is not asked where nobody would have the time to answer it
    dynamic.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        dynamic.get_class_in_module, dynamic.TIME_OUT_REMOTE_CODE = kept


def _refuse_code(*_: Any, **__: Any) -> Any:
    raise BadInputError("the checkpoint asks for code of its own to be run, which residualign never does")


def check_keywords(given: object, allowed: Collection[str], where: str) -> None:
    """`BadInputError` unless a checkpoint's own keyword arguments are among those that only set numbers and names.

    given: what the configuration has; None and an empty mapping are fine. where: says which configuration it is.
    """
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise BadInputError(f"{where} is a table of settings; got {type(given).__name__}")
    unknown = sorted(str(key) for key in given if key not in allowed)
    if unknown:
        raise BadInputError(
            f"{where} has {unknown[0]!r}, which is not a setting that a checkpoint may choose; expected some of "
            f"{', '.join(sorted(allowed))}"
        )


_PIXELS, _PATCHES, _UNITS, _LAYERS = 4096, 512, 1 << 16, 1024

_LARGEST = {
    **dict.fromkeys(("image_size", "img_size", "input_size", "size", "crop_size", "height", "shortest_edge"), _PIXELS),
    **dict.fromkeys(("hidden_size", "embed_dim", "width", "intermediate_size", "projection_dim"), _UNITS),
    **dict.fromkeys(("num_hidden_layers", "layers", "depth"), _LAYERS),
}


def check_sizes(config: object, where: str) -> None:
    """`BadInputError` for sizes in a checkpoint's configuration that no tower has: they would take all memory at once.

    config: JSON types, searched in every depth. where: says which file it is.
    """
    left = [config]
    while left:
        part = left.pop()
        if isinstance(part, list | tuple):
            left += part
        if not isinstance(part, Mapping):
            continue
        left += part.values()
        for key, most in _LARGEST.items():
            if (found := _largest(part.get(key))) > most:
                raise BadInputError(f"{where}: {key} is {found:,}, expected at most {most:,}; correct it there")
        side, patch = _largest([part.get("image_size"), part.get("img_size")]), _largest(part.get("patch_size"))
        if patch and side / patch > _PATCHES:
            raise BadInputError(
                f"{where}: images of {side:,} pixels have more than {_PATCHES} patches of {patch} on a side; "
                "correct it there"
            )


def _largest(value: object) -> int | float:
    """The largest of the numbers given, 0 where there is none."""
    if isinstance(value, list | tuple):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def own_config(spec: str, file: str) -> Mapping[str, Any]:
    """A library's configuration that comes with a checkpoint; empty where there is none that can be read.

    spec: what follows the library's prefix, `local-dir:PATH` or `hf-hub:ORG/NAME`; other checkpoints have none of
    their own. The file of a hub model is downloaded as the library would.
    """
    kind, _, place = spec.partition(":")
    if kind == "local-dir":
        path = Path(place) / file
    elif kind == "hf-hub":
        from huggingface_hub import hf_hub_download

        hub_id, _, revision = place.partition("@")
        path = Path(hf_hub_download(hub_id, file, revision=revision or None))
    else:
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        # the library says what is wrong
        return {}
    check_sizes(config, str(path))
    return config if isinstance(config, Mapping) else {}


def remember_model(name: str) -> None:
    """Note that the user has named this model; a folder for the note that cannot be written is no error."""
    identity = _identity(name)
    names = _remembered()
    if identity is None or identity in names:
        return
    path = _place()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(path, json_bytes({"models": [*names, identity][-_MOST:]}))


def refuse_unnamed_model(name: str, named_by: str) -> None:
    """`BadInputError` unless a model that a file names may be loaded without asking.

    named_by: says which file, such as "the adapter". Reads no file of the model, and nothing from the network.
    """
    identity = _identity(name)
    if identity is None or identity in _remembered() or _is_cached(resolve(without_pooling(name)[0])):
        return
    raise BadInputError(
        f"{named_by} names the model {name!r}, which you have not loaded before; if you trust it, name it yourself: "
        f"--model {name} (in Python: model={name!r})"
    )


def _identity(name: str) -> str | None:
    """The same for all names of one model; None for `mini`, and for a name that stands for nothing."""
    try:
        plain, _ = without_pooling(name)
        source = resolve(plain)
    except BadInputError:
        # loading it says what is wrong
        return None
    if plain == "mini":
        return None
    place = source.place
    if source.kind == "directory":
        place = os.path.realpath(place)
    elif place.startswith(_LOCAL):
        place = _LOCAL + os.path.realpath(place.removeprefix(_LOCAL))
    return f"{source.kind}:{place}" + (f"@{source.revision}" if source.revision else "")


def _is_cached(source: ModelSource) -> bool:
    if source.kind != "hub":
        return False
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(source.place, "config.json", revision=source.revision)
    except ValueError:
        # not a hub id
        return False
    return isinstance(found, str)


def _place() -> Path:
    from platformdirs import user_state_path

    return user_state_path("residualign", appauthor=False) / _FILE


def _remembered() -> list[str]:
    try:
        content = json.loads(_place().read_text(encoding="utf-8"))
        return [str(name) for name in content["models"]]
    except (OSError, RuntimeError, ValueError, LookupError, TypeError):
        # no such file yet, or none of ours: then nothing was named
        return []
