"""Every flag and argument of the command line, each defined once: the same name means the same everywhere.

Commands name the flags they take and their defaults; what a flag means, and how it is spelled, is said here alone.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AdapterDir",
    "AgainstTexts",
    "AnalysisOut",
    "BatchSize",
    "CheckedDTypes",
    "Classes",
    "ClassifierChoice",
    "ClassifierOption",
    "Components",
    "DType",
    "DTypeOption",
    "Data",
    "DataName",
    "Device",
    "FormatChoice",
    "Formats",
    "Images",
    "Json",
    "LossChoice",
    "LossOption",
    "MeanChoice",
    "MeanOption",
    "Methods",
    "ModelName",
    "ModelNames",
    "ModelOrAdapter",
    "ModelOrStore",
    "ModelPath",
    "OptionalData",
    "OptionalImages",
    "OptionalOut",
    "Out",
    "OutFile",
    "Overwrite",
    "Quick",
    "Reference",
    "ReportFile",
    "RequiredStore",
    "Seed",
    "Seeds",
    "Shots",
    "SkipBad",
    "SplitChoice",
    "SplitOption",
    "StoreOption",
    "Stream",
    "Templates",
    "TextOption",
    "Top",
    "UnitLabels",
    "Workers",
]

_INPUT, _METHOD, _OUTPUT, _MACHINE = "Input", "Method", "Output", "Machine"


class ClassifierChoice(StrEnum):
    """Where class vectors come from."""

    text = "text"
    means = "means"


class LossChoice(StrEnum):
    """How an image's classes compete while fitting."""

    softmax = "softmax"
    sigmoid = "sigmoid"


class MeanChoice(StrEnum):
    """What becomes of the means of scaled units."""

    drop = "drop"
    keep = "keep"


class DType(StrEnum):
    """Numbers of the encoder."""

    float64 = "float64"
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class SplitChoice(StrEnum):
    """Which images are looked at."""

    train = "train"
    val = "val"
    test = "test"


class FormatChoice(StrEnum):
    """A file of a result."""

    json = "json"
    csv = "csv"
    png = "png"
    pdf = "pdf"


ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="mini, another name that `residualign models` lists, a directory in transformers format, a hub id, "
        "open_clip:NAME/tag or timm:NAME.",
        show_default=False,
    ),
]
ModelNames = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME...",
        help="Models: registered names, directories in transformers format, hub ids (org/name, hf:org/name@revision), "
        "open_clip:NAME/tag, timm:NAME.",
        show_default=False,
    ),
]
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of class folders, of train|val|test.parquet or of tar shards, hf:org/name, or a registered name "
        "(digits, cifar10, ...).",
        show_default=False,
    ),
]
ModelOrStore = Annotated[
    str, typer.Argument(metavar="MODEL|STORE", help="A model (then DATA follows), or a store.", show_default=False)
]
OptionalData = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA", help="A folder, hf:org/name or a registered name; none with a store.", show_default=False
    ),
]
DataName = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA", help="Folder, parquet folder or registered name; none lists the names.", show_default=False
    ),
]
AdapterDir = Annotated[Path, typer.Argument(metavar="DIR", help="What `adapt --out` wrote.", show_default=False)]
Images = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGE...", help="Image files; a folder stands for the images in it.", show_default=False),
]

OptionalImages = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DATA|IMAGE...",
        help="A data set, or image files and folders of them; none with a store.",
        show_default=False,
    ),
]

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else.", rich_help_panel=_OUTPUT)
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Decides every random choice.", rich_help_panel=_METHOD)
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Fewer images and methods: a try in under a minute.", rich_help_panel=_METHOD)
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Start again where this command has already written.", rich_help_panel=_OUTPUT),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad", help="Go on without images that cannot be read; they are counted.", rich_help_panel=_INPUT
    ),
]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        help="Read DATA of the hub over the network as it is needed, and keep nothing of it.",
        rich_help_panel=_INPUT,
    ),
]
Templates = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        metavar="TEXT",
        help="Prompt with one {} for the class name; repeats. Or a YAML or JSON file of them.",
        rich_help_panel=_INPUT,
        show_default=False,
    ),
]
Classes = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        help="Class names in a YAML or JSON file.",
        rich_help_panel=_INPUT,
        show_default=False,
    ),
]
ClassifierOption = Annotated[
    ClassifierChoice | None,
    typer.Option(
        "--classifier",
        help="Class vectors from text or from class means. By default text where the model has it.",
        rich_help_panel=_METHOD,
        show_default=False,
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="PATH",
        help="Where the store of the one pass lies.",
        rich_help_panel=_OUTPUT,
        show_default=False,
    ),
]
RequiredStore = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="PATH",
        help="Where the store of the one pass lies.",
        rich_help_panel=_OUTPUT,
        show_default=False,
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        "--reference",
        metavar="DATA",
        help="Images (or spectra file) the principal components come from. By default those shipped with the model, "
        "else the training split.",
        rich_help_panel=_METHOD,
        show_default=False,
    ),
]
Shots = Annotated[
    int | None,
    typer.Option(
        "--shots", min=1, metavar="K", help="K training images a class.", rich_help_panel=_METHOD, show_default=False
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="residual, residual-heads, coarse, spectral-output, linear, joint, or all; repeats.",
        rich_help_panel=_METHOD,
        show_default="residual",
    ),
]
LossOption = Annotated[
    LossChoice,
    typer.Option(
        "--loss",
        help="Softmax over the classes, or a sigmoid for each by itself (SigLIP with text).",
        rich_help_panel=_METHOD,
    ),
]
MeanOption = Annotated[
    MeanChoice | None,
    typer.Option(
        "--mean",
        help="Drop or keep the means of scaled units.",
        rich_help_panel=_METHOD,
        show_default="the method's own",
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="cpu, cuda, ...", rich_help_panel=_MACHINE)]
DTypeOption = Annotated[DType, typer.Option("--dtype", help="Numbers of the encoder.", rich_help_panel=_MACHINE)]
CheckedDTypes = Annotated[
    list[DType] | None,
    typer.Option(
        "--dtype",
        help="Numbers of the encoder.",
        rich_help_panel=_MACHINE,
        show_default="float32 and float64; repeats",
    ),
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, metavar="N", help="Images in one forward pass.", rich_help_panel=_MACHINE)
]
Workers = Annotated[
    int, typer.Option("--workers", min=0, metavar="N", help="Processes that read images.", rich_help_panel=_MACHINE)
]
ModelPath = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="The adapter's or store's model, where it has moved.",
        rich_help_panel=_INPUT,
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.", rich_help_panel=_OUTPUT)]
OptionalOut = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder for the results.", rich_help_panel=_OUTPUT, show_default=False),
]
OutFile = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", help="File for the results (safetensors).", rich_help_panel=_OUTPUT, show_default=False
    ),
]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", help="File for the report (JSON).", rich_help_panel=_OUTPUT, show_default=False
    ),
]
SplitOption = Annotated[
    SplitChoice, typer.Option("--split", help="Which images are looked at.", rich_help_panel=_INPUT)
]
UnitLabels = Annotated[
    list[str] | None,
    typer.Option(
        "--unit",
        metavar="LABEL",
        help="A residual unit: L3.H7, L3.mlp, embedding; repeats. Or heads, mlps, all.",
        rich_help_panel=_METHOD,
        show_default=False,
    ),
]
Formats = Annotated[
    list[FormatChoice] | None,
    typer.Option(
        "--format", help="Which files --out gets; repeats.", rich_help_panel=_OUTPUT, show_default="json, csv and png"
    ),
]
AnalysisOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for tables and figures.",
        rich_help_panel=_OUTPUT,
        show_default=False,
    ),
]
Seeds = Annotated[
    int,
    typer.Option("--seeds", min=1, metavar="N", help="How many seeds are compared.", rich_help_panel=_METHOD),
]
Top = Annotated[
    int, typer.Option("--top", min=1, metavar="N", help="How many rows are shown.", rich_help_panel=_OUTPUT)
]
ModelOrAdapter = Annotated[
    str,
    typer.Argument(metavar="MODEL|DIR", help="A model, or what `adapt --out` wrote.", show_default=False),
]
Components = Annotated[
    list[int] | None,
    typer.Option(
        "--component",
        min=0,
        metavar="K",
        help="A principal component, counted from 0; repeats.",
        rich_help_panel=_METHOD,
        show_default=False,
    ),
]
TextOption = Annotated[
    str | None,
    typer.Option("--text", metavar="TEXT", help="A text to look for.", rich_help_panel=_METHOD, show_default=False),
]
AgainstTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--against",
        metavar="TEXT",
        help="Another text, whose share --text loses (the mean of several); repeats.",
        rich_help_panel=_METHOD,
        show_default=False,
    ),
]
