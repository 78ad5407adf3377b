"""The methods: what each learns, and what its lambdas multiply.

A new method is one function from spectra to scaled units and one entry of `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from residualign._messages import did_you_mean
from residualign.errors import BadInputError
from residualign.fitting.coefficients import OUTPUT, MeanMode, RestMode, ScaledUnit, Scaling
from residualign.spectrum.spectrum import Spectra, Spectrum, leading, truncate
from residualign.units import UnitKind, Units

__all__ = [
    "ADAPTER_METHODS",
    "METHODS",
    "SELECT",
    "Loss",
    "Method",
    "StartMode",
    "build_scaling",
    "check_choice",
    "component_scaling",
    "get_method",
    "most_parameters",
    "start_parameters",
]

StartMode = Literal["ones", "randn"]

Loss = Literal["softmax", "sigmoid"]

Learned = Literal["lambdas", "map", "class_residual"]

ScaledUnits = tuple[ScaledUnit, ...]

REFUSED = {
    "select": "'select' learns nothing, so it is not fitted: `residualign select` ranks heads and keeps the best; "
    "with --adapter DIR it saves them as an adapter",
    "finetune": "'finetune' trains the encoder itself, which needs the images and not a store; it is not available yet",
}


@dataclass(frozen=True)
class Method:
    """What a method learns, what its lambdas multiply, and its defaults.

    units: from spectra and the variance threshold to scaled units. mean and rest: the defaults, None if the method has
    no such choice (the option then changes nothing). learns: the groups of parameters fitted; `map` is a (dim, dim)
    matrix and a bias on the embedding, `class_residual` a (class, dim) term added to the class vectors.
    """

    name: str
    units: Callable[[Spectra, float], ScaledUnits]
    mean: MeanMode | None
    rest: RestMode | None
    learns: tuple[Learned, ...] = ("lambdas",)


def _leading(spectra: Spectra, kinds: Sequence[UnitKind], threshold: float, count: int | None = None) -> ScaledUnits:
    """The leading components of all units of some kinds; at threshold 1 without a count all of them."""
    labels = [unit.label for unit in spectra.units.of_kind(*kinds)]
    cut = [leading(truncate(spectra[label], threshold), count) for label in labels]
    return tuple(ScaledUnit(label, one.mean, one.components) for label, one in zip(labels, cut, strict=True))


def _heads_and_mlps(spectra: Spectra, threshold: float) -> ScaledUnits:
    return _leading(spectra, ("mlp", "head"), 1.0)


def _leading_heads(spectra: Spectra, threshold: float) -> ScaledUnits:
    return _leading(spectra, ("head",), threshold)


def _whole_heads(spectra: Spectra, threshold: float) -> ScaledUnits:
    heads = spectra.units.of_kind("head")
    return tuple(ScaledUnit(unit.label, torch.zeros_like(spectra[unit.label].mean), None) for unit in heads)


def _output(spectra: Spectra, threshold: float) -> ScaledUnits:
    return (ScaledUnit(OUTPUT, spectra.output.mean, spectra.output.components),)


def _nothing(spectra: Spectra, threshold: float) -> ScaledUnits:
    return ()


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("residual", _heads_and_mlps, mean="keep", rest="keep"),
        Method("residual-heads", _leading_heads, mean="keep", rest="zero"),
        Method("coarse", _whole_heads, mean=None, rest="zero"),
        Method("spectral-output", _output, mean="keep", rest=None),
        Method("linear", _nothing, mean=None, rest=None, learns=("map",)),
        Method("joint", _heads_and_mlps, mean="keep", rest="keep", learns=("lambdas", "class_residual")),
    )
}
"""Every method of `fit`, by name."""

SELECT = Method("select", _nothing, mean=None, rest="mean")
"""Heads chosen by a score (`residualign select`): all lambdas are one, nothing is fitted."""

ADAPTER_METHODS = {**METHODS, SELECT.name: SELECT}
"""Every method an adapter can have."""


def get_method(name: str) -> Method:
    """The method of this name; `BadInputError` with the reason if it cannot be fitted."""
    if name in REFUSED:
        raise BadInputError(REFUSED[name])
    if name not in METHODS:
        raise BadInputError(f"no method {name!r}{did_you_mean(name, METHODS)}; methods are {', '.join(METHODS)}")
    return METHODS[name]


def build_scaling(
    method: Method,
    spectra: Spectra,
    mean: str | None = None,
    rest: str | None = None,
    variance_threshold: float = 0.9,
) -> Scaling:
    """What the lambdas of a method multiply; mean and rest replace its defaults.

    variance_threshold: share of variance in (0, 1] that the components of `residual-heads` explain. Options that a
    method does not have (`Method.mean`, `Method.rest` None) change nothing.
    """
    if not 0 < variance_threshold <= 1:
        raise BadInputError(f"variance_threshold is a share of variance in (0, 1], got {variance_threshold}")
    return _scaling(method.units(spectra, variance_threshold), spectra, mean, rest, method.mean, method.rest)


def component_scaling(
    spectra: Spectra,
    kinds: Sequence[UnitKind] = ("mlp", "head"),
    variance_threshold: float = 1.0,
    count: int | None = None,
    mean: str = "keep",
    rest: str = "keep",
) -> Scaling:
    """Leading components of all units of some kinds: a scaling that no method has, for `fit_method(scaling=...)`.

    variance_threshold: share of each unit's variance, in (0, 1], that its components explain. count: the most
    components per unit. `BadInputError` for a count below one, and as `build_scaling`.
    """
    if count is not None and count < 1:
        raise BadInputError(f"a unit keeps at least one component, got {count}")
    return _scaling(_leading(spectra, kinds, variance_threshold, count), spectra, mean, rest, "keep", "keep")


def start_parameters(
    method: Method, scaling: Scaling, n_classes: int, dim: int, start: str = "ones", seed: int = 0
) -> dict[str, Tensor]:
    """Where a fit starts, float64: lambdas at 1 or 1 + N(0, 1), the map at the identity, residuals at zero."""
    check_choice("start", start, get_args(StartMode))
    parameters: dict[str, Tensor] = {}
    if "lambdas" in method.learns:
        parameters["lambdas"] = torch.ones(scaling.n_lambdas, dtype=torch.float64)
        if start == "randn":
            generator = torch.Generator().manual_seed(seed)
            parameters["lambdas"] += torch.randn(scaling.n_lambdas, dtype=torch.float64, generator=generator)
    if "map" in method.learns:
        parameters["map"] = torch.eye(dim, dtype=torch.float64)
        parameters["bias"] = torch.zeros(dim, dtype=torch.float64)
    if "class_residual" in method.learns:
        parameters["class_residual"] = torch.zeros(n_classes, dim, dtype=torch.float64)
    return parameters


def _scaling(
    units: ScaledUnits,
    spectra: Spectra,
    mean: str | None,
    rest: str | None,
    default_mean: MeanMode | None,
    default_rest: RestMode | None,
) -> Scaling:
    scaled = {unit.label for unit in units}
    others = [spectra[label].mean for label in spectra.units.labels if label not in scaled]
    rest_mean = torch.stack(others).sum(dim=0) if others else torch.zeros_like(spectra.output.mean)
    chosen_mean = _option("mean", mean, get_args(MeanMode), default_mean)
    return Scaling(units, chosen_mean, _option("rest", rest, get_args(RestMode), default_rest), rest_mean)


def _option(name: str, wanted: str | None, allowed: Sequence[Any], default: Any) -> Any:
    """The given option or the default; "keep", which changes nothing, if the method has no such choice."""
    check_choice(name, wanted, allowed)
    return "keep" if default is None else wanted or default


def check_choice(name: str, value: str | None, allowed: Sequence[str]) -> None:
    """`BadInputError` for a value that is neither allowed nor None."""
    if value is not None and value not in allowed:
        raise BadInputError(f"{name} is one of {', '.join(allowed)}, got {value!r}")


def most_parameters(
    n_layers: int,
    n_heads: int,
    width: int,
    dim: int,
    *,
    attention_pooled: bool = False,
    methods: Sequence[str] = tuple(METHODS),
) -> dict[str, int]:
    """How many parameters each method learns if every unit has as many components as its map allows.

    Exact for `coarse`, `spectral-output` and `linear` if the images span the space; an upper bound for `residual` and
    `residual-heads`: directions without variance are dropped, and `residual-heads` keeps the components that explain
    0.9 of the variance. `joint` is counted without the dim parameters per class that it also learns.

    A head spans head_dim + 2 directions, an MLP width + 1, neither more than dim. attention_pooled: in a tower whose
    tokens are pooled by attention, heads keep at most head_dim components, MLPs dim, and the pooling has its own MLP.
    Counted by the functions that `fit` uses, on views of a single zero.

    >>> counts = most_parameters(n_layers=12, n_heads=12, width=768, dim=512)
    >>> counts["coarse"], counts["spectral-output"], counts["residual-heads"]
    (144, 512, 9504)
    """
    head_dim = width // n_heads
    head = min(head_dim if attention_pooled else head_dim + 2, dim)
    sizes = {"embedding": 0, "head": head, "mlp": min(width + 1, dim)}
    spectra = _empty_spectra(Units(n_layers, n_heads, attention_pooled), sizes, dim)
    counts = {}
    for name in methods:
        # at threshold 1 no component is cut
        scaling = build_scaling(METHODS[name], spectra, variance_threshold=1.0)
        parameters = start_parameters(METHODS[name], scaling, n_classes=0, dim=dim)
        counts[name] = sum(tensor.numel() for tensor in parameters.values())
    return counts


def _empty_spectra(units: Units, n_components: dict[str, int], dim: int) -> Spectra:
    """Spectra of these sizes that hold no numbers."""
    # only shapes count; the meta device would provide them too, but takes seconds to start
    zero = torch.zeros(())
    sizes = [*(n_components[unit.kind] for unit in units), dim]
    *of_units, output = (Spectrum(zero.expand(dim), zero.expand(n, dim), zero.expand(n), 1.0, 1) for n in sizes)
    return Spectra(units, tuple(of_units), output=output, source="sizes alone")
