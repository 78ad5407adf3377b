"""Spectral alignment of vision-language models.

An image embedding is an exact sum of residual units; each unit lives in few principal components; one learned scale per
component aligns a frozen encoder with a task. Source of the method: ResiDual, arXiv 2411.00246.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from residualign.adapter.adapter import load_adapter
    from residualign.adapter.fit import fit
    from residualign.data import load_data
    from residualign.decomposition.contributions import decompose
    from residualign.errors import BadInputError, RunError
    from residualign.extraction import extract, fit_spectrum
    from residualign.geometry import measure_geometry
    from residualign.load import load_model
    from residualign.location import locate
    from residualign.report.build import build_report
    from residualign.selection.select import select
    from residualign.similarity.spectral import compare_spectra
    from residualign.store import Store
    from residualign.text.explain import explain

# name -> module; imported at first use, so that `import residualign` stays fast and loads no model library
_HOMES = {
    "BadInputError": "errors",
    "RunError": "errors",
    "Store": "store",
    "build_report": "report.build",
    "compare_spectra": "similarity.spectral",
    "decompose": "decomposition.contributions",
    "explain": "text.explain",
    "extract": "extraction",
    "fit": "adapter.fit",
    "fit_spectrum": "extraction",
    "load_adapter": "adapter.adapter",
    "load_data": "data",
    "load_model": "load",
    "locate": "location",
    "measure_geometry": "geometry",
    "select": "selection.select",
}

__all__ = [
    "BadInputError",
    "RunError",
    "Store",
    "build_report",
    "compare_spectra",
    "decompose",
    "explain",
    "extract",
    "fit",
    "fit_spectrum",
    "load_adapter",
    "load_data",
    "load_model",
    "locate",
    "measure_geometry",
    "select",
]
__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'residualign' has no attribute {name!r}")
    return getattr(import_module(f"residualign.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
