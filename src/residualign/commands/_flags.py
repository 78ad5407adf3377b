"""Every flag of the command line, each defined once: the fields of requests name it, so it means the same everywhere.

Groups that several commands share are classes to inherit from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from residualign.commands._request import KEEPS_WORK, NEUTRAL
from residualign.inputs.options import (
    ClassifierName,
    DTypeName,
    InputOptions,
    LoadingOptions,
    PromptOptions,
    WordOptions,
)

INPUT, METHOD, OUTPUT, MACHINE = "Input", "Method", "Output", "Machine"
"""The panels of `--help`, in this order."""

SplitName = Literal["train", "val", "test"]
FormatName = Literal["json", "csv", "png", "svg", "pdf"]
MeanName = Literal["drop", "keep"]
RestName = Literal["keep", "mean", "zero"]

REPEATED = " (can be repeated)"


def flag(name: str, panel: str, help: str, **settings: Any) -> Any:
    """An option: its name, the panel of `--help` it is shown in, and what it means."""
    # what a default of None means is said in the help text
    settings.setdefault("show_default", True)
    return typer.Option(name, help=help, rich_help_panel=panel, **settings)


def argument(metavar: str, help: str) -> Any:
    """A positional argument."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


# Input

ModelName = Annotated[
    str,
    argument(
        "MODEL",
        "Model: mini, another name listed by `residualign models`, a directory in transformers format, a hub id, "
        "open_clip:NAME/tag, or timm:NAME.",
    ),
]
DataName = Annotated[
    str,
    argument(
        "DATA",
        "Data set: a folder with one folder per class, a folder of train|val|test.parquet or of tar shards, "
        "hf:org/name, or a registered name (digits, cifar10, ...).",
    ),
]
ModelOrStore = Annotated[str, argument("MODEL|STORE", "A model, followed by DATA; or an activation store on its own.")]
OptionalData = Annotated[
    str | None, argument("DATA", "Data set: a folder, hf:org/name, or a registered name. Leave out with a store.")
]
AdapterDir = Annotated[Path, argument("DIR", "Output directory of `residualign adapt`.")]
ImagePaths = Annotated[tuple[Path, ...], argument("IMAGE", "Image files, or folders of images.")]
Template = Annotated[
    tuple[str, ...],
    flag(
        "--template",
        INPUT,
        "Prompt template with one {} for the class name, or a YAML or JSON file of templates" + REPEATED + ".",
        metavar="TEXT",
    ),
]
Classes = Annotated[Path | None, flag("--classes", INPUT, "YAML or JSON file of class names.", metavar="FILE")]
Stream = Annotated[
    bool, flag("--stream", INPUT, "Stream a hub data set over the network instead of downloading it."), NEUTRAL
]
SkipBad = Annotated[bool, flag("--skip-bad", INPUT, "Skip unreadable images and count them."), NEUTRAL]
ModelPath = Annotated[
    str | None,
    flag("--model", INPUT, "Model of the adapter or store, if it has moved or is new here.", metavar="MODEL"),
]
Split = Annotated[SplitName, flag("--split", INPUT, "Split to use.")]
Dictionary = Annotated[
    Path | None,
    flag(
        "--dictionary",
        INPUT,
        "Text file of descriptions to choose from, one per line, `#` before headings. By default the model's own "
        "dictionary, or the one included in the package.",
        metavar="FILE",
    ),
]
Quick = Annotated[bool, flag("--quick", INPUT, "Use a small sample of the images, to try a command out.")]

# Method

Classifier = Annotated[
    ClassifierName | None,
    flag(
        "--classifier",
        METHOD,
        "Class vectors from text prompts or from class means. By default text if the model has a text tower.",
    ),
]
Reference = Annotated[
    str | None,
    flag(
        "--reference",
        METHOD,
        "Images, store or spectra file that principal components are computed from. By default the spectra that come "
        "with the model, or else the training split; for an analysis of one split, its images.",
        metavar="DATA",
    ),
]
Shots = Annotated[
    int | None,
    flag("--shots", METHOD, "Train on K images per class (few-shot). By default all.", metavar="K", min=1),
]
Mean = Annotated[
    MeanName | None,
    flag("--mean", METHOD, "Drop or keep the means of scaled units. By default what the method prescribes."),
]
Rest = Annotated[
    RestName,
    flag(
        "--rest",
        METHOD,
        "What to do with everything that is not scaled: keep it, replace it by its mean, or set it to zero.",
    ),
]
Seed = Annotated[int, flag("--seed", METHOD, "Random seed.", metavar="N", min=0)]
UnitLabels = Annotated[
    tuple[str, ...],
    flag(
        "--unit",
        METHOD,
        "Residual unit, such as L3.H7, L3.mlp or embedding; or a group: heads, mlps, all" + REPEATED + ".",
        metavar="LABEL",
    ),
]
VarianceThreshold = Annotated[
    float,
    flag(
        "--variance-threshold",
        METHOD,
        "Share of a unit's variance that its leading components must explain, above 0, at most 1.",
        metavar="SHARE",
    ),
]
ComponentIndex = Annotated[
    tuple[int, ...],
    flag("--component", METHOD, "Index of a principal component, from 0" + REPEATED + ".", metavar="N", min=0),
]

# Output

RunOut = Annotated[Path, flag("--out", OUTPUT, "Output directory.", metavar="DIR"), KEEPS_WORK]
OptionalOut = Annotated[
    Path | None, flag("--out", OUTPUT, "Output directory for tables and figures.", metavar="DIR"), NEUTRAL
]
Formats = Annotated[
    tuple[FormatName, ...],
    flag(
        "--format",
        OUTPUT,
        "File format of tables and figures in --out" + REPEATED + ". By default json, csv and png.",
    ),
    NEUTRAL,
]
StorePath = Annotated[
    str | None, flag("--store", OUTPUT, "Directory or URL of the activation store.", metavar="PATH"), KEEPS_WORK
]
GivenStore = Annotated[
    str | None,
    flag(
        "--store",
        INPUT,
        "Directory or URL of the run's activation store. By default where the run put it.",
        metavar="PATH",
    ),
]
"""A store that is only read: by default the one of the run."""
RequiredStorePath = Annotated[
    str, flag("--store", OUTPUT, "Directory or URL of the activation store.", metavar="PATH"), KEEPS_WORK
]
Overwrite = Annotated[bool, flag("--overwrite", OUTPUT, "Replace earlier output of this command."), NEUTRAL]
Top = Annotated[
    int, flag("--top", OUTPUT, "Number of entries to print, most relevant first.", metavar="N", min=1), NEUTRAL
]

# Machine

Device = Annotated[
    str, flag("--device", MACHINE, "Device the encoder runs on: cpu, cuda, ...", metavar="NAME"), NEUTRAL
]
DType = Annotated[
    DTypeName,
    flag(
        "--dtype",
        MACHINE,
        "Floating-point type the encoder runs in: float64, float32, float16 or bfloat16.",
        metavar="TYPE",
    ),
]
BatchSize = Annotated[int, flag("--batch-size", MACHINE, "Images per forward pass.", metavar="N", min=1), NEUTRAL]
Workers = Annotated[
    int,
    flag(
        "--workers",
        MACHINE,
        "Number of processes that read and resize images; 0 reads in the main process.",
        metavar="N",
        min=0,
    ),
    NEUTRAL,
]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Where the encoder runs, and in which floating-point type."""

    device: Device = "cpu"
    dtype: DType = "float32"


@dataclass(frozen=True, kw_only=True)
class Machine(Encoder):
    """The encoder, and how images reach it. Only `dtype` changes a number, by rounding."""

    batch_size: BatchSize = 32
    workers: Workers = 2


@dataclass(frozen=True, kw_only=True)
class Loading(Machine, LoadingOptions):
    """Reading images of a data set, or a sample of them."""

    stream: Stream = False
    skip_bad: SkipBad = False
    quick: Quick = False


@dataclass(frozen=True, kw_only=True)
class Inputs(Loading, InputOptions):
    """MODEL and DATA, or a STORE; and where to keep the store of a model and data."""

    source: ModelOrStore
    data: OptionalData = None
    store: StorePath = None
    model: ModelPath = None


@dataclass(frozen=True, kw_only=True)
class Prompts(PromptOptions):
    """The words of class vectors."""

    classes: Classes = None
    template: Template = ()


@dataclass(frozen=True, kw_only=True)
class Words(Prompts, WordOptions):
    """What class vectors are made of."""

    classifier: Classifier = None


@dataclass(frozen=True, kw_only=True)
class Files:
    """Tables and figures as files."""

    out: OptionalOut = None
    format: Formats = ()
    overwrite: Overwrite = False
