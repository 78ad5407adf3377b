"""The generator: images, captions and ground truth of batch `index` of `seed`."""

import argparse
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.mini.attributes import NAMES, UNDEFINED, VALUES
from recipes.mini.captions import describe
from recipes.mini.paint import paint
from recipes.mini.rng import Rng
from recipes.mini.scene import Scene, compose


@dataclass(frozen=True)
class Batch:
    """A generated batch.

    images: (n, 3, size, size) uint8; captions: n texts; claims: (n, attribute), what each caption says; views:
    (n, 2, attribute), what is true of each image (see `attributes`); scene: the objects, for tests and analyses.
    """

    images: Tensor
    captions: list[str]
    claims: Tensor
    views: Tensor
    scene: Scene

    def truth(self, i: int, view: int = 0) -> dict[str, str]:
        """Ground truth of image i in words."""
        row = self.views[i, view].tolist()
        return {name: VALUES[name][v] for name, v in zip(NAMES, row, strict=True) if v != UNDEFINED}


def generate(seed: int, index: int, n: int, size: int = 32, mix: str = "general") -> Batch:
    """Batch `index` of `seed`: the same arguments give the same batch, in any order and in any process.

    `mix` names the shares of the kinds of image, `kinds.MIXES`.

    Cost: about 0.3 ms per image on one core at 32 pixels; the first call draws the sprites (3 s).
    """
    rng = Rng(seed, index)
    scene = compose(rng, n, mix)
    images = (paint(rng, scene, size) * 255).round().to(torch.uint8)
    captions, claims = describe(int(rng.integers(1, 2**31 - 1)), scene.views)
    return Batch(images, captions, claims, scene.views, scene)


def main() -> None:
    """Write a contact sheet; print captions and the speed."""
    from PIL import Image

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=32)
    args = parser.parse_args()
    batch = generate(args.seed, 0, 256, args.size)
    start = time.perf_counter()
    generate(args.seed, 1, 1024, args.size)
    print(f"{1024 / (time.perf_counter() - start):.0f} images/s with {torch.get_num_threads()} threads")
    sheet = batch.images.view(16, 16, 3, args.size, args.size).permute(0, 3, 1, 4, 2).reshape(16 * args.size, -1, 3)
    Image.fromarray(sheet.numpy()).resize([32 * args.size] * 2, Image.Resampling.NEAREST).save(args.out)
    for i in range(40):
        print(i, batch.captions[i], "|", batch.truth(i))


if __name__ == "__main__":
    main()
