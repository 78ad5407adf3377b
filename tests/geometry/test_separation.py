"""The share of a unit's variance between classes, against scipy's analysis of variance, dimension by dimension."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import f_oneway

from residualign.decomposition.coordinates import Coordinates
from residualign.errors import BadInputError
from residualign.geometry.separation import class_separation
from tests.spectrum.random_tower import make_coordinates, make_maps
from tests.store.make_store import BROKEN, fill


@dataclass
class Images:
    """As much of a split as is looked at."""

    coordinates: Coordinates
    labels: torch.Tensor

    def batches(self, size):
        for start in range(0, len(self.labels), 7):
            yield self.coordinates[start : start + 7]


def by_anova(contributions: np.ndarray, labels: np.ndarray) -> float:
    """Epsilon squared from scipy's F of every dimension and its total sum of squares."""
    classes = sorted(set(labels.tolist()))
    groups = [contributions[labels == c] for c in classes]
    n, k = len(labels), len(classes)
    between = total = 0.0
    for dim in range(contributions.shape[1]):
        f = f_oneway(*[group[:, dim] for group in groups]).statistic
        total_d = float(((contributions[:, dim] - contributions[:, dim].mean()) ** 2).sum())
        # F = (B / (k - 1)) / (W / (n - k)) and B + W = total
        ratio = f * (k - 1) / (n - k)
        between += total_d * ratio / (1 + ratio)
        total += total_d
    return 1 - ((total - between) / (n - k)) / (total / (n - 1))


def test_equals_an_analysis_of_variance_of_every_dimension(tmp_path):
    store = fill(tmp_path / "store", skip=BROKEN)
    split = store.split("train")
    found = class_separation(split, store.maps, 3)
    labels, coordinates = split.labels.numpy(), split.coordinates()
    for i, unit in enumerate(store.units):
        contributions = store.maps.contribution(coordinates.to(dtype=torch.float64), unit).numpy()
        assert float(found[i]) == pytest.approx(by_anova(contributions, labels), rel=1e-6, abs=1e-9), unit.label


def test_classes_that_decide_all_of_a_unit_have_all_of_its_variance():
    coordinates, maps = make_coordinates(31), make_maps()
    labels = torch.arange(31) % 5
    tensors = coordinates.tensors()
    # one head, and what all units share, depend on the class alone; a large mean must not eat digits
    heads = tensors["heads"].clone()
    heads[:, 1, 2] = 1e4 + labels[:, None].double() * torch.arange(1, heads.shape[-1] + 1)
    tensors |= {
        "heads": heads,
        "inverse_std": 1 + labels.double(),
        "mean_over_std": labels.double() ** 2,
    }
    found = class_separation(Images(Coordinates.of_tensors(tensors), labels), maps, 7)
    of = {unit.label: float(share) for unit, share in zip(maps.units, found, strict=True)}
    assert of["L1.H2"] == pytest.approx(1, abs=1e-9)
    assert of["embedding"] == pytest.approx(1, abs=1e-9)
    assert of["L0.H0"] < 0.99


def test_labels_drawn_at_random_separate_nothing_on_average():
    maps, coordinates = make_maps(), make_coordinates(97)
    g = torch.Generator().manual_seed(1)
    drawn = [
        class_separation(Images(coordinates, torch.randint(0, 11, (97,), generator=g)), maps, 11) for _ in range(40)
    ]
    assert torch.stack(drawn).mean().abs() < 0.01
    assert min(float(one.min()) for one in drawn) < 0


def test_what_is_not_defined_is_nan_and_bad_labels_are_refused():
    maps, coordinates = make_maps(), make_coordinates(5)
    assert class_separation(Images(coordinates, torch.arange(5)), maps, 5).isnan().all()
    same = coordinates[torch.zeros(5, dtype=torch.int64)]
    assert class_separation(Images(same, torch.tensor([0, 0, 1, 1, 1])), maps, 2).isnan().all()
    with pytest.raises(BadInputError, match="between 0 and 4, expected 0 to 3"):
        class_separation(Images(coordinates, torch.arange(5)), maps, 4)
    with pytest.raises(BadInputError, match="got none"):
        class_separation(
            Images(coordinates[torch.zeros(0, dtype=torch.int64)], torch.zeros(0, dtype=torch.int64)), maps, 4
        )


def test_a_class_of_one_image_counts_like_the_others():
    maps, coordinates = make_maps(), make_coordinates(17)
    labels = torch.tensor([0] * 9 + [1] * 7 + [3])
    found = class_separation(Images(coordinates, labels), maps, 5)
    for i, unit in enumerate(maps.units):
        contributions = maps.contribution(coordinates, unit).numpy()
        assert float(found[i]) == pytest.approx(by_anova(contributions, labels.numpy()), rel=1e-8, abs=1e-10)
