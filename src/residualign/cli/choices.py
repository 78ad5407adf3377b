"""What flags with a fixed set of answers take."""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "AblationChoice",
    "BasisChoice",
    "ClassifierChoice",
    "DType",
    "FormatChoice",
    "LossChoice",
    "MatchingChoice",
    "MeanChoice",
    "RestChoice",
    "ScaledChoice",
    "ScoreChoice",
    "SplitChoice",
    "StartChoice",
    "WordsChoice",
]


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


class WordsChoice(StrEnum):
    """How texts are chosen for a unit."""

    somp = "somp"
    textspan = "textspan"
    omp = "omp"


class FormatChoice(StrEnum):
    """A file of a result."""

    json = "json"
    csv = "csv"
    png = "png"
    svg = "svg"
    pdf = "pdf"


class MatchingChoice(StrEnum):
    """How components of two bases are paired."""

    greedy = "greedy"
    optimal = "optimal"


class AblationChoice(StrEnum):
    """What stands in the place of units that are left out."""

    zero = "zero"
    mean = "mean"


class ScoreChoice(StrEnum):
    """By what heads are ranked."""

    S = "S"
    U = "U"
    UT = "UT"
    R = "R"
    cosine = "cosine"


class ScaledChoice(StrEnum):
    """Which units are scaled."""

    heads = "heads"
    mlps = "mlps"
    both = "both"


class BasisChoice(StrEnum):
    """Whose principal components are scaled."""

    reference = "reference"
    target = "target"


class StartChoice(StrEnum):
    """Where lambdas begin."""

    ones = "ones"
    randn = "randn"


class RestChoice(StrEnum):
    """What becomes of everything that no lambda multiplies."""

    keep = "keep"
    mean = "mean"
    zero = "zero"
