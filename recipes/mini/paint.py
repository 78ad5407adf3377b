"""From a scene to pixels: backgrounds, textures, compositing, and degradations as in cameras and scans."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from recipes.mini import sprites, strokes
from recipes.mini.attributes import COLUMN, RGB, VALUES
from recipes.mini.kinds import MAX_OBJECTS
from recipes.mini.objects import Objects
from recipes.mini.rng import Rng
from recipes.mini.scene import Scene

QUALITY = VALUES["quality"]
BLUR_RADIUS = 3


def _axes(size: int) -> tuple[Tensor, Tensor]:
    axis = (torch.arange(size) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x[None], y[None]


def _stripes(rng: Rng, n: int, size: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Two perpendicular waves of random direction, (n, size, size) each, `low` to `high` cycles per image."""
    x, y = _axes(size)
    angle = rng.uniform(n, 1, 1, high=3.1416)
    k = rng.uniform(n, 1, 1, low=low, high=high) * 3.1416
    phase = rng.uniform(n, 2, 1, 1, high=6.2832)
    u, v = angle.cos() * x + angle.sin() * y, -angle.sin() * x + angle.cos() * y
    return torch.sin(k * u + phase[:, 0]), torch.sin(k * v + phase[:, 1])


def _textured(rng: Rng, name: str, n: int, size: int) -> Tensor:
    """(n, size, size) share of the second color in [0, 1] of n objects of one texture."""
    x, y = _axes(size)
    a, b = _stripes(rng, n, size, 4, 6.5)
    angle = rng.uniform(n, 1, 1, high=6.2832)
    match name:
        case "striped":
            return (a * 4 + 0.5).clamp(0, 1)
        case "dotted":
            return ((a + b - 1.0) * 4).clamp(0, 1)
        case "checkered":
            return (a * b * 6 + 0.5).clamp(0, 1)
        case "grainy":
            return rng.uniform(n, size, size).square()
        case "shaded":
            return (0.5 + 0.6 * (angle.cos() * x + angle.sin() * y)).clamp(0, 1)
    raise ValueError(f"no pattern for texture {name!r}")


def _pattern(rng: Rng, texture: Tensor, size: int) -> Tensor:
    """(n, size, size) share of the second color in [0, 1]; texture: (n,) indices into VALUES["texture"]."""
    out = torch.zeros(texture.shape[0], size, size)
    for name in ("striped", "dotted", "checkered", "grainy", "shaded"):
        rows = (texture == VALUES["texture"].index(name)).nonzero()[:, 0]
        out[rows] = _textured(rng, name, rows.shape[0], size)
    return out


def masks(rng: Rng, objects: Objects, size: int) -> Tensor:
    """(object, size, size) opacity of each object, in [0, 1]."""
    m = objects.image.shape[0]
    field = torch.empty(m, size, size)
    # Numbers are drawn for all objects, used or not, so those of one object do not depend on what the others are.
    wave_field = torch.cat([rng.normal(m, 2, 2, std=3.0), rng.normal(m, 2, 2, std=0.7)], dim=1)
    softness = rng.uniform(m, 1, 1, low=0.8, high=1.8)
    hand, drawn = objects.written.nonzero()[:, 0], (~objects.written).nonzero()[:, 0]
    points = strokes.write(rng, objects.drawing[hand], objects.shear[hand], objects.rotation[hand], objects.wave[hand])
    # Thick strokes stay inside the box as well: shrink the skeleton by the stroke's radius.
    radius, bold = objects.radius[hand, None, None], objects.bold[hand, None, None]
    points = points * radius * (1 - bold).clamp(min=0.5) + objects.center[hand, None]
    field[hand] = bold * radius * (size / 2) - strokes.distance(points, size)
    field[drawn] = sprites.sample(
        objects.drawing[drawn], objects.center[drawn], objects.radius[drawn], objects.aspect[drawn],
        objects.shear[drawn], objects.rotation[drawn], objects.wave[drawn], wave_field[drawn], size,
    ) + (objects.bold * objects.radius)[drawn, None, None] * (size / 2)  # fmt: skip
    hollow = (objects.texture == VALUES["texture"].index("hollow"))[:, None, None]
    wall = (objects.radius[:, None, None] * size * 0.11).clamp(min=1.0)
    field = torch.where(hollow, wall - (field - wall).abs(), field)
    return (field / softness + 0.5).clamp(0, 1)


def _second(color: Tensor) -> Tensor:
    """A darker or, for dark colors, lighter companion of (n, 3) colors."""
    dark = color.mean(1, keepdim=True) < 0.35
    return torch.where(dark, color + (1 - color) * 0.6, color * 0.35)


def _backdrop(rng: Rng, scene: Scene, size: int) -> Tensor:
    """(n, 3, size, size) backgrounds; writes the attribute `ground`."""
    views = scene.views
    n = views.shape[0]
    index = views[:, 0, COLUMN["background"]].long()
    extreme = (index == 8) | (index == 9)  # white, black: plain in scans
    color = (RGB[index] + rng.normal(n, 3, std=0.03)).clamp(0, 1)
    ground = torch.where(extreme & rng.chance(n, 0.75), 0, rng.choice(n, [0.5, 0.08, 0.06, 0.12, 0.12, 0.12]))
    x, y = _axes(size)
    angle = rng.uniform(n, 1, 1, high=6.2832)
    a, b = _stripes(rng, n, size, 2, 5)
    coarse = interpolate(rng.uniform(n, 1, 4, 4), size=(size, size), mode="bicubic", align_corners=False)[:, 0]
    patterns = torch.stack([
        torch.zeros(n, size, size), (a * 3 + 0.5).clamp(0, 1), (a * b * 5 + 0.5).clamp(0, 1),
        (0.5 + 0.6 * (angle.cos() * x + angle.sin() * y)).clamp(0, 1), rng.uniform(n, size, size), coarse.clamp(0, 1),
    ], dim=1)  # fmt: skip
    share = patterns[torch.arange(n), ground] * rng.uniform(n, 1, 1, low=0.25, high=0.45)
    views[:, :, COLUMN["ground"]] = ground[:, None].to(views.dtype)
    base = color[:, :, None, None]
    return base + (_second(color)[:, :, None, None] - base) * share[:, None]


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with one width (in pixels) per image."""
    n, channels, size, _ = images.shape
    t = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    kernel = torch.exp(-(t.square() / (2 * sigma.square()[:, None])))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = pad(images.reshape(1, n * channels, size, size), (BLUR_RADIUS,) * 4, mode="replicate")
    flat = conv2d(flat, kernel[:, None, :, None], groups=n * channels)
    return conv2d(flat, kernel[:, None, None, :], groups=n * channels).view(n, channels, size, size)


def degrade(rng: Rng, images: Tensor, views: Tensor) -> Tensor:
    """Blur, noise, low resolution, contrast; writes the attribute `quality`. images: (n, 3, s, s) in [0, 1]."""
    n, _, size, _ = images.shape
    glyph = (views[:, 0, COLUMN["shape"]] < 0) & (views[:, 1, COLUMN["shape"]] < 0)
    # Low resolution is for single characters that fill the frame: at eight pixels nothing smaller would remain.
    glyph &= views[:, 0, COLUMN["size"]] == VALUES["size"].index("large")
    draw = rng.choice(n, [0.55, 0.17, 0.14, 0.14])
    draw = torch.where(glyph & rng.chance(n, 0.3), 3, torch.where(~glyph & (draw == 3), 0, draw))
    contrast = torch.where(rng.chance(n, 0.3), rng.uniform(n, low=0.55, high=1.0), torch.ones(n))[:, None, None, None]
    middle = rng.uniform(n, 1, 1, 1, low=0.3, high=0.7)
    images = middle + (images - middle) * contrast
    rows = (draw == QUALITY.index("blurry")).nonzero()[:, 0]
    images[rows] = _blur(images[rows], rng.uniform(rows.shape[0], low=0.8, high=1.6))
    rows = (draw == QUALITY.index("noisy")).nonzero()[:, 0]
    noise = rng.normal(rows.shape[0], 3, size, size)
    noise = torch.where(rng.chance(rows.shape[0], 0.5)[:, None, None, None], noise, noise[:, :1])
    images[rows] += noise * rng.uniform(rows.shape[0], 1, 1, 1, low=0.06, high=0.2)
    low = (draw == QUALITY.index("pixelated")) * rng.choice(n, [0.4, 0.2, 0.1, 0.15, 0.15]).add(1)
    for k, pixels in enumerate((8, 10, 12, 14, 16), start=1):
        rows = (low == k).nonzero()[:, 0]
        small = interpolate(images[rows], size=(pixels, pixels), mode="area")
        images[rows] = interpolate(small, size=(size, size), mode="bicubic", align_corners=False)
    views[:, :, COLUMN["quality"]] = draw[:, None].to(views.dtype)
    return images.clamp(0, 1)


def paint(rng: Rng, scene: Scene, size: int) -> Tensor:
    """(n, 3, size, size) images in [0, 1]; completes the scene's ground truth (`ground`, `quality`)."""
    objects = scene.objects
    images = _backdrop(rng, scene, size)
    opacity = masks(rng, objects, size)
    color = (RGB[objects.color] + rng.normal(objects.color.shape[0], 3, std=0.03)).clamp(0, 1)
    share = _pattern(rng, objects.texture, size)[:, None]
    base = color[:, :, None, None]
    fill = base + (_second(color)[:, :, None, None] - base) * share
    for slot in range(MAX_OBJECTS):
        rows = (objects.slot == slot).nonzero()[:, 0]
        target = objects.image[rows]
        images[target] = torch.lerp(images[target], fill[rows], opacity[rows, None])
    return degrade(rng, images, scene.views)
