"""Reading coordinates from a plain forward pass, with hooks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from residualign.decomposition.attention_readout import AttentionReadout, TracedTokens
from residualign.decomposition.coordinates import Coordinates
from residualign.decomposition.maps import MeanRule, working_dtype
from residualign.models.finite import refuse_embeddings
from residualign.models.pooling import AttentionPooling, MeanPooling, TokenPooling
from residualign.models.tower import Tower

__all__ = ["Trace", "trace_coordinates"]


class Trace:
    """A context in which every forward pass of the tower records the unit values of the pooled token or tokens.

    The heads' values are the *input* of the output projection, so any attention kernel will do and no attention matrix
    of the tower is held. Hooks only read, and are removed when the body ends or raises. Contexts nest. Gradients are
    not recorded.

    For a pooled token, and for a mean that comes before the norm, one row per layer is kept: (2 x layer + 1) x width
    numbers per image. Where every token is normed before it is pooled (mean or attention), the weights are known only
    at the end: all tokens of all layers are held until then, (2 x layer + 1) x token x width numbers per image.

        with Trace(tower) as trace:
            output = tower.forward(pixels)
        coordinates = trace.coordinates(output)
    """

    def __init__(self, tower: Tower) -> None:
        self._tower = tower
        self._values: dict[int, Tensor] = {}
        self._mlps: dict[int, Tensor] = {}
        self._embedding: Tensor | None = None
        self._stream: Tensor | None = None
        self._normed: Tensor | None = None
        self._pool_mlp: Tensor | None = None
        self._pooled: Tensor | None = None
        self._handles: list[RemovableHandle] = []
        self._exchanged = ExitStack()

    def __enter__(self) -> Trace:
        tower, handles = self._tower, self._handles
        self._exchanged.enter_context(tower.exchange())
        for layer, block in enumerate(tower.blocks):
            handles.append(block.out_proj.register_forward_pre_hook(self._value_hook(layer)))
            handles.append(block.mlp.register_forward_hook(self._mlp_hook(layer)))
        handles.append(tower.final_norm.register_forward_hook(self._norm_hook))
        if not isinstance(tower.pooling, TokenPooling):
            handles.append(tower.entry.register_forward_pre_hook(self._entry_hook))
        if isinstance(tower.pooling, AttentionPooling) and tower.pooling.mlp is not None:
            handles.append(tower.pooling.mlp.register_forward_hook(self._pool_mlp_hook))
        if isinstance(tower.pooling, AttentionPooling) and tower.pooling.norm is not None:
            handles.append(tower.pooling.norm.register_forward_pre_hook(self._pooled_hook))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._exchanged.close()

    def coordinates(self, output: Float[Tensor, "image dim"], rule: MeanRule = "shared") -> Coordinates:
        """The coordinates of the last forward pass, given its output.

        In the tower's dtype, float32 for half types. rule: as in `unit_maps`; only contributions depend on it. Costs
        O(image x layer x width), over all tokens where they are held.
        """
        if self._stream is None:
            raise RuntimeError("no forward pass was traced")
        tower, pooling = self._tower, self._tower.pooling
        layers = range(len(tower.blocks))
        if isinstance(pooling, AttentionPooling):
            assert self._embedding is not None
            assert self._normed is not None
            tokens = TracedTokens(
                embedding=self._embedding,
                values=[self._values[layer] for layer in layers],
                mlps=[self._mlps[layer] for layer in layers],
                stream=self._stream,
                normed=self._normed,
                pool_mlp=self._pool_mlp,
            )
            return AttentionReadout.of(tower, rule).coordinates(tokens, output)
        dtype = working_dtype(tower.dtype)
        stream = self._stream.to(dtype)
        inverse_std = torch.rsqrt(stream.var(dim=-1, correction=0) + tower.final_norm.eps)
        mean_over_std = stream.mean(dim=-1) * inverse_std

        def over_sigma(x: Tensor) -> Tensor:
            if inverse_std.ndim == 1:
                return x.to(dtype) * inverse_std[:, None]
            weights = inverse_std[:, None] / inverse_std.shape[1]
            return (weights @ x.to(dtype)).squeeze(1)

        heads = torch.stack([over_sigma(self._values[layer]) for layer in layers], dim=1)
        mlps = torch.stack([self._scaled(layer, over_sigma(self._mlps[layer])) for layer in layers], dim=1)
        one_norm = inverse_std.ndim == 1
        return Coordinates(
            heads=heads.view(len(stream), len(layers), tower.n_heads, tower.head_dim),
            mlps=mlps,
            inverse_std=inverse_std if one_norm else inverse_std.mean(dim=-1),
            mean_over_std=mean_over_std if one_norm else mean_over_std.mean(dim=-1),
            output=output.to(dtype),
            embedding=None if self._embedding is None else over_sigma(self._embedding),
        )

    def query_weights(self, n_tokens: int) -> Float[Tensor, "image pool_head query"]:
        """The weight of each pooled token in the last forward pass, its 1 / sigma included.

        n_tokens: number of tokens in a block, with those that are not pooled; queries are counted from the first that
        is pooled. There is one pooling head unless the tower pools by attention.
        """
        assert self._stream is not None
        tower, pooling = self._tower, self._tower.pooling
        dtype = working_dtype(tower.dtype)
        inverse_std = torch.rsqrt(self._stream.to(dtype).var(dim=-1, correction=0) + tower.final_norm.eps)
        if isinstance(pooling, TokenPooling):
            return inverse_std[:, None, None]
        if isinstance(pooling, AttentionPooling):
            assert self._normed is not None
            return AttentionReadout.of(tower, "shared").weights(self._normed.to(dtype)) * inverse_std[:, None]
        n_queries = n_tokens - pooling.first
        each = inverse_std if inverse_std.ndim == 2 else inverse_std[:, None].expand(-1, n_queries)
        return each[:, None] / n_queries

    def pooled_values(self, layer: int) -> Float[Tensor, "image pool_head head head_dim"]:
        """The heads' values of a layer, weighted by `query_weights`: what coordinates are made of."""
        values = self._values[layer].to(working_dtype(self._tower.dtype))
        # where one row was kept, tokens were averaged before the norm
        kept = values if values.ndim == 3 else values[:, None]
        weights = self.query_weights(kept.shape[1] + getattr(self._tower.pooling, "first", 0))
        pooled: Tensor = (weights @ kept).unflatten(-1, (self._tower.n_heads, -1))
        return pooled

    def last_scale(self) -> Float[Tensor, " image"] | None:
        """1 / sigma of the norm after an attention pooling; None without such a norm."""
        if self._pooled is None:
            return None
        assert isinstance(self._tower.pooling, AttentionPooling)
        assert self._tower.pooling.norm is not None
        pooled = self._pooled.to(working_dtype(self._tower.dtype))
        return torch.rsqrt(pooled.var(dim=-1, correction=0) + self._tower.pooling.norm.eps)

    def _scaled(self, layer: int, mlp: Tensor) -> Tensor:
        scale = self._tower.blocks[layer].mlp_scale
        return mlp if scale is None else mlp * scale.to(mlp)

    def _put(self, rows: dict[int, Tensor], layer: int, x: Tensor) -> None:
        """Keep what is needed from one layer's (image, token, size) activations."""
        kept = self._needed(x)
        if kept.ndim == 3:
            rows[layer] = kept
            return
        if layer == 0 or rows[0].shape != kept.shape or rows[0].dtype != kept.dtype:
            # a copy of the pooled rows, as a view would keep the layer's activations alive; and one block of memory for
            # all layers, as a small one after each would keep the allocator from using the memory below it again
            rows.update(enumerate(kept.new_empty(len(self._tower.blocks), *kept.shape).unbind()))
        rows[layer].copy_(kept)

    def _needed(self, x: Tensor) -> Tensor:
        """The pooled row of (image, token, size), or all tokens where their weights are known only at the end."""
        pooling = self._tower.pooling
        if isinstance(pooling, TokenPooling):
            return x[:, pooling.index].detach()
        tokens = x[:, pooling.first :].detach()
        return tokens.mean(dim=1) if isinstance(pooling, MeanPooling) and not pooling.norm_first else tokens

    def _value_hook(self, layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._put(self._values, layer, args[0])

        return hook

    def _mlp_hook(self, layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            self._put(self._mlps, layer, output)

        return hook

    def _entry_hook(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._embedding = self._needed(args[0])

    def _norm_hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        pooling, stream = self._tower.pooling, args[0]
        # some families pool before the norm, some after it
        pooled = stream.ndim == 2 or (isinstance(pooling, MeanPooling) and not pooling.norm_first)
        # a copy where it is one row: a view would keep all tokens alive
        needed = stream.detach() if pooled else self._needed(stream)
        self._stream = needed.clone() if needed.ndim == 2 else needed
        self._normed = self._needed(output) if isinstance(pooling, AttentionPooling) else None

    def _pool_mlp_hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self._pool_mlp = (output if output.ndim == 2 else output[:, 0]).detach().clone()

    def _pooled_hook(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        # the other queries are for captions
        self._pooled = (args[0] if args[0].ndim == 2 else args[0][:, 0]).detach().clone()


def trace_coordinates(
    tower: Tower,
    pixels: Float[Tensor, "image 3 height width"],
    rule: MeanRule = "shared",
    names: Sequence[str] | None = None,
) -> Coordinates:
    """Run one plain forward pass of one batch, and return its coordinates, which are finite.

    names: what the images are called in the `BadInputError` that is raised where they are not.
    """
    with torch.no_grad(), Trace(tower) as trace:
        coordinates = trace.coordinates(tower.run(pixels, names), rule)
    for tensor in coordinates.tensors().values():
        refuse_embeddings(tensor, pixels, names)
    return coordinates
