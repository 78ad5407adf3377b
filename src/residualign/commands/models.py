"""`residualign models`: the models that have a short name; `models check`: whether a model's units add up."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from residualign._progress import SILENT, Progress
from residualign.commands._flags import MACHINE, OUTPUT, REPEATED, Device, DTypeName, Overwrite, argument, flag
from residualign.commands._request import NEUTRAL

if TYPE_CHECKING:
    from residualign.models.names import RegisteredModel
    from residualign.models.vision_model import VisionModel

__all__ = [
    "BOUNDS",
    "METHODS",
    "CheckOutcome",
    "CheckRequest",
    "CheckedModel",
    "ModelsOutcome",
    "ModelsRequest",
    "RefusedModel",
    "SumCheck",
    "check",
    "check_model",
    "differences",
    "run",
]

METHODS = ("coarse", "spectral-output", "residual-heads", "residual", "linear")
"""The methods whose numbers are counted."""

BOUNDS = ("residual", "residual-heads")
"""Methods that learn at most the number given: the spectrum decides."""


@dataclass(frozen=True, kw_only=True)
class ModelsRequest:
    """List the models that have a short name, their sizes, and how many numbers each method learns on them.

    `models check NAME...` loads any model, listed or not, and checks that its units sum to its output.
    """


@dataclass(frozen=True)
class ModelsOutcome:
    """The registered models. learned: by model and method, the numbers learned; of `BOUNDS`, at most so many."""

    entries: tuple[RegisteredModel, ...]
    learned: dict[str, dict[str, int]]

    def to_json(self) -> dict[str, Any]:
        """What `models --json` prints."""
        return {
            "models": [
                {
                    **{key: getattr(entry, key) for key in entry.__dataclass_fields__},
                    "learned": {method: self.learned[entry.name][method] for method in METHODS},
                    "learned_at_most": [method for method in METHODS if method in BOUNDS],
                }
                for entry in self.entries
            ]
        }


def run(request: ModelsRequest, progress: Progress = SILENT) -> ModelsOutcome:
    """The registered models, and the numbers that methods learn on them. Loads none."""
    from residualign.fitting.methods import most_parameters
    from residualign.models.names import registered_models

    entries = tuple(registered_models().values())
    learned = {
        entry.name: most_parameters(
            entry.layers,
            entry.heads,
            entry.width,
            entry.dim,
            attention_pooled=entry.pooling == "attention",
            methods=METHODS,
        )
        for entry in entries
    }
    return ModelsOutcome(entries, learned)


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """Load each model (a hub model is downloaded) and check that its units sum to its output.

    A model that is refused does not keep the others from being checked; the exit code is then 2.
    """

    names: Annotated[
        tuple[str, ...],
        argument(
            "NAME...",
            "Models: registered names, directories in transformers format, hub ids (org/name, hf:org/name@revision), "
            "open_clip:NAME/tag, timm:NAME.",
        ),
    ]
    dtype: Annotated[
        tuple[DTypeName, ...],
        flag("--dtype", MACHINE, "Floating-point type the encoder runs in" + REPEATED + "."),
    ] = ("float32", "float64")
    device: Device = "cpu"
    out: Annotated[Path | None, flag("--out", OUTPUT, "Output file (JSON).", metavar="FILE"), NEUTRAL] = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class CheckOutcome:
    """What was found of every model, in the order of their names."""

    request: CheckRequest
    models: tuple[CheckedModel | RefusedModel, ...]

    @property
    def passed(self) -> bool:
        """Whether every model was accepted."""
        return all(isinstance(one, CheckedModel) for one in self.models)

    @property
    def exit_code(self) -> int:
        """2 where a model was refused: what was named cannot be used."""
        return 0 if self.passed else 2

    def to_json(self) -> dict[str, Any]:
        """What `models check --json` prints, and what `--out` gets."""
        return {"passed": self.passed, "models": [one.describe() for one in self.models]}


def check(request: CheckRequest, progress: Progress = SILENT) -> CheckOutcome:
    """Check model after model; write what was found where `out` says."""
    from residualign._files import json_bytes, publish, saying_what_is_kept

    if request.out is not None:
        _check_out(request.out, request.overwrite)
    found: list[CheckedModel | RefusedModel] = []
    for name in request.names:
        progress.note(f"checking {name}")
        found.append(check_model(name, request.dtype, request.device))
        progress.done(found[-1], found[-1].seconds)
    outcome = CheckOutcome(request, tuple(found))
    if request.out is not None:
        with saying_what_is_kept(request.out, "nothing was written there"):
            request.out.parent.mkdir(parents=True, exist_ok=True)
            publish(request.out, json_bytes(outcome.to_json()))
    return outcome


@dataclass(frozen=True)
class SumCheck:
    """The residual error on the probe batch in one dtype, and the largest with which a model is accepted."""

    dtype: str
    error: float
    tolerance: float


@dataclass(frozen=True)
class CheckedModel:
    """A model that was accepted. revision: the commit, of models from the hub in transformers format.

    library, family: whose module it is, and of which class. units: how many of each kind. differs: where the model is
    not what the registry says of it, in words. peak_memory: bytes this process held at most so far, or None.
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

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return {"passed": True, **asdict(self)}


@dataclass(frozen=True)
class RefusedModel:
    """A model that cannot be used, and the sentence that says why. sums: the dtypes it had passed before."""

    name: str
    reason: str
    sums: tuple[SumCheck, ...]
    seconds: float

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return {"passed": False, **asdict(self)}


def check_model(
    name: str, dtypes: Sequence[str] = ("float32", "float64"), device: str = "cpu"
) -> CheckedModel | RefusedModel:
    """Load the model (a hub model is downloaded) and check in each dtype that its units sum to its output.

    Loaded once, in the widest dtype, and converted downwards, so that every check is of the checkpoint's own weights.
    What `load_model` refuses is returned as a `RefusedModel`; disk and memory that run out are raised.
    """
    import torch

    from residualign.errors import BadInputError
    from residualign.load import TOLERANCES, check_sum, load_model
    from residualign.models.names import find_registered

    began = time.perf_counter()
    sums: list[SumCheck] = []
    try:
        widest, *others = sorted(dict.fromkeys(dtypes), key=lambda dtype: TOLERANCES[getattr(torch, dtype)])
        model = load_model(name, device=device, dtype=widest)
        sums.append(_sum_check(widest, model.residual_error))
        for dtype in others:
            model.to(model.device, getattr(torch, dtype))
            sums.append(_sum_check(dtype, check_sum(model.tower, name)))
    except BadInputError as error:
        return RefusedModel(name, str(error), tuple(sums), time.perf_counter() - began)
    registered = find_registered(name) if model.source != name else None
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
    """Where a loaded model is not what the registry says, one phrase each."""
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
    import torch

    from residualign.load import TOLERANCES

    return SumCheck(dtype, error, TOLERANCES[getattr(torch, dtype)])


_STATUS = Path("/proc/self/status")


def peak_memory() -> int | None:
    """Bytes of the largest resident set of this process so far; None where the system does not tell."""
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


def _check_out(path: Path, overwrite: bool) -> None:
    from residualign.errors import BadInputError

    if path.is_dir():
        raise BadInputError(f"{str(path)!r} is a folder, expected a file name")
    if path.exists() and not overwrite:
        raise BadInputError(f"{str(path)!r} exists; add --overwrite to replace it, or choose another name")
