"""The context that reads compact coordinates off a plain forward pass."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from residualign.decomposition.coordinates import Coordinates
from residualign.decomposition.maps import working_dtype
from residualign.models.tower import Tower

__all__ = ["Trace", "trace_coordinates"]


class Trace:
    """While it is open, every forward pass of the tower leaves the pooled token's unit values behind.

    The heads' values are the *input* of the output projection, so any attention kernel serves and no attention matrix
    is held; only the pooled token's row of each is kept: (2 x layer + 1) x width numbers an image. Hooks only read, are
    gone when the body ends or raises, and contexts nest. Gradients are not recorded.

        with Trace(tower) as trace:
            output = tower.forward(pixels)
        coordinates = trace.coordinates(output)
    """

    def __init__(self, tower: Tower) -> None:
        self._tower = tower
        self._values: dict[int, Tensor] = {}
        self._mlps: dict[int, Tensor] = {}
        self._stream: Tensor | None = None
        self._handles: list[RemovableHandle] = []
        self._exchanged = ExitStack()

    def __enter__(self) -> Trace:
        self._exchanged.enter_context(self._tower.exchange())
        for layer, block in enumerate(self._tower.blocks):
            self._handles.append(block.out_proj.register_forward_pre_hook(self._value_hook(layer)))
            self._handles.append(block.mlp.register_forward_hook(self._mlp_hook(layer)))
        self._handles.append(self._tower.final_norm.register_forward_pre_hook(self._stream_hook))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._exchanged.close()

    def coordinates(self, output: Float[Tensor, "image dim"]) -> Coordinates:
        """The coordinates of the last forward pass, given what it returned.

        In the tower's dtype, float32 for half types. Costs O(image x layer x width).
        """
        if self._stream is None:
            raise RuntimeError("no forward pass was traced")
        tower, dtype = self._tower, working_dtype(self._tower.dtype)
        stream = self._stream.to(dtype)
        mean = stream.mean(dim=-1)
        inverse_std = torch.rsqrt(stream.var(dim=-1, correction=0) + tower.final_norm.eps)
        n_layers = len(tower.blocks)
        heads = torch.stack([self._values[layer] for layer in range(n_layers)], dim=1).to(dtype)
        mlps = torch.stack([self._mlps[layer] for layer in range(n_layers)], dim=1).to(dtype)
        return Coordinates(
            heads=(heads * inverse_std[:, None, None]).view(len(stream), n_layers, tower.n_heads, tower.head_dim),
            mlps=mlps * inverse_std[:, None, None],
            inverse_std=inverse_std,
            mean_over_std=mean * inverse_std,
            output=output.to(dtype),
        )

    def _value_hook(self, layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._values[layer] = args[0][:, self._tower.token].detach().clone()

        return hook

    def _mlp_hook(self, layer: int) -> Any:
        scale = self._tower.blocks[layer].mlp_scale

        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            # a copy of one token's row, so that the layer's activations are not kept alive by a view
            row = output[:, self._tower.token].detach()
            self._mlps[layer] = row.clone() if scale is None else row * scale

        return hook

    def _stream_hook(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        stream = args[0]
        # some families pool before the norm, some after it
        self._stream = (stream if stream.ndim == 2 else stream[:, self._tower.token]).detach().clone()


def trace_coordinates(tower: Tower, pixels: Float[Tensor, "image 3 height width"]) -> Coordinates:
    """One plain forward pass of one batch, and the coordinates it leaves behind."""
    with torch.no_grad(), Trace(tower) as trace:
        output = tower.forward(pixels)
        return trace.coordinates(output)
