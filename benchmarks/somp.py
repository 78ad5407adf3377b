"""Words for one unit: SOMP over thousands of texts, compared with a plain loop that forms every residual."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from benchmarks.harness import Result, Row, interleave, ratio_rows
from benchmarks.machine import matrix_rate
from residualign.text import pursuit
from residualign.text.dictionary import TextDictionary, from_vectors
from residualign.text.pursuit import Samples, somp

__all__ = ["Sizes", "plain", "run"]


@dataclass(frozen=True)
class Sizes:
    """rank: directions of a head (its size and two); the whole output space has dim of them."""

    images: int = 5000
    dim: int = 512
    rank: int = 66
    texts: int = 3500
    chosen: int = 64
    rounds: int = 3


def run(sizes: Sizes) -> Result:
    """Time both on one head, and on rows that span the whole space; the data decay like real spectra."""
    dictionary = random_dictionary(sizes)
    rows, timings_of, details = [], {}, {}
    for name, rank in (("head", min(sizes.rank, sizes.dim)), ("whole space", sizes.dim)):
        coordinates, basis = random_coordinates(sizes, rank)
        data = coordinates @ basis
        ways = {
            "ours": lambda a=coordinates, b=basis: somp(Samples.of(a, b), dictionary, sizes.chosen),
            "plain loop": lambda data=data: plain(data, dictionary, sizes.chosen),
        }
        timings = interleave(ways, sizes.rounds, warmup=0)
        ours, theirs = ways["ours"](), plain(data, dictionary, sizes.chosen)
        alike = sum(a == b for a, b in zip(ours.indices, theirs[0], strict=False)) / max(len(ours), 1)
        difference = max(abs(a - b) for a, b in zip(ours.explained_variance_ratio, theirs[1], strict=False))
        rows += [
            Row.of(f"{name} ({rank} directions): ours", timings.median("ours"), "s"),
            Row.of(f"{name}: plain loop", timings.median("plain loop"), "s"),
            *ratio_rows(f"{name}: plain loop / ours", timings.ratio("plain loop", "ours")),
            Row(f"{name}: texts chosen", len(ours), note=f"{100 * alike:.0f} % the same as the plain loop, in order"),
            Row(f"{name}: difference of the explained shares", difference, note="both float64"),
            Row(
                f"{name}: texts evaluated in full",
                looked_at(Samples.of(coordinates, basis), dictionary, sizes.chosen),
                "%",
                note="share of all, mean",
            ),
        ]
        timings_of[name] = timings
        details[name] = {"wall": timings.wall, "cpu": timings.cpu}
    flops = 2 * sizes.images * sizes.texts * sizes.dim * sizes.chosen / 1e9
    rate = matrix_rate(torch.float64)
    limits = (
        f"The plain loop's products of residuals and texts are {flops:.0f} GFLOP, {flops / rate:.1f} s at the "
        f"{rate:.0f} GFLOP/s of a large product.",
        "Ours pays images x directions for each text whose bound reaches the best sum found, and texts x dim per step.",
    )
    title = f"{sizes.images} images, {sizes.texts} texts, {sizes.chosen} chosen, dim {sizes.dim}, {sizes.rounds} rounds"
    return Result("somp", title, asdict(sizes), rows, limits, details)


def random_dictionary(sizes: Sizes, seed: int = 0) -> TextDictionary:
    """Unit vectors around a common axis, as text embeddings are, in groups that resemble one another."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randn(max(sizes.texts // 40, 1), sizes.dim, generator=generator, dtype=torch.float64)
    own = torch.randn(sizes.texts, sizes.dim, generator=generator, dtype=torch.float64)
    vectors = own + 1.5 * groups[torch.arange(sizes.texts) % len(groups)]
    names = [f"text {i}" for i in range(sizes.texts)]
    return from_vectors("random", names, vectors).centered


def random_coordinates(sizes: Sizes, rank: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """A unit's coordinates, with standard deviations 1, 1/2, 1/3, ..., and the map to the output space."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(sizes.dim, rank, generator=generator, dtype=torch.float64))[0].mT
    deviations = 1 / torch.arange(1, rank + 1, dtype=torch.float64)
    drawn = torch.randn(sizes.images, rank, generator=generator, dtype=torch.float64)
    return drawn * deviations + 0.3, basis.contiguous()


def plain(data: Tensor, dictionary: TextDictionary, count: int) -> tuple[list[int], list[float]]:
    """The published way: form the residual, multiply it with every text, solve least squares from scratch."""
    rows = data - data.mean(dim=0)
    total = rows.square().sum()
    residual, indices, explained = rows, list[int](), list[float]()
    for _ in range(count):
        scores = (residual @ dictionary.atoms.mT).abs().sum(dim=0)
        scores[indices] = -1.0
        indices.append(int(scores.argmax()))
        chosen = dictionary.atoms[indices]
        weights = torch.linalg.lstsq(chosen.mT, rows.mT).solution.mT
        residual = rows - weights @ chosen
        explained.append(float(1 - residual.square().sum() / total))
    return indices, explained


def looked_at(samples: Samples, dictionary: TextDictionary, count: int) -> float:
    """Mean share of texts, in percent, whose sum over the images is computed in a step of ours."""
    shares: list[float] = []

    def counting(samples: Samples, images: Tensor, lengths: Tensor) -> int:
        index = pursuit._largest_sum_of_magnitudes(samples, images, lengths)
        best = (samples.scores @ images[index]).abs().sum()
        shares.append(float((lengths * len(samples) ** 0.5 >= best).double().mean()))
        return index

    pursuit._greedy(samples, dictionary.atoms, count, counting)
    return 100 * sum(shares) / max(len(shares), 1)
