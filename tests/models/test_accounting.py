"""Every tensor of a weights file has its place: what is left over, missing or of another size is told."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import random_models
from torch import Tensor

import residualign as ra
from residualign.models.accounting import check_weights, refused_by

Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]

_QUERY = "vision_model.encoder.layers.0.self_attn.q_proj"


def _changed(folder: Path, change: Change, file: str = "model.safetensors") -> Path:
    path = folder / file
    save_file({k: v.clone() for k, v in change(load_file(path)).items()}, path, metadata={"format": "pt"})
    return folder


@pytest.fixture
def clip_dir(tmp_path: Path) -> Path:
    return random_models.save_clip(tmp_path / "clip")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t | {f"{_QUERY}.lora_A": torch.ones(2, 35), f"{_QUERY}.lora_B": torch.ones(35, 2)}, "merge them"),
        (
            lambda t: t | {"vision_model.encoder.layers.9.layer_norm1.weight": torch.ones(35)},
            r"holds 'vision_model\.encoder\.layers\.9\.layer_norm1\.weight', for which .* no place",
        ),
        (lambda t: {f"_orig_mod.{k}": v for k, v in t.items()}, "begin with '_orig_mod.'"),
        (lambda t: {f"module.{k}": v for k, v in t.items()}, "begin with 'module.'"),
        (lambda t: t | {f"{_QUERY}.bias": torch.ones(7)}, r"q_proj\.bias' has the shape \(7,\) .* but \(35,\)"),
    ],
)
def test_weights_that_the_model_does_not_take_are_refused_with_the_reason(
    clip_dir: Path, change: Change, says: str
) -> None:
    with pytest.raises(ra.BadInputError, match=says) as caught:
        ra.load_model(_changed(clip_dir, change))
    assert "\n" not in str(caught.value)


def test_heads_are_passed_over_and_strange_tensors_are_named(clip_dir: Path) -> None:
    expected = ra.load_model(clip_dir).fingerprint
    heads = {"classifier.weight": torch.ones(3, 11), "vision_model.embeddings.position_ids": torch.arange(5)[None]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ra.load_model(_changed(clip_dir, lambda t: t | heads)).fingerprint == expected
    with pytest.warns(UserWarning, match=r"'my_segmenter\.weight' of the weights file .* not used"):
        model = ra.load_model(_changed(clip_dir, lambda t: t | {"my_segmenter.weight": torch.ones(2)}))
    assert model.fingerprint == expected


@pytest.mark.parametrize(
    ("config", "says"),
    [({"peft_type": "LORA"}, "PEFT adapter"), ({"format": "residualign adapter"}, "residualign saved")],
)
def test_an_adapter_beside_full_weights_is_refused_whether_or_not_peft_is_installed(
    clip_dir: Path, config: dict[str, str], says: str
) -> None:
    (clip_dir / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ra.BadInputError, match=says):
        ra.load_model(clip_dir)


def test_what_torch_says_in_a_paragraph_is_one_reason() -> None:
    class Inner(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first = torch.nn.Linear(width, 2)
            self.second = torch.nn.Linear(2, 2)

    state = Inner(3).state_dict()
    for given, says in (
        ({f"_orig_mod.{k}": v for k, v in state.items()}, "begin with '_orig_mod.'"),
        (Inner(4).state_dict(), r"'first\.weight' has the shape \(2, 4\) .* but \(2, 3\)"),
        ({k: v for k, v in state.items() if k != "second.bias"}, r"lacks 'second\.bias' \(1 "),
    ):
        with pytest.raises(RuntimeError) as raised:
            Inner(3).load_state_dict(given)
        with pytest.raises(ra.BadInputError, match=says):
            raise refused_by("open_clip", "mine", raised.value)
    long = refused_by("open_clip", "mine", RuntimeError("one\ntwo " * 10_000))
    assert "one two" in str(long)
    assert len(str(long)) < 400


def test_timm_without_a_weight_is_refused_although_timm_only_logs_it(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    net = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=5, **small)
    told = {"input_size": [3, 32, 32], "num_classes": 5, "first_conv": "patch_embed.proj", "classifier": "head"}
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "vit_tiny_patch16_224", "model_args": small, "pretrained_cfg": told})
    )
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    name = f"timm:local-dir:{tmp_path}"
    ra.load_model(name)
    file = "model.safetensors"
    with pytest.raises(ra.BadInputError, match="no place"):
        ra.load_model(f"timm:local-dir:{_changed(tmp_path, lambda t: t | {'blocks.2.extra': torch.ones(1)}, file)}")
    _changed(tmp_path, lambda t: {k: v for k, v in t.items() if not k.startswith(("blocks.2", "blocks.1.attn"))})
    with pytest.raises(ra.BadInputError, match=r"lacks 'blocks\.1\.attn"):
        ra.load_model(name)


def test_a_prefix_is_told_where_only_a_part_of_the_names_has_it() -> None:
    module = torch.nn.Linear(1, 1)
    with pytest.raises(ra.BadInputError, match="lacks 'b'"):
        check_weights("mine", module, ["b", "c", "d"], ["x.b"])
