"""A scaling handed to the slow twin of adapted embeddings."""

from __future__ import annotations

import torch

from residualign.decomposition.contributions import Contributions
from tests.reference import adapted_twin


def twin(maps, coordinates, scaling, lambdas):
    parts = scaling.split(lambdas)
    units = {
        unit.label: (
            unit.mean.numpy(),
            None if unit.components is None else unit.components.numpy(),
            parts[unit.label].numpy(),
        )
        for unit in scaling.units
    }
    values = Contributions.of(coordinates, maps).values.numpy()
    arguments = (units, scaling.mean, scaling.rest, scaling.rest_mean.numpy())
    return torch.from_numpy(adapted_twin.adapted(values, coordinates.output.numpy(), maps.units.labels, *arguments))
