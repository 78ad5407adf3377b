"""Contributions to an embedding that is pooled by attention.

The pooled vector is, per pooling head p, the attention-weighted sum of the normed tokens through that head's value and
output matrices. Given the weights w_pt and each token's own mu_t and sigma_t, all of it is linear in the stream:

    pooled = sum_p [ sum_t (w_pt / sigma_t) x_t V_p - sum_t (w_pt mu_t / sigma_t) 1 V_p + beta W_p + b_p ] O_p + b_O

with V_p = diag(gamma) W_p, W_p and b_p the head's value projection, O_p its rows of the output projection; the weights
of a head sum to one. Terms that do not belong to a unit are shared out by the rule in `maps`. The pooling's own MLP is
one more unit, without a share. A norm after the pooling (CoCa) is made linear by the same rule.

Cost per layer and image: O(pool_head x token x width) for the sums, O(width x value_width + head x value_width x dim)
for the products: below a hundredth of the layer itself. Source: design section 2.3; the value and output matrices of an
attention head as in arXiv 2310.05916, section 3.2, here of the pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from residualign.decomposition.coordinates import Coordinates
from residualign.decomposition.maps import MeanRule, output_projection, working_dtype
from residualign.models.pooling import AttentionPooling
from residualign.models.tower import Tower

__all__ = ["AttentionReadout", "TracedTokens"]


@dataclass(frozen=True)
class TracedTokens:
    """All tokens of one forward pass, (image, token, size) each.

    values, mlps: by layer. stream: the residual stream after the last block. normed: the same after the final norm,
    which is what the pooling reads. pool_mlp: (image, pool_dim), or None.
    """

    embedding: Tensor
    values: Sequence[Tensor]
    mlps: Sequence[Tensor]
    stream: Tensor
    normed: Tensor
    pool_mlp: Tensor | None


class AttentionReadout:
    """The fixed matrices of one tower's pooling: at most layer x width x value_width x pool_head numbers.

    Computed once, in float64, and kept in the tower's working dtype.
    """

    def __init__(self, tower: Tower, rule: MeanRule) -> None:
        assert isinstance(tower.pooling, AttentionPooling)
        self._tower, self._pooling, self._rule = tower, tower.pooling, rule
        pooling, width, n_heads = tower.pooling, tower.width, tower.n_heads
        self._share = 1.0 / tower.units.n_groups
        value = pooling.value.weight.detach().double()
        p = pooling.n_heads
        e = value.shape[0] // p
        gamma, beta = tower.final_norm.weight.detach().double(), tower.final_norm.bias
        # (pool_head, width, e)
        values = (value.T * gamma[:, None]).view(width, p, e).permute(1, 0, 2)
        ones = values.sum(dim=1)
        constant = torch.zeros_like(ones)
        if beta is not None:
            constant = constant + (beta.detach().double() @ value.T).view(p, e)
        if pooling.value.bias is not None:
            constant = constant + pooling.value.bias.detach().double().view(p, e)
        if rule == "own":
            values = values - ones[:, None] / width
            ones = torch.zeros_like(ones)
        products, biases = [], []
        for block in tower.blocks:
            weight, bias = output_projection(block, width)
            # (pool_head, head, head_dim, e)
            products.append(torch.einsum("hcw,pwe->phce", weight.view(n_heads, -1, width), values))
            biases.append(torch.einsum("w,pwe->pe", bias, values) / n_heads)
        out, out_bias = _last_map(tower)
        dtype = working_dtype(tower.dtype)
        self._values, self._ones, self._constant = (t.to(dtype) for t in (values, ones, constant))
        self._products = [product.to(dtype) for product in products]
        self._biases = [bias.to(dtype) for bias in biases]
        self._out, self._out_bias = out.to(dtype), out_bias.to(dtype)
        self._is_last = pooling.norm is None and tower.projection is None

    @classmethod
    def of(cls, tower: Tower, rule: MeanRule) -> AttentionReadout:
        """The readout of a tower, from its cache unless its weights were changed, moved or converted."""
        weights = (weight for weight in tower.tensors.values() if not weight.is_inference())
        key = (rule, tower.dtype, tower.device, sum(weight._version for weight in weights))
        if tower.kept.get("readout_key") != key:
            tower.kept.update(readout_key=key, readout=cls(tower, rule))
        readout: AttentionReadout = tower.kept["readout"]
        return readout

    def coordinates(self, tokens: TracedTokens, output: Float[Tensor, "image dim"]) -> Coordinates:
        """The contributions of one traced forward pass."""
        dtype = self._values.dtype
        tower, n_heads = self._tower, self._tower.n_heads
        stream = tokens.stream.to(dtype)
        inverse_std = torch.rsqrt(stream.var(dim=-1, correction=0) + tower.final_norm.eps)
        attention = self.weights(tokens.normed.to(dtype))
        weights = attention * inverse_std[:, None]
        # (image, pool_head, 1): of 1 / sigma and of mu / sigma
        scale = weights.sum(dim=-1, keepdim=True)
        mean = (weights @ stream.mean(dim=-1)[..., None]).view(scale.shape)
        # what every group gets: (image, pool_head, e)
        shared = (self._constant - mean * self._ones) * self._share

        def pooled(x: Tensor, layer_scale: Tensor | None = None) -> Tensor:
            summed = weights @ x.to(dtype)
            if layer_scale is not None:
                summed = summed * layer_scale.to(dtype)
            return torch.einsum("npw,pwe->npe", summed, self._values) + shared

        embedding = pooled(tokens.embedding)
        scales = [block.mlp_scale for block in tower.blocks]
        mlps = torch.stack([pooled(*pair) for pair in zip(tokens.mlps, scales, strict=True)], dim=1)
        heads = []
        for values, product, bias in zip(tokens.values, self._products, self._biases, strict=True):
            summed = (weights @ values.to(dtype)).unflatten(-1, (n_heads, -1))
            head = torch.einsum("nphc,phce->nhpe", summed, product)
            heads.append(head + (scale * bias + shared / n_heads)[:, None])
        return self._finish(embedding, mlps, torch.stack(heads, dim=1), tokens.pool_mlp, output.to(dtype))

    def weights(self, normed: Tensor) -> Float[Tensor, "image pool_head token"]:
        """The pooling's attention. The bias of keys adds the same to every token's logit, so it is left out."""
        pooling = self._pooling
        query = pooling.query().detach().double().view(pooling.n_heads, -1)
        key = pooling.key.weight.detach().double().view(pooling.n_heads, query.shape[1], -1)
        asked = torch.einsum("pe,pew->pw", query, key).to(normed.dtype)
        return torch.einsum("ntw,pw->npt", normed, asked).softmax(dim=-1)

    def head_map(self, layer: int, head: int) -> Float[Tensor, "pool_head head_dim dim"]:
        """From a head's pooled value to its contribution, without constants and 1 / sigma of a norm after it."""
        product = self._products[layer][:, head]
        n_heads, _, size = product.shape
        out = self._pooling.out.weight.detach().to(product.dtype).T.reshape(n_heads, size, -1)
        mapped = torch.einsum("pce,ped->pcd", product, out)
        return mapped if self._is_last else mapped @ self._out

    def _finish(
        self, embedding: Tensor, mlps: Tensor, heads: Tensor, pool_mlp: Tensor | None, output: Tensor
    ) -> Coordinates:
        """Apply the pooling's output projection, and the norm and projection after it if there are any."""
        n_heads = self._tower.n_heads
        out = self._pooling.out.weight.detach().to(output.dtype).T
        bias = self._pooling.out.bias
        share = self._share * (torch.zeros_like(out[0]) if bias is None else bias.detach().to(output.dtype))
        groups = {"embedding": embedding.flatten(-2) @ out + share, "mlps": mlps.flatten(-2) @ out + share}
        groups["heads"] = heads.flatten(-2) @ out + share / n_heads
        if pool_mlp is not None:
            groups["pool_mlp"] = pool_mlp.to(output.dtype)
        norm = self._pooling.norm
        inverse_std = mean = None
        if norm is not None:
            total = groups["embedding"] + groups["mlps"].sum(dim=1) + groups["heads"].sum(dim=(1, 2))
            if "pool_mlp" in groups:
                total = total + groups["pool_mlp"]
            inverse_std = torch.rsqrt(total.var(dim=-1, correction=0) + norm.eps)
            mean = total.mean(dim=-1) * inverse_std
        finished = {name: self._last(name, x, inverse_std, mean) for name, x in groups.items()}
        return Coordinates.of_tensors({**finished, "output": output})

    def _last(self, name: str, x: Tensor, inverse_std: Tensor | None, mean: Tensor | None) -> Tensor:
        """One group's contributions after the last norm and projection, with its share of their constants."""
        if self._is_last:
            return x
        share = {"pool_mlp": 0.0, "heads": self._share / self._tower.n_heads}.get(name, self._share)
        own = x.mean(dim=-1, keepdim=True)
        if inverse_std is not None and mean is not None:
            shape = (-1, *(1,) * (x.ndim - 1))
            lost = mean.view(shape) * share if self._rule == "shared" else own * inverse_std.view(shape)
            x = x * inverse_std.view(shape) - lost
        return x @ self._out + share * self._out_bias


def _last_map(tower: Tower) -> tuple[Float[Tensor, "pool_dim dim"], Float[Tensor, " dim"]]:
    """diag(gamma) P and beta P + b of the norm after the pooling and the projection; identity where absent. float64."""
    assert isinstance(tower.pooling, AttentionPooling)
    size, norm = tower.pooling.out.out_features, tower.pooling.norm
    weight = torch.eye(size, dtype=torch.float64, device=tower.device)
    bias = torch.zeros(size, dtype=torch.float64, device=tower.device)
    if norm is not None:
        weight = torch.diag(norm.weight.detach().double())
        if norm.bias is not None:
            bias = norm.bias.detach().double()
    if tower.projection is not None:
        projection = tower.projection.weight.detach().double().T
        weight, bias = weight @ projection, bias @ projection
        if tower.projection.bias is not None:
            bias = bias + tower.projection.bias.detach().double()
    return weight, bias
