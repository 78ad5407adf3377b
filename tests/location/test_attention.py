"""Attention is seen whichever kernel computes it, nothing is left behind, and what is not understood is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.overrides import _get_current_function_mode_stack

import residualign as ra
from residualign.errors import BadInputError
from residualign.location import locate
from residualign.location.attention import attention_weights, watch_attention
from residualign.location.locate import patch_grid
from tests import random_models


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return ra.load_model(random_models.save_clip(tmp_path_factory.mktemp("models") / "clip"), dtype="float64")


def hooks(model):
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.module.modules())


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("mask", [None, "bool", "added"])
def test_weights_are_those_of_torchs_kernel(mask, scale):
    q, k, v = normal(2, 3, 5, 7), normal(2, 3, 11, 7), torch.eye(11, dtype=torch.float64).expand(2, 3, 11, 11)
    if mask is not None:
        mask = normal(5, 11) > -0.5 if mask == "bool" else normal(2, 1, 5, 11)
    found = attention_weights(q, k, mask, scale)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale))


class Attending(nn.Module):
    """The attention of a block exchanged for another, to see what is made of its arguments."""

    def __init__(self, attention, **options):
        super().__init__()
        self.attention, self.options = attention, options

    def forward(self, hidden_states, **_):
        a, n_heads = self.attention, random_models.N_HEADS
        q, k, v = (
            part(hidden_states).unflatten(-1, (n_heads, -1)).transpose(1, 2) for part in (a.q_proj, a.k_proj, a.v_proj)
        )
        if self.options.get("enable_gqa"):
            k, v = k[:, :1], v[:, :1]
        x = F.scaled_dot_product_attention(q, k, v, **{key: v for key, v in self.options.items() if key != "gate"})
        x = x.transpose(1, 2).flatten(2)
        return a.out_proj(x * x.sigmoid() if self.options.get("gate") else x), None


@pytest.mark.parametrize(
    "options",
    [
        {"attn_mask": normal(1, 1, 5, 5)},
        {"attn_mask": normal(5, 5) > -0.5},
        {"attn_mask": normal(1, 5)},
        {"is_causal": True},
        {"scale": 0.7},
        {"enable_gqa": True},
    ],
    ids=lambda options: "-".join(options),
)
def test_arguments_of_the_kernel_are_honored(tmp_path, options):
    model = ra.load_model(random_models.save_clip(tmp_path / "clip"), dtype="float64")
    block = model.module.vision_model.encoder.layers[1]
    block.self_attn = Attending(block.self_attn, **options)
    found = locate(model, model.tower.probe(2), ["L1.H2"])
    assert found.error < 1e-13


def test_what_stands_between_attention_and_projection_is_refused(tmp_path):
    model = ra.load_model(random_models.save_clip(tmp_path / "clip"), dtype="float64")
    block = model.module.vision_model.encoder.layers[1]
    block.self_attn = Attending(block.self_attn, gate=True)
    with pytest.raises(
        BadInputError, match=r"parts of L1.H2 do not sum to its value .* layer 1 .* \(a gate or scale\)"
    ):
        locate(model, model.tower.probe(2), ["L1.H2"])
    # the other layers are as they were
    locate(model, model.tower.probe(2), ["L0.H2"])


def test_dropout_and_attention_that_calls_nothing_known_are_refused(tmp_path):
    model = ra.load_model(random_models.save_clip(tmp_path / "clip"), dtype="float64")
    block = model.module.vision_model.encoder.layers[2]
    own = block.self_attn
    block.self_attn = Attending(own, dropout_p=0.5)
    with pytest.raises(BadInputError, match=r"dropout 0\.5"):
        locate(model, model.tower.probe(2), ["L2.H2"])

    class Mean(nn.Module):
        def forward(self, hidden_states, **_):
            return own.out_proj(hidden_states.mean(dim=1, keepdim=True).expand_as(hidden_states)), None

    block.self_attn = Mean()
    with pytest.raises(BadInputError, match="attention of layer 2 calls neither"):
        locate(model, model.tower.probe(2), ["L2.H2"])
    assert not _get_current_function_mode_stack()
    assert hooks(model) == 0


def test_mode_and_hooks_are_gone_after_an_error(clip):
    before = hooks(clip)

    def watch_and_fail():
        with watch_attention(clip.tower, [0]):
            assert len(_get_current_function_mode_stack()) == 1
            assert hooks(clip) > before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        watch_and_fail()
    assert not _get_current_function_mode_stack()
    assert hooks(clip) == before
    with pytest.raises((RuntimeError, ValueError)):
        locate(clip, torch.zeros(1, 3, 26, 27, dtype=torch.float64)[..., :5], ["L0.H0"])
    assert not _get_current_function_mode_stack()
    assert hooks(clip) == before


def test_only_the_layers_asked_for_are_kept(clip):
    with torch.no_grad(), watch_attention(clip.tower, [2, 0]) as seen:
        clip.tower.forward(clip.tower.probe(3))
    assert sorted(seen) == [0, 2]
    assert seen[0].weights.shape == (3, 5, 1, 5)
    assert seen[0].values.shape == (3, 5, 5, 7)
    torch.testing.assert_close(seen[0].weights.sum(dim=-1), torch.ones(3, 5, 1, dtype=torch.float64))


def test_grids(clip):
    assert patch_grid(clip.tower, 4, 26, 26) == (2, 2)
    # 13 pixels a patch: what is left over is dropped, or padded
    assert patch_grid(clip.tower, 6, 30, 40) == (2, 3)
    assert patch_grid(clip.tower, 12, 30, 40) == (3, 4)
    # patches of another size than the weights say (a stem of several convolutions)
    assert patch_grid(clip.tower, 12, 60, 80) == (3, 4)
    with pytest.raises(BadInputError, match="7 patches of an image of 26 x 26 pixels do not form a grid"):
        patch_grid(clip.tower, 7, 26, 26)
    with pytest.raises(BadInputError, match="0 patches"):
        patch_grid(clip.tower, 0, 26, 26)
