"""The two ways that the benchmark of epochs compares do the same thing."""

import pytest
import torch
from benchmarks.encoder_loop import EncoderLoop
from benchmarks.epochs import disagreement, objective, random_spectra
from benchmarks.towers import clip_vision_model, forward_flops
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.decomposition.maps import unit_maps
from residualign.decomposition.trace import trace_coordinates
from residualign.fitting.methods import build_scaling, get_method
from residualign.fitting.solvers import ScheduleFree
from residualign.models import clip

N_BATCHES, BATCH, CLASSES, RATE = 3, 5, 7, 0.1


@pytest.fixture(scope="module")
def tower():
    model = clip_vision_model(width=33, layers=2, heads=3, dim=13, image_size=26, patch=13)
    return clip.tower(model.double())


@pytest.mark.parametrize(
    ("method", "mean", "rest"),
    [("residual", "keep", "keep"), ("residual-heads", "keep", "zero"), ("residual-heads", "drop", "zero")],
)
def test_steps_with_the_encoder_equal_steps_on_cached_coefficients(tower, method, mean, rest):
    maps = unit_maps(tower)
    scaling = build_scaling(get_method(method), random_spectra(maps, 100), mean=mean, rest=rest)
    generator = torch.Generator().manual_seed(3)
    vectors = F.normalize(torch.randn(CLASSES, 13, generator=generator, dtype=torch.float64), dim=-1)
    pixels = torch.randn(N_BATCHES * BATCH, 3, 26, 26, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (len(pixels),), generator=generator)

    loop = EncoderLoop.start(tower, maps, scaling, vectors, 30.0, RATE)
    cached = objective(loop, trace_coordinates(tower, pixels), labels)
    solver = ScheduleFree(learning_rate=RATE, batch_size=BATCH, max_epochs=1)
    solution = solver.solve(cached, cached, {"lambdas": torch.ones(scaling.n_lambdas, dtype=torch.float64)}, seed=11)

    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(11))
    losses = [loop.step(pixels[index], labels[index]) for index in order.split(BATCH)]

    assert solution.history[-1]["train_loss"] == pytest.approx(sum(losses) / N_BATCHES, abs=1e-9)
    assert disagreement(loop, tower, pixels, labels) < 1e-11
    assert not torch.allclose(loop.lambdas, torch.ones_like(loop.lambdas), atol=1e-3), "nothing was learned"


def test_flops_are_those_of_the_profiler(tower):
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        tower.forward(tower.probe(4))
    assert forward_flops(tower, image_size=26, patch=13) == pytest.approx(counter.get_total_flops() / 4, rel=0.02)
