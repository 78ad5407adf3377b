"""`residualign models`: the models that have a short name; `models check`: whether a model's units add up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import MACHINE, OUTPUT, REPEATED, Device, Overwrite, argument, flag
from residualign.commands._request import NEUTRAL
from residualign.inputs.options import DTypeName

if TYPE_CHECKING:
    from residualign.model_check import CheckedModel, RefusedModel
    from residualign.models.names import RegisteredModel

__all__ = ["BOUNDS", "METHODS", "CheckOutcome", "CheckRequest", "ModelsOutcome", "ModelsRequest", "check", "run"]

METHODS = ("coarse", "spectral-output", "residual-heads", "residual", "linear")
"""The methods whose parameters are counted."""

BOUNDS = ("residual", "residual-heads")
"""Methods for which the number is an upper bound: the spectrum decides."""


@dataclass(frozen=True, kw_only=True)
class ModelsRequest:
    """List the models that have a short name, their sizes, and how many parameters each method learns on them.

    `models check NAME...` loads any model, listed or not, and checks that its units sum to its output.
    """


@dataclass(frozen=True, repr=False, eq=False)
class ModelsOutcome(Result):
    """The registered models. learned: parameters by model and method; for `BOUNDS`, an upper bound."""

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
    """The registered models, and the parameters that methods learn on them. Loads no model."""
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

    If a model is refused, the others are still checked, and the exit code is 2.
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
        flag(
            "--dtype",
            MACHINE,
            "Floating-point type the encoder runs in: float64, float32, float16 or bfloat16" + REPEATED + ".",
            metavar="TYPE",
        ),
    ] = ("float32", "float64")
    device: Device = "cpu"
    out: Annotated[Path | None, flag("--out", OUTPUT, "Output file (JSON).", metavar="FILE"), NEUTRAL] = None
    overwrite: Overwrite = False


@dataclass(frozen=True, repr=False, eq=False)
class CheckOutcome(Result):
    """The result of every model, in the order given."""

    request: CheckRequest
    models: tuple[CheckedModel | RefusedModel, ...]

    @property
    def passed(self) -> bool:
        """Whether every model was accepted."""
        return all(one.passed for one in self.models)

    @property
    def exit_code(self) -> int:
        """2 if a model was refused, else 0."""
        return 0 if self.passed else 2

    def to_json(self) -> dict[str, Any]:
        """What `models check --json` prints, and what `--out` gets."""
        return {"passed": self.passed, "models": [one.describe() for one in self.models]}


def check(request: CheckRequest, progress: Progress = SILENT) -> CheckOutcome:
    """Check one model after another; write the results to `out`, if given."""
    from residualign._files import json_bytes, publish, saying_what_is_kept
    from residualign.model_check import check_model
    from residualign.runs.files import check_output_file

    if request.out is not None:
        check_output_file(request.out, request.overwrite)
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
