"""Every tensor of a weights file has its place in the model: what is left over, missing or of another size is said."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from torch import nn

from residualign.errors import BadInputError
from residualign.models.hub import not_loaded

__all__ = ["check_weights", "refuse_adapter_beside", "refused_by", "timm_keys"]

# heads of other tasks, the half of a CLIP that a vision tower does not have, and buffers that are computed
_KNOWN_ANYWHERE = frozenset({"pooler", "lm_head", "cls", "position_ids", "mask_token", "inv_freq", "periods"})
_KNOWN_FIRST = frozenset(
    {"classifier", "distillation_classifier", "cls_classifier", "head", "head_dist", "decoder", "fc", "score"}
    | {"text_model", "text_projection", "logit_scale", "logit_bias", "itm_head"}
)

_FACTORS = re.compile(r"(^|\.)(lora_|base_layer\.|loha_|hada_|lokr_|ia3_|oft_|boft_|vera_|adapter)", re.IGNORECASE)


def refuse_adapter_beside(name: str, folder: Path) -> None:
    """`BadInputError` for an adapter beside full weights: transformers applies it if, and only if, peft is there."""
    path = folder / "adapter_config.json"
    if not path.is_file() and not any(folder.glob("adapter_model.*")):
        return
    try:
        config = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        config = {}
    if isinstance(config, dict) and str(config.get("format", "")).startswith("residualign"):
        raise BadInputError(
            f"model {name!r}: its directory also holds an adapter that residualign saved, which other libraries take "
            "for one of PEFT; move adapter_config.json and adapter.safetensors to a directory of their own"
        )
    raise BadInputError(
        f"model {name!r}: its directory holds a PEFT adapter beside the weights, which would not be applied; merge it "
        "into the weights (PeftModel.merge_and_unload) and save the model, or remove the adapter's files"
    )


def check_weights(
    name: str,
    module: nn.Module,
    missing: Collection[str],
    unexpected: Collection[str],
    mismatched: Iterable[tuple[str, Iterable[int], Iterable[int]]] = (),
) -> None:
    """`BadInputError` for weights that the file lacks, has in another size, or has beyond what the model takes.

    mismatched: names with the shape in the file and in the model. Heads that the model does without are passed over
    in silence; tensors outside the model's own parts are named in a warning.
    """
    beyond = sorted(key for key in unexpected if not _is_known(key))
    _raise_for_keys(name, missing, beyond, mismatched)
    parts = {part for part, _ in module.named_children()} | {getattr(module, "base_model_prefix", "")}
    inside = [key for key in beyond if key.partition(".")[0] in parts]
    if inside:
        raise BadInputError(
            f"model {name!r}: the weights file holds {inside[0]!r}{_and_more(len(inside))}, for which the model that "
            "its config describes has no place; correct the config (such as its number of layers), or give a "
            "checkpoint whose config and weights belong together"
        )
    if beyond:
        warnings.warn(
            f"model {name!r}: {beyond[0]!r}{_and_more(len(beyond))} of the weights file is not part of the image or "
            "text tower, and is not used",
            UserWarning,
            stacklevel=5,
        )


def _raise_for_keys(
    name: str,
    missing: Collection[str],
    beyond: Collection[str],
    mismatched: Iterable[tuple[str, Iterable[int], Iterable[int]]] = (),
) -> None:
    """`BadInputError` for the reason behind the names: factors to merge, a prefix, sizes, or weights that lack."""
    factors = sorted(key for key in beyond if _FACTORS.search(key))
    if factors:
        raise BadInputError(
            f"model {name!r}: the weights file holds {factors[0]!r}{_and_more(len(factors))}: factors of an adapter "
            "(such as LoRA) beside the base weights, which would not be applied; merge them into the weights and save "
            "the model again"
        )
    prefix = _prefix(missing, beyond)
    if prefix:
        raise BadInputError(
            f"model {name!r}: the names in the weights file begin with {prefix!r}, as a wrapper of the model (such as "
            "torch.compile or DataParallel) saves them; save the weights again without it"
        )
    sizes = sorted((key, tuple(found), tuple(expected)) for key, found, expected in mismatched)
    if sizes:
        key, found, expected = sizes[0]
        raise BadInputError(
            f"model {name!r}: {key!r} has the shape {found} in the weights file, but {expected} by the model's config"
            f"{_and_more(len(sizes), ', as have {} more')}; give a checkpoint whose config and weights belong together"
        )
    if missing:
        first = min(missing)
        raise BadInputError(f"model {name!r}: the weights file lacks {first!r} ({len(missing)} tensors in all)")


def refused_by(library: str, name: str, error: Exception) -> BadInputError:
    """The sentence for an error of open_clip or timm: by the names of weights where it is about those."""
    try:
        missing, unexpected, sizes = _keys_said_by_torch(str(error))
        _raise_for_keys(name, missing, unexpected, sizes)
    except BadInputError as refusal:
        return refusal
    return not_loaded(name, f"by {library}", error)


@contextlib.contextmanager
def timm_keys() -> Iterator[dict[str, list[str]]]:
    """The names of "Missing" and "Unexpected" weights of the models that timm loads inside the context.

    timm loads without strictness where it leaves out the class head, and only logs what did not fit.
    """
    keys: dict[str, list[str]] = {"Missing": [], "Unexpected": []}

    def note(record: logging.LogRecord) -> bool:
        said = _LOGGED.match(record.getMessage())
        if said is not None:
            keys[said[1]] += said[2].split(", ")
        # what would not have been shown is not shown
        return said is None and record.levelno >= shown

    logger = logging.getLogger("timm.models._builder")
    level, disabled = logger.level, logging.root.manager.disable
    shown = max(logger.getEffectiveLevel(), disabled + 1)
    logger.addFilter(note)
    logger.setLevel(logging.INFO)
    logging.disable(logging.NOTSET)
    try:
        yield keys
    finally:
        logger.removeFilter(note)
        logger.setLevel(level)
        logging.disable(disabled)


_LOGGED = re.compile(r"(Missing|Unexpected) keys \((.*?)\) (?:discovered|found) while loading")

_QUOTED = re.compile(r'"([^"]+)"')
_SIZES = re.compile(r"size mismatch for (\S+): copying a param with shape (\S*\(.*?\)) from .*?model is (\S*\(.*?\))\.")


def _keys_said_by_torch(message: str) -> tuple[list[str], list[str], list[tuple[str, list[int], list[int]]]]:
    """Missing, unexpected and mismatched names in what `load_state_dict` says; empty for another message."""
    text = " ".join(message.split())
    lists = []
    for kind in ("Missing", "Unexpected"):
        _, _, rest = text.partition(f"{kind} key(s) in state_dict:")
        lists.append(_QUOTED.findall(re.split(r"\. (?=Unexpected|size mismatch)", rest)[0]))
    sizes = [(key, list(_numbers(found)), list(_numbers(expected))) for key, found, expected in _SIZES.findall(text)]
    return lists[0], lists[1], sizes


def _numbers(text: str) -> Iterator[int]:
    return map(int, re.findall(r"\d+", text))


def _is_known(key: str) -> bool:
    parts = key.split(".")
    return parts[0] in _KNOWN_FIRST or not _KNOWN_ANYWHERE.isdisjoint(parts)


def _prefix(missing: Collection[str], beyond: Collection[str]) -> str:
    """What stands before the names of most missing tensors in the file; empty if nothing does."""
    found = set(beyond)
    for first in sorted(missing, key=len, reverse=True)[:3]:
        for key in found:
            prefix = key.removesuffix(first)
            if prefix.endswith(".") and 2 * sum(prefix + one in found for one in missing) > len(missing):
                return prefix
    return ""


def _and_more(n: int, words: str = " and {} more") -> str:
    return words.format(n - 1) if n > 1 else ""
