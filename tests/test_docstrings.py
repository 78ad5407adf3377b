"""Public docstrings in numpydoc form: every parameter with its type, what is returned, sections in their order."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass
from functools import reduce
from importlib import import_module
from typing import Any

import pytest
from numpydoc.validate import validate

import residualign

# classes that users hold in their hands, beside the names of the public face
CLASSES = (
    "adapter.adapter.Adapter",
    "classification.classifier.Classifier",
    "data.split.ImageData",
    "data.split.Split",
    "decomposition.contributions.Contributions",
    "geometry.result.Geometry",
    "location.result.Location",
    "models.vision_model.VisionModel",
    "report.report.Report",
    "selection.select.Selection",
    "similarity.comparison.Comparison",
    "spectrum.moments.Moments",
    "spectrum.spectrum.Spectra",
    "spectrum.spectrum.Spectrum",
    "store.store.Store",
    "store.store.StoreSplit",
    "text.explanation.Explanation",
)
# sections unknown or out of order; parameters missing, unknown, out of order or without words; results unsaid. A type
# may be left out (PR04) where a line refers to another function's parameters
ERRORS = {"GL06", "GL07", "GL08", "SS01", "PR01", "PR02", "PR03", "PR07", "PR10", "RT01", "RT03", "YD01"}


def _methods(path: str) -> list[str]:
    module, _, name = path.rpartition(".")
    kind = getattr(import_module(f"residualign.{module}"), name)
    return [f"{path}.{member}" for member in vars(kind) if _is_public_method(kind, member)]


def _is_public_method(kind: type, name: str) -> bool:
    member = inspect.getattr_static(kind, name)
    member = getattr(member, "__func__", member)
    return not name.startswith("_") and inspect.isfunction(member)


# by the file it is in: `location.locate` is a function and also a file, whose docstring would be read instead
FUNCTIONS = [
    f"{getattr(residualign, name).__module__.removeprefix('residualign.')}.{name}"
    for name in residualign.__all__
    if name[0].islower()
]
METHODS = [method for path in CLASSES for method in _methods(path)]


def _errors(name: str) -> list[tuple[str, str]]:
    found = validate(f"residualign.{name}")
    text = inspect.getdoc(_found(name)) or ""
    has_section = "\n---" in text
    ignored = set()
    if isinstance(_found(name), type) and ("Attributes\n---" in text or not is_dataclass(_found(name))):
        # a class that users do not make themselves says what it holds, not what it is made from
        ignored.add("PR01")
    if name in METHODS and not has_section and len(inspect.signature(_found(name)).parameters) <= 3:
        # a method that takes little may say all of it in a line or two
        ignored |= {"PR01", "RT01", "YD01"}
    return [(code, text) for code, text in found["errors"] if code in ERRORS - ignored]


def _found(name: str) -> Any:
    """The object of this path below the package."""
    parts = ["residualign", *name.split(".")]
    for i in range(len(parts) - 1, 0, -1):
        try:
            module = import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, parts[i:], module)
    raise AssertionError(f"nothing is at {name}")


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES, *METHODS])
def test_numpydoc(name: str) -> None:
    assert not _errors(name)
