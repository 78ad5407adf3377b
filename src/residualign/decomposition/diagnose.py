"""Why the units of a tower do not add up: because of its blocks, or of what comes after them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from residualign.models.pooling import AttentionPooling, MeanPooling, TokenPooling
from residualign.models.tower import Tower

__all__ = ["failing_part"]


def failing_part(tower: Tower, pixels: Tensor, tolerance: float) -> str:
    """The part, in words, in which a forward pass differs from the tower's description.

    The stream that enters the final norm is compared with the sum of the embedding and the outputs of all attentions
    and MLPs. Holds all tokens of all layers; for use after a failed check.
    """
    added: list[Tensor] = []
    streams: list[Tensor] = []

    def entry(module: nn.Module, args: tuple[Any, ...]) -> None:
        added.append(args[0].detach().double())

    def final(module: nn.Module, args: tuple[Any, ...]) -> None:
        streams.append(args[0].detach().double())

    def gives(scale: Tensor | None) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            added.append(output.detach().double() * (1.0 if scale is None else scale.double()))

        return hook

    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(tower.exchange())
        handles = [tower.entry.register_forward_pre_hook(entry), tower.final_norm.register_forward_pre_hook(final)]
        for block in tower.blocks:
            handles.append(block.out_proj.register_forward_hook(gives(block.attention_scale)))
            handles.append(block.mlp.register_forward_hook(gives(block.mlp_scale)))
        for handle in handles:
            stack.callback(handle.remove)
        tower.forward(pixels)
    total, stream = _pooled(tower, torch.stack(added).sum(dim=0)), _pooled(tower, streams[-1])
    error = float((total - stream).abs().max() / stream.abs().max())
    if not error <= tolerance:
        return "its blocks: the residual stream is not the sum of what attentions and MLPs add (norms, gates or scales)"
    return "what comes after its blocks: final norm, pooling or projection"


def _pooled(tower: Tower, x: Tensor) -> Tensor:
    """The token or tokens to compare, as some towers pool before the final norm."""
    pooling = tower.pooling
    if x.ndim == 2:
        return x
    if isinstance(pooling, TokenPooling):
        return x[:, pooling.index]
    if isinstance(pooling, AttentionPooling) or pooling.norm_first:
        return x
    assert isinstance(pooling, MeanPooling)
    return x[:, pooling.first :].mean(dim=1)
