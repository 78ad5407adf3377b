"""Do maps point at the right object? Two colored objects, one text against the other; `python -m benchmarks.where`."""

from __future__ import annotations

import time

import torch
from PIL import Image
from recipes.mini.attributes import COLORS
from recipes.mini.generate import generate
from recipes.mini.kinds import KIND
from torch import Tensor

import residualign as ra
from residualign.location import locate
from residualign.location.locate import text_direction

N, SEED = 3000, 77


def main(n: int = N) -> None:
    """Print, for `mini`, the share of images in which a head's map is higher on the object that the text names."""
    model, batch = ra.load_model("mini"), generate(SEED, 0, n)
    objects, names = batch.scene.objects, list(COLORS)
    pairs = []
    for i in (batch.scene.kind == KIND["pair"]).nonzero().flatten().tolist():
        found = (objects.image == i).nonzero().flatten().tolist()
        if len(found) == 2 and objects.color[found[0]] != objects.color[found[1]]:
            pairs.append((i, found))
    pictures = [Image.fromarray(batch.images[i].permute(1, 2, 0).numpy()) for i, _ in pairs]
    colors = [[names[int(objects.color[k])] for k in found] for _, found in pairs]
    heads = [unit.label for unit in model.units.of_kind("head")]
    began = time.perf_counter()
    directions = torch.stack([text_direction(model, first, [second]) for first, second in colors])
    maps = locate(model, pictures, heads, direction=directions).maps
    seconds = time.perf_counter() - began
    places = _places(objects, [found for _, found in pairs], maps.shape[2], maps.shape[3])
    means = torch.einsum("nkrc,nsrc->nks", maps, places) / places.sum(dim=(2, 3)).clamp_min(1)[:, None]
    shares = (means[..., 0] > means[..., 1]).double().mean(dim=0)
    summed = means.sum(dim=1)
    print(f"{len(pairs)} images, {len(heads)} heads, {seconds:.1f} s")
    print(f"all heads summed {100 * float((summed[:, 0] > summed[:, 1]).double().mean()):.1f} %")
    best = shares.argsort(descending=True)[:3].tolist()
    print(", ".join(f"{heads[k]} {100 * float(shares[k]):.1f} %" for k in best))
    print(f"mean of heads {100 * float(shares.mean()):.1f} %, lowest {100 * float(shares.min()):.1f} %")


def _places(objects, pairs, rows: int, columns: int) -> Tensor:  # type: ignore[no-untyped-def]
    """(image, object, row, column): 1 on the patches whose center is on one object alone, 0 elsewhere."""
    y = (torch.arange(rows) + 0.5) / rows * 2 - 1
    x = (torch.arange(columns) + 0.5) / columns * 2 - 1
    found = torch.zeros(len(pairs), 2, rows, columns)
    for i, pair in enumerate(pairs):
        for k, one in enumerate(pair):
            center_x, center_y = objects.center[one].tolist()
            distance = (x[None] - center_x) ** 2 + (y[:, None] - center_y) ** 2
            found[i, k] = (distance <= float(objects.radius[one]) ** 2).float()
            if not found[i, k].any():
                found[i, k].view(-1)[distance.argmin()] = 1.0
    return found * (1 - found.prod(dim=1, keepdim=True))


if __name__ == "__main__":
    main()
