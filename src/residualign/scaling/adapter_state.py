"""Between an adapter and its two files: which number goes where, and what must hold when it comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from residualign.adapter.compact import CompactScaling, CompactUnit
from residualign.adapter.files import CONFIG, TENSORS, AdapterFiles, field_of
from residualign.classification.classifier import Classifier
from residualign.errors import BadInputError
from residualign.fitting.methods import ADAPTER_METHODS

if TYPE_CHECKING:
    from residualign.adapter.adapter import Adapter

__all__ = ["from_files", "to_config", "to_tensors"]

_KEPT = ("accuracy", "settings", "spectra")
_ROWS, _DIM, _WHOLE = "rows", "dim", "whole"


def to_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Everything numeric, by name; components of units of one kind one after another."""
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


def to_config(adapter: Adapter) -> dict[str, Any]:
    """Everything else, JSON-able: no clock, no machine."""
    return {
        "method": adapter.method,
        "mean": adapter.scaling.mean,
        "rest": adapter.scaling.rest,
        "parameters": adapter.parameters,
        "epochs": adapter.epochs,
        "learning_rate": adapter.learning_rate,
        "accuracy": adapter.accuracy,
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


def from_files(files: AdapterFiles) -> dict[str, Any]:
    """The arguments of `Adapter`. `BadInputError` naming what is missing or does not fit together."""
    config = files.config
    method = field_of(config, "method", str)
    if method not in ADAPTER_METHODS:
        raise BadInputError(f"{CONFIG}: method {method!r} is none of {', '.join(ADAPTER_METHODS)}")
    classifier, base = _classifiers(files)
    dim = classifier.vectors.shape[1]
    scaling = _scaling(files, dim)
    return {
        "method": method,
        "scaling": scaling,
        "learned": _learned(files, method, scaling, dim),
        "classifier": classifier,
        "base_classifier": base,
        "parameters": field_of(config, "parameters", int),
        "epochs": field_of(config, "epochs", int),
        "learning_rate": field_of(config, "learning_rate", (int, float, type(None))),
        "history": tuple(dict(record) for record in files.history),
        "model_info": field_of(config, "model", dict),
        **{name: field_of(config, name, dict) for name in _KEPT},
    }


def _classifiers(files: AdapterFiles) -> tuple[Classifier, Classifier]:
    config = files.config
    names = field_of(config, "class_names", list)
    if not all(isinstance(name, str) for name in names):
        raise BadInputError(f"{CONFIG}: 'class_names' holds something else than names")
    kind = _choice(config, "classifier", ("text", "means"))
    vectors = _tensor(files, "class_vectors", (len(names), None))
    base = files.tensors.get("base_class_vectors", vectors)
    scale, base_scale = (float(field_of(config, key, (int, float))) for key in ("logit_scale", "base_logit_scale"))
    bias = float(field_of(config, "logit_bias", (int, float))) if "logit_bias" in config else None
    return (
        Classifier(kind, tuple(names), vectors, scale, logit_bias=bias),
        Classifier(kind, tuple(names), base, base_scale, logit_bias=bias),
    )


def _scaling(files: AdapterFiles, dim: int) -> CompactScaling:
    config = files.config
    listed = [_listed(entry) for entry in field_of(config, "units", list)]
    counts = {form: sum(n for _, n, f in listed if f == form) for form in (_ROWS, _DIM)}
    stored = {form: _tensor(files, f"components.{form}", (count, None)) for form, count in counts.items() if count}
    with_mean = [label for label, _, form in listed if form != _WHOLE]
    means = dict(zip(with_mean, _tensor(files, "means", (len(with_mean), dim)), strict=True)) if with_mean else {}
    first = dict.fromkeys(counts, 0)
    units = []
    for label, n, form in listed:
        if form == _WHOLE:
            units.append(CompactUnit(label, None, None))
            continue
        width = stored[form].shape[1] if form in stored else dim
        part = stored[form][first[form] : first[form] + n] if n else torch.zeros(0, width, dtype=torch.float16)
        first[form] += n
        units.append(CompactUnit(label, means[label].clone(), part, in_rows=form == _ROWS))
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


def _learned(files: AdapterFiles, method: str, scaling: CompactScaling, dim: int) -> dict[str, Tensor]:
    learned = {}
    if "lambdas" in ADAPTER_METHODS[method].learns:
        learned["lambdas"] = _tensor(files, "learned.lambdas", (sum(unit.n_lambdas for unit in scaling.units),))
    if "map" in ADAPTER_METHODS[method].learns:
        learned["map"] = _tensor(files, "learned.map", (dim, dim))
        learned["bias"] = _tensor(files, "learned.bias", (dim,))
    return learned


def _tensor(files: AdapterFiles, name: str, shape: tuple[int | None, ...]) -> Tensor:
    if name not in files.tensors:
        raise BadInputError(f"{TENSORS} lacks {name!r}, which {CONFIG} speaks of")
    tensor = files.tensors[name]
    fits = tensor.ndim == len(shape) and all(w is None or w == g for w, g in zip(shape, tensor.shape, strict=False))
    if not fits:
        expected = tuple("any" if size is None else size for size in shape)
        raise BadInputError(f"{TENSORS}: {name!r} has shape {tuple(tensor.shape)}, {CONFIG} says {expected}")
    return tensor


def _choice(config: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> Any:
    value = field_of(config, name, str)
    if value not in allowed:
        raise BadInputError(f"{CONFIG}: {name!r} is {value!r}, expected one of {', '.join(allowed)}")
    return value
