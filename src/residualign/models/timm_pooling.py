"""How timm's transformers pool: the class token, the mean of the patches, or one attention query."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from residualign.models.pooling import CLASS_TOKEN, AttentionPooling, MeanPooling, PackedProjection, Pooling

__all__ = ["final_norm", "normed_tokens", "pool_tensors", "pooling_of", "refused_pooling"]


def refused_pooling(model: Any) -> dict[str, bool]:
    """What of pooling and final norm is built otherwise, by name."""
    norms = (model.norm, model.fc_norm)
    parts = {
        f"pooling {model.global_pool!r}": model.global_pool not in ("token", "avg", "map"),
        "no final LayerNorm, or two": sum(isinstance(norm, nn.LayerNorm) for norm in norms) != 1,
    }
    if model.attn_pool is not None:
        parts["an attention pooling of another kind"] = not _is_plain(model.attn_pool)
        parts["a norm after its attention pooling"] = isinstance(model.fc_norm, nn.LayerNorm)
    return parts


def final_norm(model: Any) -> nn.LayerNorm:
    """Before the pooling or after it."""
    norm: nn.LayerNorm = model.fc_norm if isinstance(model.norm, nn.Identity) else model.norm
    return norm


def normed_tokens(model: Any, norm: nn.LayerNorm, pixels: Tensor) -> Tensor:
    """All tokens after the final norm: before the pooling it is in the features, after the pooling it is not."""
    features: Tensor = model.forward_features(pixels)
    return features if norm is model.norm else norm(features)


def pooling_of(model: Any) -> Pooling:
    """The pooling of a model that `refused_pooling` finds nothing in."""
    prefix = model.num_prefix_tokens
    if model.attn_pool is not None:
        # `VisionTransformer` says whether its query sees class token and registers; that of `Eva` sees all tokens
        return _attention_pooling(model.attn_pool, 0 if getattr(model, "pool_include_prefix", True) else prefix)
    if model.global_pool == "avg":
        first = 0 if getattr(model, "pool_include_prefix", False) else prefix
        return MeanPooling(first=first, norm_first=isinstance(model.norm, nn.LayerNorm))
    return CLASS_TOKEN


def _attention_pooling(pool: Any, first: int) -> AttentionPooling:
    """timm's `AttentionPoolLatent`: SigLIP's pooling among others."""
    size = pool.kv.out_features // 2

    def query() -> Tensor:
        asked: Tensor = pool.q(pool.latent)[0, 0] * pool.scale
        return asked

    return AttentionPooling(
        n_heads=pool.num_heads,
        query=query,
        key=PackedProjection(pool.kv.weight, pool.kv.bias, 0, size),
        value=PackedProjection(pool.kv.weight, pool.kv.bias, size, 2 * size),
        out=pool.proj,
        mlp=pool.mlp,
        first=first,
    )


def _is_plain(pool: Any) -> bool:
    """Whether one latent query attends, without positions or norms of queries and keys, and is projected."""
    from timm.layers import AttentionPoolLatent

    if type(pool) is not AttentionPoolLatent or pool.latent_len != 1 or pool.pos_embed is not None:
        return False
    norms = (pool.q_norm, pool.k_norm)
    return all(isinstance(norm, nn.Identity) for norm in norms) and isinstance(pool.proj, nn.Linear)


def pool_tensors(pool: Any) -> dict[str, Tensor]:
    """Its weights under the names that SigLIP has in transformers."""
    tensors = {"pool.probe": pool.latent.flatten()}
    for part, packed in pool.kv.named_parameters():
        for kind, tensor in zip(("key", "value"), packed.chunk(2), strict=True):
            tensors[f"pool.{kind}.{part}"] = tensor
    modules = {"pool.query": pool.q, "pool.out": pool.proj, "pool.norm": pool.norm}
    if pool.mlp is not None:
        names = {"fc1": "in", "fc2": "out"}
        modules |= {f"pool.mlp.{names.get(part, part)}": module for part, module in pool.mlp.named_children()}
    for name, module in modules.items():
        tensors |= {f"{name}.{part}": value for part, value in module.named_parameters()}
    return tensors
