"""How alike two sets of unit representations are: by their principal components, their means, or image by image."""

from residualign.similarity.cka import cka_by_unit, cka_pairs, linear_cka
from residualign.similarity.comparison import Comparison
from residualign.similarity.means import RelativeMeans, compare_means, draw_anchors, relative_means
from residualign.similarity.result import (
    CkaPairs,
    HeadPairs,
    LayerSimilarity,
    MeanSimilarity,
    SpectralCosine,
    SpectraSimilarity,
    UnitCka,
    UnitSimilarity,
)
from residualign.similarity.spectral import compare_heads, compare_spectra, spectral_cosine

__all__ = [
    "CkaPairs",
    "Comparison",
    "HeadPairs",
    "LayerSimilarity",
    "MeanSimilarity",
    "RelativeMeans",
    "SpectraSimilarity",
    "SpectralCosine",
    "UnitCka",
    "UnitSimilarity",
    "cka_by_unit",
    "cka_pairs",
    "compare_heads",
    "compare_means",
    "compare_spectra",
    "draw_anchors",
    "linear_cka",
    "relative_means",
    "spectral_cosine",
]
