"""An adapter on disk: `adapter.safetensors`, `adapter_config.json`, `history.jsonl` and a model card.

Handles files, not models. Files that do not fit together are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from residualign._files import json_bytes, json_line, publish_together, read_tensors, saying_what_is_kept
from residualign.adapter.card import model_card
from residualign.adapter.compact import CompactScaling, CompactUnit
from residualign.classification.classifier import Classifier
from residualign.errors import BadInputError
from residualign.fitting.coefficients import HasLambdas
from residualign.fitting.fit import Accuracy, FitRecord
from residualign.fitting.methods import ADAPTER_METHODS
from residualign.models.recorded import preprocessing_differences

__all__ = [
    "ADAPTER_FILES",
    "CARD",
    "CONFIG",
    "HISTORY",
    "TENSORS",
    "AdapterContent",
    "read_adapter",
    "refuse_other_model",
    "to_config",
    "write_adapter",
]

TENSORS, CONFIG, HISTORY, CARD = "adapter.safetensors", "adapter_config.json", "history.jsonl", "README.md"

ADAPTER_FILES = (TENSORS, CONFIG, HISTORY, CARD)
"""Every file that saving an adapter writes."""

FORMAT, VERSION = "residualign adapter", 1


@dataclass(frozen=True, eq=False, repr=False)
class AdapterContent(HasLambdas, FitRecord):
    """Everything an adapter consists of: the record of the fit, and what was learned, in the form it is saved in.

    scaling: which components of which units are scaled. learned: what was fitted, float32: `lambdas` joined over units,
    or `map` (dim, dim) and `bias` (dim,). classifier: class vectors and logit scale for adapted embeddings;
    base_classifier: those before adapting. history: one record per validation. spectra: source, fingerprint and
    n_samples of the components. model_info: name, fingerprint, sizes, preprocessing and dtype of the model.
    """

    scaling: CompactScaling
    learned: Mapping[str, Tensor]
    classifier: Classifier
    base_classifier: Classifier
    history: tuple[dict[str, Any], ...]
    spectra: dict[str, Any]
    model_info: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the columns of `predict_proba`."""
        return self.classifier.class_names


def write_adapter(folder: str | os.PathLike[str], adapter: AdapterContent) -> None:
    """Write all files of an adapter, replacing an existing adapter; other files in the folder stay.

    Equal contents give equal bytes. Everything is written to temporary files first, then renamed, the config last: a
    full disk changes nothing, and a folder without a config is not yet an adapter. `RunError` if writing fails.
    """
    header = json.dumps({"format": FORMAT, "version": VERSION})
    # one key: safetensors writes several in an order that changes from process to process
    named = {name: tensor.contiguous() for name, tensor in _to_tensors(adapter).items()}
    tensors, content = save(named, {"residualign": header}), to_config(adapter)
    checksum = {"tensors_sha256": hashlib.sha256(tensors).hexdigest()}
    config = {"format": FORMAT, "version": VERSION} | content | checksum
    contents = {
        TENSORS: tensors,
        HISTORY: b"".join(map(json_line, adapter.history)),
        CARD: model_card(content).encode(),
        CONFIG: json_bytes(config),
    }
    with saying_what_is_kept(folder, "no adapter was written there"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        publish_together(folder, contents)


def _field(mapping: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """A field of a config; `BadInputError` naming it if it is missing or of the wrong type."""
    if name not in mapping:
        raise BadInputError(f"{CONFIG} lacks {name!r}")
    value = mapping[name]
    # in Python a bool is an int, in JSON it is not a number
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        expected = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
        raise BadInputError(f"{CONFIG}: {name!r} is a {type(value).__name__}, expected {expected}")
    return value


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        above = folder.parent
        meant = f" (did you mean {str(above)!r}?)" if (above / CONFIG).is_file() else ""
        missing = f"it has no {CONFIG}" if folder.exists() else "it does not exist"
        raise BadInputError(f"{str(folder)!r} is not an adapter: {missing}{meant}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{str(path)!r} is not readable as JSON ({error})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise BadInputError(f"{str(path)!r} does not describe a {FORMAT}")
    version = _field(config, "version", int)
    if version > VERSION:
        raise BadInputError(
            f"{path} has format version {version}, written by a newer residualign; this one reads up to {VERSION}"
        )
    return config


def _read_history(path: Path) -> tuple[dict[str, Any], ...]:
    """The records of the fit; empty if the file is missing, which the adapter does not need to predict."""
    if not path.is_file():
        return ()
    try:
        return tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise BadInputError(f"{str(path)!r} is not readable as JSON lines ({error})") from None


_ROWS, _DIM, _WHOLE = "rows", "dim", "whole"


def _to_tensors(adapter: AdapterContent) -> dict[str, Tensor]:
    """All tensors, by name; components of all units stored in the same form are concatenated."""
    scaling = adapter.scaling
    tensors = {
        "class_vectors": adapter.classifier.vectors,
        "rest_mean": scaling.rest_mean,
        **{f"learned.{name}": value for name, value in adapter.learned.items()},
    }
    if not torch.equal(adapter.classifier.vectors, adapter.base_classifier.vectors):
        tensors["base_class_vectors"] = adapter.base_classifier.vectors
    means = [unit.mean for unit in scaling.units if unit.mean is not None]
    if means:
        tensors["means"] = torch.stack(means)
    for form in (_ROWS, _DIM):
        parts = [u.components for u in scaling.units if u.components is not None and _form(u) == form]
        if parts:
            tensors[f"components.{form}"] = torch.cat(parts)
    return tensors


def to_config(adapter: AdapterContent) -> dict[str, Any]:
    """Everything else, JSON-able, without times or machine names."""
    return {
        "method": adapter.method,
        "mean": adapter.scaling.mean,
        "rest": adapter.scaling.rest,
        "parameters": adapter.parameters,
        "epochs": adapter.epochs,
        "learning_rate": adapter.learning_rate,
        "accuracy": dict(adapter.accuracy),
        "classifier": adapter.classifier.kind,
        "logit_scale": adapter.classifier.logit_scale,
        "base_logit_scale": adapter.base_classifier.logit_scale,
        **({} if adapter.classifier.logit_bias is None else {"logit_bias": adapter.classifier.logit_bias}),
        "class_names": list(adapter.class_names),
        "model": adapter.model_info,
        "spectra": adapter.spectra,
        "settings": adapter.settings,
        # label, lambdas, and how the components are stored
        "units": [[unit.label, unit.n_lambdas, _form(unit)] for unit in adapter.scaling.units],
    }


def _form(unit: CompactUnit) -> str:
    if unit.components is None:
        return _WHOLE
    return _ROWS if unit.in_rows else _DIM


@dataclass(frozen=True)
class _Files:
    """The files of an adapter that fit together. config is JSON-able."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def read_adapter(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments of `Adapter`, bit for bit as `write_adapter` wrote them.

    `BadInputError` naming the file that is missing, damaged, changed since it was written, of a different kind or of a
    newer version, or what is missing in it or inconsistent.
    """
    config, path = _read_config(Path(folder)), Path(folder) / TENSORS
    _, tensors = read_tensors(path, FORMAT, VERSION)
    if hashlib.sha256(path.read_bytes()).hexdigest() != _field(config, "tensors_sha256", str):
        raise BadInputError(f"{str(path)!r} is not the file that was saved with {CONFIG}: its SHA-256 differs")
    files, history = _Files(config, tensors), _read_history(Path(folder) / HISTORY)
    method = _field(config, "method", str)
    if method not in ADAPTER_METHODS:
        raise BadInputError(f"{CONFIG}: method {method!r} is not one of {', '.join(ADAPTER_METHODS)}")
    classifier, base = _classifiers(files)
    dim = classifier.vectors.shape[1]
    scaling = _scaling(files, dim)
    return {
        "method": method,
        "scaling": scaling,
        "learned": _learned(files, method, scaling, dim),
        "classifier": classifier,
        "base_classifier": base,
        "parameters": _field(config, "parameters", int),
        "epochs": _field(config, "epochs", int),
        "learning_rate": _field(config, "learning_rate", (int, float, type(None))),
        # no times are saved
        "seconds": 0.0,
        "history": history,
        "model_info": _field(config, "model", dict),
        "accuracy": Accuracy.of(_field(config, "accuracy", dict)),
        **{name: _field(config, name, dict) for name in ("settings", "spectra")},
    }


def _classifiers(files: _Files) -> tuple[Classifier, Classifier]:
    config = files.config
    names = _field(config, "class_names", list)
    if not all(isinstance(name, str) for name in names):
        raise BadInputError(f"{CONFIG}: 'class_names' holds something other than names")
    kind = _choice(config, "classifier", ("text", "means"))
    vectors = _tensor(files, "class_vectors", (len(names), None))
    base = files.tensors.get("base_class_vectors", vectors)
    scale, base_scale = (float(_field(config, key, (int, float))) for key in ("logit_scale", "base_logit_scale"))
    bias = float(_field(config, "logit_bias", (int, float))) if "logit_bias" in config else None
    adapted = Classifier(kind, tuple(names), vectors, scale, logit_bias=bias)
    return adapted, replace(adapted, vectors=base, logit_scale=base_scale)


def _scaling(files: _Files, dim: int) -> CompactScaling:
    config = files.config
    listed = [_listed(entry) for entry in _field(config, "units", list)]
    parts: dict[str, Iterator[Tensor | None]] = {_WHOLE: repeat(None)}
    for form in (_ROWS, _DIM):
        counts = [n for _, n, own in listed if own == form]
        stored = torch.zeros(0, dim, dtype=torch.float16)
        if any(counts):
            stored = _tensor(files, f"components.{form}", (sum(counts), None))
        parts[form] = iter(stored.split(counts))
    with_mean = [label for label, _, form in listed if form != _WHOLE]
    means = dict(zip(with_mean, _tensor(files, "means", (len(with_mean), dim)), strict=True)) if with_mean else {}
    units = [CompactUnit(label, means.get(label), next(parts[form]), form == _ROWS) for label, _, form in listed]
    return CompactScaling(
        tuple(units),
        _choice(config, "mean", ("drop", "keep")),
        _choice(config, "rest", ("keep", "mean", "zero")),
        _tensor(files, "rest_mean", (dim,)),
    )


def _listed(entry: Any) -> tuple[str, int, str]:
    match entry:
        case [str(label), int(n), str(form)] if n >= 0 and form in (_ROWS, _DIM, _WHOLE):
            return label, n, form
    raise BadInputError(f"{CONFIG}: 'units' holds {entry!r}, expected [label, count, form]")


def _learned(files: _Files, method: str, scaling: CompactScaling, dim: int) -> dict[str, Tensor]:
    learned = {}
    if "lambdas" in ADAPTER_METHODS[method].learns:
        learned["lambdas"] = _tensor(files, "learned.lambdas", (sum(unit.n_lambdas for unit in scaling.units),))
    if "map" in ADAPTER_METHODS[method].learns:
        learned["map"] = _tensor(files, "learned.map", (dim, dim))
        learned["bias"] = _tensor(files, "learned.bias", (dim,))
    return learned


def _tensor(files: _Files, name: str, shape: tuple[int | None, ...]) -> Tensor:
    if name not in files.tensors:
        raise BadInputError(f"{TENSORS} lacks {name!r}, which {CONFIG} refers to")
    tensor = files.tensors[name]
    fits = tensor.ndim == len(shape) and all(w is None or w == g for w, g in zip(shape, tensor.shape, strict=False))
    if not fits:
        expected = tuple("any" if size is None else size for size in shape)
        raise BadInputError(f"{TENSORS}: {name!r} has shape {tuple(tensor.shape)}, {CONFIG} says {expected}")
    return tensor


def _choice(config: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> Any:
    value = _field(config, name, str)
    if value not in allowed:
        raise BadInputError(f"{CONFIG}: {name!r} is {value!r}, expected one of {', '.join(allowed)}")
    return value


def refuse_other_model(expected: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    """`BadInputError` naming what differs: sizes first, then weights, then the keys of the preprocessing.

    Both are as `VisionModel.describe` gives them. The dtype and the name may differ: they change no embedding beyond
    rounding.
    """
    name = got.get("name")
    listed = _differences(expected, got, ("n_layers", "n_heads", "width", "dim"))
    if listed:
        raise BadInputError(f"the adapter does not fit model {name!r}: it was made for {listed}")
    if expected.get("fingerprint") != got.get("fingerprint"):
        raise BadInputError(
            f"the adapter was made for other weights than model {name!r} has: fingerprint "
            f"{str(expected.get('fingerprint'))[:12]}... expected, {str(got.get('fingerprint'))[:12]}... found"
        )
    different = preprocessing_differences(expected.get("preprocessing"), got.get("preprocessing"))
    if different:
        listed = ", ".join(f"{key} {wanted} (model: {found})" for key, wanted, found in different)
        raise BadInputError(f"the adapter was made with a different preprocessing than model {name!r} has: {listed}")


def _differences(expected: Mapping[str, Any], got: Mapping[str, Any], keys: Sequence[str]) -> str:
    different = [key for key in keys if expected.get(key) != got.get(key)]
    return ", ".join(f"{key} {expected.get(key)} (model: {got.get(key)})" for key in different)
