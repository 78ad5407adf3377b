"""The generator: reproducible, and its ground truth agrees with its pixels."""

import pytest
import torch
from recipes.mini import paint as paint_module
from recipes.mini.attributes import COLORS, COLUMN, POSITIONS, RGB, UNDEFINED, VALUES
from recipes.mini.generate import Batch, generate
from recipes.mini.kinds import KIND, MIXES
from recipes.mini.objects import Objects
from recipes.mini.paint import masks
from recipes.mini.rng import Rng
from recipes.mini.scene import compose
from scipy.ndimage import label

SIZE = 48  # larger than in training: components and centroids are unambiguous


@pytest.fixture(scope="module")
def drawn() -> tuple[Batch, torch.Tensor]:
    """A batch without blur, noise, low resolution or lower contrast, and the (object, SIZE, SIZE) masks it was painted
    with: handwriting is jittered while it is drawn, so they cannot be made again afterwards.
    """
    kept = []

    def keep(rng: Rng, objects: Objects, size: int) -> torch.Tensor:
        kept.append(masks(rng, objects, size))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paint_module, "degrade", lambda rng, images, views: images.clamp(0, 1))
        patch.setattr(paint_module, "masks", keep)
        batch = generate(seed=5, index=0, n=509, size=SIZE)
    return batch, kept[0]


@pytest.fixture(scope="module")
def plain(drawn: tuple[Batch, torch.Tensor]) -> Batch:
    return drawn[0]


@pytest.fixture(scope="module")
def opacity(drawn: tuple[Batch, torch.Tensor]) -> torch.Tensor:
    return drawn[1]


def column(batch: Batch, name: str, view: int = 0) -> torch.Tensor:
    return batch.views[:, view, COLUMN[name]].long()


def first_objects(batch: Batch) -> torch.Tensor:
    """(image,) index of the object each image's first view describes."""
    return (batch.scene.objects.slot == 0).nonzero()[:, 0]


def test_a_batch_is_a_function_of_seed_and_index() -> None:
    a = generate(3, 7, 61, 24)
    generate(3, 8, 61, 24)
    torch.rand(5)
    b = generate(3, 7, 61, 24)
    assert torch.equal(a.images, b.images)
    assert a.captions == b.captions
    assert torch.equal(a.claims, b.claims)
    assert torch.equal(a.views, b.views)


@pytest.mark.parametrize(("seed", "index"), [(3, 8), (4, 7), (7, 3)])
def test_other_batches_differ(seed: int, index: int) -> None:
    a, b = generate(3, 7, 61, 24), generate(seed, index, 61, 24)
    assert not torch.equal(a.images, b.images)
    assert a.captions != b.captions


def test_images_are_bytes_of_the_size_asked_for() -> None:
    batch = generate(0, 0, 7, 29)
    assert batch.images.shape == (7, 3, 29, 29)
    assert batch.images.dtype == torch.uint8
    assert len(batch.captions) == 7
    assert batch.views.shape == (7, 2, len(VALUES))


def test_color_is_the_color_of_the_object_pixels(plain: Batch, opacity: torch.Tensor) -> None:
    checked = 0
    for i, o in enumerate(first_objects(plain).tolist()):
        textured = plain.scene.objects.texture[o] != 0
        inside = opacity[o] > 0.99
        if textured or inside.sum() < 12 or plain.scene.kind[i] == KIND["sign"]:
            continue
        mean = plain.images[i][:, inside].float().mean(1) / 255
        nearest = int((RGB - mean).norm(dim=1).argmin())
        assert nearest == column(plain, "color")[i], (i, mean, list(COLORS)[nearest])
        checked += 1
    assert checked > 150


def test_background_is_the_color_of_the_other_pixels(plain: Batch, opacity: torch.Tensor) -> None:
    ink = torch.zeros(len(plain.captions), SIZE, SIZE)
    ink.index_add_(0, plain.scene.objects.image, opacity)
    checked = 0
    for i in range(len(plain.captions)):
        outside = ink[i] == 0
        if column(plain, "ground")[i] != 0 or outside.sum() < 50:
            continue
        mean = plain.images[i][:, outside].float().mean(1) / 255
        assert (RGB - mean).norm(dim=1).argmin() == column(plain, "background")[i]
        checked += 1
    assert checked > 150


def test_count_is_the_number_of_connected_components(plain: Batch, opacity: torch.Tensor) -> None:
    objects = plain.scene.objects
    rows = (plain.scene.kind == KIND["count"]).nonzero()[:, 0].tolist()
    for i in rows:
        ink = opacity[objects.image == i].amax(0) > 0.5
        assert label(ink.numpy(), structure=[[1] * 3] * 3)[1] == column(plain, "count")[i] + 1
    assert len(rows) > 20


def test_position_is_where_the_centroid_lies(plain: Batch, opacity: torch.Tensor) -> None:
    axis = (torch.arange(SIZE) + 0.5) * 2 / SIZE - 1
    checked = 0
    for i, o in enumerate(first_objects(plain).tolist()):
        value = int(column(plain, "position")[i])
        if value == UNDEFINED:
            continue
        weight = opacity[o] / opacity[o].sum()
        x, y = (weight.sum(0) * axis).sum(), (weight.sum(1) * axis).sum()
        words = POSITIONS[value].split()
        # Centroids of letters and arrows lie off the middle of their box: half a cell of tolerance.
        for word, offset in (("left", -x), ("right", x), ("top", -y), ("bottom", y)):
            assert word not in words or offset > 0.1, (i, words, x, y)
        assert words != ["center"] or max(abs(x), abs(y)) < 0.45
        checked += 1
    assert checked > 50


def test_size_is_the_extent_of_the_drawing(plain: Batch, opacity: torch.Tensor) -> None:
    for i, o in enumerate(first_objects(plain).tolist()):
        value = int(column(plain, "size")[i])
        ink = opacity[o] > 0.5
        if value == UNDEFINED or not ink.any():
            continue
        ys, xs = ink.nonzero(as_tuple=True)
        extent = max(int(ys.max() - ys.min()), int(xs.max() - xs.min())) + 1
        # rotation and slant of sprites change the extent by up to a third
        assert extent < 0.6 * SIZE if VALUES["size"][value] == "small" else extent > 0.45 * SIZE, (i, extent)


def test_relation_agrees_with_both_centers(plain: Batch) -> None:
    objects = plain.scene.objects
    for i in (plain.scene.kind == KIND["pair"]).nonzero()[:, 0].tolist():
        a, b = objects.center[objects.image == i]
        for view, (one, other) in enumerate(((a, b), (b, a))):
            relation = VALUES["relation"][column(plain, "relation", view)[i]]
            dx, dy = (one - other).tolist()
            assert {"left of": dx < 0, "right of": dx > 0, "above": dy < 0, "below": dy > 0}[relation]


@pytest.mark.parametrize("mix", ["general", "handwriting"])
def test_shares_of_the_mixes(mix: str) -> None:
    scene = compose(Rng(1, 2), 4001, mix)
    shares = torch.bincount(scene.kind, minlength=len(KIND)) / 4001
    assert shares.tolist() == pytest.approx(list(MIXES[mix].values()), abs=0.03)
    assert sum(MIXES[mix].values()) == pytest.approx(1)
    digits = scene.views[:, 0, COLUMN["digit"]].long()
    counts = torch.bincount(digits[digits >= 0], minlength=10)
    assert counts.min() > 0.7 * counts.max()
