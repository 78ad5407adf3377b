"""Every flag and argument of the command line, each defined once: the same name means the same everywhere.

Commands name the flags they take and their defaults; what a flag means, and how it is spelled, is said here alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residualign.cli.choices import (
    AblationChoice,
    BasisChoice,
    ClassifierChoice,
    DType,
    FormatChoice,
    LossChoice,
    MatchingChoice,
    MeanChoice,
    RestChoice,
    ScaledChoice,
    ScoreChoice,
    SplitChoice,
    StartChoice,
    WordsChoice,
)

__all__ = [
    "AblationChoice",
    "Ablations",
    "AdapterDir",
    "AgainstTexts",
    "AnalysisOut",
    "Anchors",
    "Bases",
    "BasisChoice",
    "BatchSize",
    "CheckedDTypes",
    "Classes",
    "ClassifierChoice",
    "ClassifierOption",
    "CompareStores",
    "Components",
    "DType",
    "DTypeOption",
    "Data",
    "DataName",
    "Device",
    "DictionaryFile",
    "FormatChoice",
    "Formats",
    "Fraction",
    "HeadBudget",
    "Images",
    "Json",
    "KeepMlps",
    "KeptComponents",
    "LearningRates",
    "LossChoice",
    "LossOption",
    "MatchingChoice",
    "MatchingOption",
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
    "Pairs",
    "Quick",
    "Reference",
    "Repeats",
    "ReportFile",
    "RequiredStore",
    "RestChoice",
    "RestOption",
    "SameSpace",
    "SavedAdapter",
    "ScaledChoice",
    "ScaledKinds",
    "ScoreChoice",
    "Scores",
    "Seed",
    "Seeds",
    "Shots",
    "SkipBad",
    "Sources",
    "SplitChoice",
    "SplitOption",
    "StartChoice",
    "Starts",
    "StoreOption",
    "Stream",
    "Subsamples",
    "Templates",
    "TextCount",
    "TextOption",
    "Threshold",
    "Top",
    "UnitLabels",
    "Variance",
    "WordsChoice",
    "WordsOption",
    "Workers",
]

_INPUT, _METHOD, _OUTPUT, _MACHINE = "Input", "Method", "Output", "Machine"

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
        "else the training split; for an analysis, the images looked at.",
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
Threshold = Annotated[
    float,
    typer.Option(
        "--threshold",
        metavar="SHARE",
        help="The share of variance that a unit's linear dimension holds.",
        rich_help_panel=_METHOD,
    ),
]
Fraction = Annotated[
    float,
    typer.Option(
        "--fraction",
        metavar="SHARE",
        help="The share of the points, smallest distance ratios first, that TwoNN is fitted to.",
        rich_help_panel=_METHOD,
    ),
]
Subsamples = Annotated[
    int,
    typer.Option(
        "--subsamples",
        metavar="N",
        help="Half samples for intervals, an even number; 0 for none.",
        rich_help_panel=_METHOD,
    ),
]
Seeds = Annotated[
    int,
    typer.Option("--seeds", min=1, metavar="N", help="How many seeds are compared.", rich_help_panel=_METHOD),
]
Components = Annotated[
    list[int] | None,
    typer.Option(
        "--component",
        min=0,
        metavar="N",
        help="A principal component by its number, 0 for the largest; repeats.",
        rich_help_panel=_METHOD,
        show_default="the first three",
    ),
]
DictionaryFile = Annotated[
    Path | None,
    typer.Option(
        "--dictionary",
        metavar="FILE",
        help="Descriptions to choose from: a UTF-8 text file, one a line, `#` before headings.",
        rich_help_panel=_INPUT,
        show_default="the model's own, else the package's",
    ),
]
WordsOption = Annotated[
    WordsChoice | None,
    typer.Option(
        "--words",
        help="How texts are chosen: rebuilding all images together, spanning their spread, or one component.",
        rich_help_panel=_METHOD,
        show_default="somp",
    ),
]
TextCount = Annotated[
    int,
    typer.Option(
        "--texts", min=1, metavar="N", help="Texts for a unit, and for an end of a component.", rich_help_panel=_METHOD
    ),
]
Top = Annotated[
    int,
    typer.Option(
        "--top", min=1, metavar="N", help="How many are shown, those most worth reading.", rich_help_panel=_OUTPUT
    ),
]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="STORE STORE...|MODEL DATA DATA...",
        help="Two or more stores (or spectra files), or a model and two or more data sets.",
        show_default=False,
    ),
]
Variance = Annotated[
    float,
    typer.Option(
        "--variance",
        metavar="SHARE",
        help="Share of each unit's variance at which its components are cut, above 0, at most 1.",
        rich_help_panel=_METHOD,
    ),
]
Pairs = Annotated[bool, typer.Option("--pairs", help="Every head with every head, too.", rich_help_panel=_METHOD)]
MatchingOption = Annotated[
    MatchingChoice,
    typer.Option(
        "--matching",
        help="How --pairs matches components: greedy, as published, or optimal, one head pair after the other.",
        rich_help_panel=_METHOD,
    ),
]
SameSpace = Annotated[
    bool,
    typer.Option(
        "--same-space",
        help="The models differ in weights and yet share their output space: fine-tuned variants of one model.",
        rich_help_panel=_METHOD,
    ),
]
Anchors = Annotated[
    int,
    typer.Option(
        "--anchors",
        min=0,
        metavar="N",
        help="Images of the first source that relative representations are relative to; 0 leaves them out.",
        rich_help_panel=_METHOD,
    ),
]
Scores = Annotated[
    list[ScoreChoice] | None,
    typer.Option(
        "--score",
        help="By what heads are ranked: accuracy of the head alone (S), correlation with the output (U), the same in "
        "the span of the class vectors (UT), chance (R), mean cosine with the output; repeats.",
        rich_help_panel=_METHOD,
        show_default="all",
    ),
]
Ablations = Annotated[
    list[AblationChoice] | None,
    typer.Option(
        "--ablation",
        help="What stands in the place of units that are left out: nothing, or their mean; repeats.",
        rich_help_panel=_METHOD,
        show_default="both",
    ),
]
HeadBudget = Annotated[
    str | None,
    typer.Option(
        "--heads",
        metavar="N|N%",
        help="How many heads --adapter keeps. By default as many as are best on validation images.",
        rich_help_panel=_METHOD,
        show_default=False,
    ),
]
KeepMlps = Annotated[
    bool,
    typer.Option("--keep-mlps", help="MLPs and the embedding stay when heads are left out.", rich_help_panel=_METHOD),
]
CompareStores = Annotated[
    list[str] | None,
    typer.Option(
        "--compare",
        metavar="STORE",
        help="Another store of the same model, to see whether its data needs the same heads; repeats.",
        rich_help_panel=_INPUT,
        show_default=False,
    ),
]
SavedAdapter = Annotated[
    Path | None,
    typer.Option(
        "--adapter",
        metavar="DIR",
        help="Folder for an adapter of the best selection on validation images.",
        rich_help_panel=_OUTPUT,
        show_default=False,
    ),
]
ScaledKinds = Annotated[
    list[ScaledChoice] | None,
    typer.Option(
        "--scaled", help="Which units are scaled; repeats.", rich_help_panel=_METHOD, show_default="all three"
    ),
]
Bases = Annotated[
    list[BasisChoice] | None,
    typer.Option(
        "--basis",
        help="Components of the reference, or of the training images; repeats.",
        rich_help_panel=_METHOD,
        show_default="target, and reference where there is one",
    ),
]
Starts = Annotated[
    list[StartChoice] | None,
    typer.Option(
        "--start",
        help="Lambdas begin at one, or at 1 + N(0, 1); repeats.",
        rich_help_panel=_METHOD,
        show_default="both",
    ),
]
LearningRates = Annotated[
    list[str] | None,
    typer.Option(
        "--learning-rate",
        metavar="RATE|auto|none",
        help="Schedule-Free's; auto looks for one, none fits with L-BFGS; repeats.",
        rich_help_panel=_METHOD,
        show_default="none, 0.8",
    ),
]
Repeats = Annotated[
    int | None,
    typer.Option(
        "--repeats",
        min=1,
        metavar="N",
        help="Seeds of each setting, from --seed on.",
        rich_help_panel=_METHOD,
        show_default="3",
    ),
]
RestOption = Annotated[
    RestChoice,
    typer.Option(
        "--rest",
        help="Keep what no lambda multiplies, put its mean in its place, or leave it out.",
        rich_help_panel=_METHOD,
    ),
]
KeptComponents = Annotated[
    list[str] | None,
    typer.Option(
        "--components",
        metavar="N|N%|all",
        help="Components of each unit that are scaled: a count, those of a share of its variance, or all; repeats.",
        rich_help_panel=_METHOD,
        show_default="50%, 90%, all",
    ),
]
ModelOrAdapter = Annotated[
    str,
    typer.Argument(metavar="MODEL|DIR", help="A model, or what `adapt --out` wrote.", show_default=False),
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
