"""From a model and images to maps: how much of a head's contribution came from each patch, exactly."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from residualign.data.given import SplitImages, given_images
from residualign.decomposition.attention_readout import AttentionReadout
from residualign.decomposition.coordinates import Coordinates, UnitMaps
from residualign.decomposition.maps import unit_maps, working_dtype
from residualign.decomposition.trace import Trace
from residualign.errors import BadInputError, refuse_bare_text
from residualign.load import TOLERANCES
from residualign.location.attention import SeenAttention, watch_attention
from residualign.location.result import Location, Target, shown_pixels
from residualign.models.pooling import AttentionPooling
from residualign.models.tower import Tower
from residualign.models.vision_model import Images, VisionModel, image_names
from residualign.spectrum.spectrum import Spectra
from residualign.units import Unit

__all__ = ["locate", "patch_grid", "text_direction"]


def locate(
    model: VisionModel,
    images: Images,
    units: Sequence[Unit | str],
    *,
    direction: Float[Tensor, " dim"] | Float[Tensor, "image dim"] | Mapping[str, Tensor] | None = None,
    components: Sequence[int] | None = None,
    spectra: Spectra | None = None,
    text: str | None = None,
    against: Sequence[str] = (),
    batch_size: int = 8,
    names: Sequence[str] | None = None,
) -> Location:
    """Find which patches of each image the contributions of some heads come from.

    Parameters
    ----------
    model : VisionModel
        The model, from `load_model`.
    images : list of PIL images, paths or (height, width, 3) uint8 arrays, or (image, 3, height, width) tensor
        Pictures, or preprocessed pixels; also a generator of pictures, a single one, or a `Split`.
    units : sequence of Unit or str
        Heads, such as ["L5.H3"].
    direction : (dim,) or (image, dim) tensor, or mapping of these by unit label, optional
        The direction that maps follow, the same for all images or one per image. At most one of direction, components
        and text is given; with none of them a map shows the length of each part.
    components : sequence of int, optional
        Principal components of each head that maps follow, by index from 0; needs `spectra`.
    spectra : Spectra, optional
        Where the components are from.
    text : str, optional
        The text that maps follow.
    against : sequence of str
        Texts to contrast `text` with: maps follow its difference to their mean.
    batch_size : int
        Images per forward pass.
    names : sequence of str, optional
        What the images are called; by default their paths, or their positions.

    Returns
    -------
    Location
        Its parts sum to the contribution of each head.

    Raises
    ------
    BadInputError
        For a unit that is not a head, an attention that cannot be taken apart (naming the layer), and parts that do not
        sum to the traced value; and where an embedding is NaN or infinite.

    Notes
    -----
    One plain forward pass, plus image x head x pooled query x token attention weights for each chosen layer: one query
    where a token is pooled, all of them otherwise. Runs in the tower's dtype, float32 for half types.

    References
    ----------
    A head as a sum over tokens: Gandelsman et al., arXiv 2310.05916, sections 3.1 and 5.
    """
    images = given_images(images)
    tower = model.tower
    chosen = _heads(tower, units)
    _check_one(direction=direction, components=components, text=text)
    if text is not None:
        direction = text_direction(model, text, against)
    maps = unit_maps(tower)
    if components is not None:
        targets, shared = _components(chosen, components, spectra, maps)
    else:
        targets = tuple(Target(unit.label) for unit in chosen)
        shared = None
    kind: Literal["direction", "norm"] = "norm" if direction is None and components is None else "direction"
    called = names or image_names(images, 0, len(images))
    names = names or _names(images)
    found = []
    for start in range(0, max(len(images), 1), batch_size):
        part = slice(start, start + batch_size)
        directions = shared or _of_images(direction, chosen, part, maps, len(images))
        pixels = model.pixels(images[part])
        located = _locate_batch(tower, maps, pixels, called[part], targets, chosen, directions, kind)
        pictures = (255 * shown_pixels(pixels, model.preprocess.describe())).round().to(torch.uint8)
        found.append(replace(located, names=tuple(names[part]), pictures=pictures))
    return Location.cat(found)


def _names(images: Tensor | Sequence[Any]) -> Sequence[str]:
    """Keys of a split, paths, or positions."""
    if isinstance(images, Tensor | SplitImages):
        return [str(i) for i in range(len(images))] if isinstance(images, Tensor) else images.split.keys
    return [os.fspath(image) if isinstance(image, str | os.PathLike) else str(i) for i, image in enumerate(images)]


def text_direction(model: VisionModel, text: str, against: Sequence[str] = ()) -> Float[Tensor, " dim"]:
    """The unit vector of a text, less the mean of those of other texts where there are any, made unit again.

    All texts of a model share a large part, which says "an image"; with others to compare, what is left is what sets
    this one apart. `BadInputError` for a model without a text tower.
    """
    refuse_bare_text("against", against)
    with torch.no_grad():
        vectors = F.normalize(model.encode_text([text, *against]).to(working_dtype(model.tower.dtype)), dim=-1)
    own: Tensor = vectors[0] if not against else vectors[0] - vectors[1:].mean(dim=0)
    return F.normalize(own, dim=-1)


def _locate_batch(
    tower: Tower,
    maps: UnitMaps,
    pixels: Tensor,
    names: Sequence[str],
    targets: tuple[Target, ...],
    units: Sequence[Unit],
    directions: Mapping[str, Tensor] | None,
    kind: Literal["direction", "norm"],
) -> Location:
    """One batch. directions: (image or 1, direction, dim) by unit."""
    layers = {unit.layer for unit in units if unit.layer is not None}
    with torch.no_grad(), Trace(tower) as trace:
        with watch_attention(tower, layers) as seen:
            output = tower.run(pixels, names)
        coordinates = trace.coordinates(output)
        scale = trace.last_scale()
        columns = []
        error = 0.0
        for unit in units:
            own = None if directions is None else directions[unit.label]
            part, unit_error = _of_unit(tower, maps, trace, seen, coordinates, unit, own, scale)
            columns.append(part)
            error = max(error, unit_error)
    tokens, constant, total = (torch.cat(parts, dim=1) for parts in zip(*columns, strict=True))
    rows, wide = patch_grid(tower, tokens.shape[2] - tower.n_prefix, *pixels.shape[-2:])
    patches = tokens[:, :, tower.n_prefix :].unflatten(2, (rows, wide))
    nothing = torch.empty(len(total), 0, 0, 3, dtype=torch.uint8)
    return Location(targets, kind, patches, tokens[:, :, : tower.n_prefix], constant, total, error, (), nothing)


def _of_unit(
    tower: Tower,
    maps: UnitMaps,
    trace: Trace,
    seen: Mapping[int, SeenAttention],
    coordinates: Coordinates,
    unit: Unit,
    directions: Tensor | None,
    scale: Tensor | None,
) -> tuple[tuple[Tensor, Tensor, Tensor], float]:
    """(image, target, token) parts, (image, target) constants and totals of one head; and the error of its sum."""
    assert unit.layer is not None
    assert unit.head is not None
    attention = seen[unit.layer]
    parts, constant = _head_parts(attention, trace.query_weights(attention.values.shape[2]), unit.head)
    traced = trace.pooled_values(unit.layer)
    value = traced[:, :, unit.head]
    error = _error(parts.sum(dim=2) + constant, value, traced, tower, unit)
    if isinstance(tower.pooling, AttentionPooling):
        to_output = AttentionReadout.of(tower, "shared").head_map(unit.layer, unit.head)
    else:
        to_output = maps.weight(unit)[None, :-2]
    contribution = maps.contribution(coordinates, unit)
    own_scale = contribution.new_ones(1) if scale is None else scale
    rest = contribution - own_scale[:, None] * torch.einsum("npc,pcd->nd", value - constant, to_output)
    if directions is None:
        vectors = own_scale[:, None, None] * torch.einsum("nptc,pcd->ntd", parts, to_output)
        lengths = (vectors.norm(dim=-1), rest.norm(dim=-1), contribution.norm(dim=-1))
        return (lengths[0][:, None], lengths[1][:, None], lengths[2][:, None]), error
    # (image or 1, target, pool_head, head_dim): the direction as a head's value sees it
    seen_along = torch.einsum("pcd,nkd->nkpc", to_output, directions) * own_scale[:, None, None, None]
    seen_along = seen_along.expand(len(contribution), -1, -1, -1)
    tokens = torch.einsum("nptc,nkpc->nkt", parts, seen_along)
    along = directions.expand(len(contribution), -1, -1)
    return (tokens, torch.einsum("nd,nkd->nk", rest, along), torch.einsum("nd,nkd->nk", contribution, along)), error


def _error(total: Tensor, value: Tensor, traced: Tensor, tower: Tower, unit: Unit) -> float:
    """The sum of the parts against what went into the output projection; `BadInputError` where they differ."""
    error = float((total - value).abs().max() / traced.abs().max().clamp_min(torch.finfo(traced.dtype).tiny))
    if not error <= TOLERANCES[tower.dtype]:
        raise BadInputError(
            f"the parts of {unit.label} do not sum to its value (relative error {error:.1e}): something other than a "
            f"LayerNorm stands between the attention of layer {unit.layer} and its output projection (a gate or scale)"
        )
    return error


def _heads(tower: Tower, units: Sequence[Unit | str]) -> tuple[Unit, ...]:
    if not units or isinstance(units, str):
        raise BadInputError(f"units is a list of heads such as ['L3.H7']; got {units!r}")
    chosen = tuple(tower.units.get(unit) for unit in units)
    for unit in chosen:
        if unit.kind != "head":
            raise BadInputError(
                f"{unit.label} is not a head: only what attention reads from other tokens has a place in the image"
            )
    return tuple(dict.fromkeys(chosen))


def _check_one(**given: Any) -> None:
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise BadInputError(f"a map is along one thing: at most one of {', '.join(given)}; got {' and '.join(names)}")


def _components(
    units: Sequence[Unit], components: Sequence[int], spectra: Spectra | None, maps: UnitMaps
) -> tuple[tuple[Target, ...], dict[str, Tensor]]:
    """Targets, unit by unit, and each unit's components as directions."""
    if spectra is None:
        raise BadInputError("components need spectra to take them from; give spectra too")
    if not components:
        raise BadInputError("components is empty; expected at least one, counted from 0")
    directions = {}
    for unit in units:
        own = spectra[unit.label].components
        if not len(own):
            raise BadInputError(
                f"nothing varies: {unit.label} has no components in these spectra ({spectra.source}); take spectra of "
                "several different images"
            )
        for k in components:
            if not 0 <= k < len(own):
                raise BadInputError(f"{unit.label} has components 0 to {len(own) - 1}; got {k}")
        directions[unit.label] = own[list(components)].to(maps.embedding)[None]
    return tuple(Target(unit.label, k) for unit in units for k in components), directions


def _of_images(
    direction: Tensor | Mapping[str, Tensor] | None,
    units: Sequence[Unit],
    part: slice,
    maps: UnitMaps,
    n_images: int,
) -> dict[str, Tensor] | None:
    """The directions of some images by unit, each (image or 1, 1, dim)."""
    if direction is None:
        return None
    by_unit = direction if isinstance(direction, Mapping) else {unit.label: direction for unit in units}
    found = {}
    for unit in units:
        own = by_unit.get(unit.label)
        if own is None or tuple(own.shape) not in ((maps.dim,), (n_images, maps.dim)):
            got = "none" if own is None else tuple(own.shape)
            raise BadInputError(
                f"the direction for {unit.label} is of shape ({maps.dim},) or ({n_images}, {maps.dim}); got {got}"
            )
        vectors = own[None] if own.ndim == 1 else own[part]
        found[unit.label] = vectors[:, None].to(maps.embedding)
    return found


def _head_parts(
    seen: SeenAttention, query_weights: Float[Tensor, "image pool_head query"], head: int
) -> tuple[Float[Tensor, "image pool_head token head_dim"], Float[Tensor, "image pool_head head_dim"]]:
    """The part of each token in a head's pooled value, and the part that belongs to none; they sum to the value.

    O(image x pool_head x query x token), and the same over all heads where a norm follows.
    """
    n_heads, head_dim = seen.values.shape[1], seen.values.shape[-1]
    norm = seen.norm
    within = query_weights if norm is None else query_weights * norm.inverse_std[:, None]
    values = seen.values[:, head]
    tokens = torch.einsum("npq,nqt->npt", within, seen.weights[:, head])[..., None] * values[:, None]
    if norm is None:
        return tokens, torch.zeros_like(tokens[:, :, 0])
    own = slice(head * head_dim, (head + 1) * head_dim)
    # the mean over all heads of what each token gave to the pooled queries
    means = torch.einsum("npq,nhqt,nht->npt", within, seen.weights, seen.values.mean(dim=-1)) / n_heads
    constant = torch.zeros_like(tokens[:, :, 0])
    if norm.bias is not None:
        constant = constant + query_weights.sum(dim=-1, keepdim=True) * norm.bias[own]
    return (tokens - means[..., None]) * norm.weight[own], constant


def patch_grid(tower: Tower, n_patches: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the patches of pixels of this size, row by row as every family orders its tokens.

    By the size of the patch convolution; where that does not say it, patches are taken to be square. `BadInputError`
    where no grid has so many patches.
    """
    weight = tower.tensors.get("embedding.patch.weight")
    if weight is not None and weight.ndim == 4:
        high, wide = weight.shape[-2:]
        # a convolution drops what is left over at the edge; some towers pad it instead
        for rows, columns in ((height // high, width // wide), (-(-height // high), -(-width // wide))):
            if rows * columns == n_patches:
                return rows, columns
    side = sqrt(height * width / n_patches) if n_patches else 0.0
    rows, columns = (round(height / side), round(width / side)) if side else (0, 0)
    if n_patches and rows * columns == n_patches:
        return rows, columns
    raise BadInputError(
        f"{n_patches} patches of an image of {height} x {width} pixels do not form a grid of square patches, so the "
        "position of each is not known"
    )
