"""Load a model, and check in each requested floating-point type that its units sum to its output."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from residualign.errors import BadInputError, refuse_bare_text
from residualign.load import TOLERANCES, load_model, prove
from residualign.models.names import RegisteredModel, registered_models
from residualign.models.vision_model import VisionModel

__all__ = ["CheckedModel", "RefusedModel", "SumCheck", "check_model", "differences", "peak_memory"]


@dataclass(frozen=True)
class SumCheck:
    """The residual error on the probe batch in one dtype, and the largest error that is accepted."""

    dtype: str
    error: float
    tolerance: float


@dataclass(frozen=True)
class CheckedModel:
    """A model that was accepted. revision: the commit, of models from the hub in transformers format.

    library, family: package and class of its module. units: how many of each kind. differs: where the model deviates
    from its entry in the registry, in words. peak_memory: the most memory this process has held, in bytes, or None.
    """

    name: str
    source: str
    revision: str | None
    library: str
    family: str
    fingerprint: str
    units: dict[str, int]
    width: int
    dim: int
    parameters: int
    sums: tuple[SumCheck, ...]
    preprocessing: dict[str, Any]
    text: bool
    differs: tuple[str, ...]
    seconds: float
    peak_memory: int | None
    passed: ClassVar[bool] = True

    def describe(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {"passed": self.passed, **asdict(self)}


@dataclass(frozen=True)
class RefusedModel:
    """A model that cannot be used. reason: why, in one sentence. sums: the checks it passed before."""

    name: str
    reason: str
    sums: tuple[SumCheck, ...]
    seconds: float
    passed: ClassVar[bool] = False

    def describe(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {"passed": self.passed, **asdict(self)}


def check_model(
    name: str, dtypes: Sequence[str] = ("float32", "float64"), device: str = "cpu"
) -> CheckedModel | RefusedModel:
    """Load the model (a hub model is downloaded) and check in each dtype that its units sum to its output.

    Loaded once, in the widest dtype, and converted downwards, so that every check is of the checkpoint's own weights.
    What `load_model` refuses is returned as a `RefusedModel`; disk and memory that run out are raised.
    """
    refuse_bare_text("dtypes", dtypes)
    began = time.perf_counter()
    sums: list[SumCheck] = []
    try:
        widest, *others = sorted(dict.fromkeys(dtypes), key=lambda dtype: TOLERANCES[getattr(torch, dtype)])
        model = load_model(name, device=device, dtype=widest)
        sums.append(_sum_check(widest, model.residual_error))
        for dtype in others:
            model.to(model.device, getattr(torch, dtype))
            sums.append(_sum_check(dtype, prove(model, name)))
    except BadInputError as error:
        return RefusedModel(name, str(error), tuple(sums), time.perf_counter() - began)
    registered = registered_models().get(name) if model.source != name else None
    return CheckedModel(
        name=name,
        source=model.source,
        revision=model.revision,
        library=type(model.module).__module__.partition(".")[0],
        family=type(model.module).__name__,
        fingerprint=model.fingerprint,
        units={kind: len(model.units.of_kind(kind)) for kind in ("embedding", "mlp", "head")},
        width=model.width,
        dim=model.dim,
        parameters=_n_parameters(model),
        sums=tuple(sums),
        preprocessing=model.preprocess.describe(),
        text=model.has_text,
        differs=() if registered is None else differences(registered, model),
        seconds=time.perf_counter() - began,
        peak_memory=peak_memory(),
    )


def differences(registered: RegisteredModel, model: VisionModel) -> tuple[str, ...]:
    """Where a loaded model deviates from its entry in the registry, one phrase each."""
    found = {
        "layers": len(model.tower.blocks),
        "heads": model.n_heads,
        "width": model.width,
        "dim": model.dim,
        "image_size": model.tower.image_size,
        "parameters": _n_parameters(model),
        "text": model.has_text,
    }
    return tuple(
        f"{name} {value} (registered: {getattr(registered, name)})"
        for name, value in found.items()
        if value != getattr(registered, name)
    )


def _n_parameters(model: VisionModel) -> int:
    return sum(tensor.numel() for tensor in model.tower.tensors.values())


def _sum_check(dtype: str, error: float) -> SumCheck:
    return SumCheck(dtype, error, TOLERANCES[getattr(torch, dtype)])


_STATUS = Path("/proc/self/status")


def peak_memory() -> int | None:
    """Peak resident memory of this process so far, in bytes; None if the system does not report it."""
    if _STATUS.exists():
        # getrusage would count what the parent held before this program was started
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
