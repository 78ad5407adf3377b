"""load_model: both families, every dtype, and each refusal in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import random_models

import residualign as ra
from residualign.inputs.spectra import bundled_spectra
from residualign.spectrum import Spectra


@pytest.fixture(scope="module")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_models.save_clip(tmp_path_factory.mktemp("models") / "clip")


def test_the_model_tells_its_own_sizes(clip_dir: Path) -> None:
    model = ra.load_model(clip_dir)
    assert (model.dim, model.width, model.n_heads) == (11, 35, 5)
    assert len(model.units) == 1 + 3 + 3 * 5
    assert model.has_text
    assert model.logit_scale == pytest.approx(torch.tensor(2.0).exp().item(), rel=1e-6)


def test_fingerprint_survives_dtype_and_differs_between_weights(clip_dir: Path, tmp_path: Path) -> None:
    other = random_models.save_clip(tmp_path / "other", seed=1)
    fingerprints = {ra.load_model(clip_dir, dtype=dtype).fingerprint for dtype in ("float64", "float32", "bfloat16")}
    assert len(fingerprints) == 1
    assert ra.load_model(other).fingerprint not in fingerprints


def test_full_clip_and_its_vision_half_have_one_fingerprint(clip_dir: Path, tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPVisionModelWithProjection

    full = CLIPModel.from_pretrained(clip_dir)
    half = CLIPVisionModelWithProjection(full.config.vision_config)
    half.vision_model.load_state_dict(full.vision_model.state_dict())
    half.visual_projection.load_state_dict(full.visual_projection.state_dict())
    half.save_pretrained(tmp_path / "half")
    (tmp_path / "half" / "preprocessor_config.json").write_bytes(
        next(clip_dir.glob("p*processor_config.json")).read_bytes()
    )
    assert ra.load_model(tmp_path / "half").fingerprint == ra.load_model(clip_dir).fingerprint


def test_text_embedding_does_not_depend_on_its_neighbors(clip_dir: Path) -> None:
    model = ra.load_model(clip_dir, dtype="float64")
    alone = model.encode_text(["a cat"])
    beside = model.encode_text(["a cat", "a photo of the digit zero one two dog ."])
    torch.testing.assert_close(alone[0], beside[0], rtol=1e-12, atol=1e-12)
    assert model.unknown_words(["cat", "aardvark"]) == ["aardvark"]


def test_batches_do_not_change_embeddings(clip_dir: Path) -> None:
    model = ra.load_model(clip_dir, dtype="float64")
    pixels = model.tower.probe(7)
    torch.testing.assert_close(model.encode_image(pixels, batch_size=3), model.encode_image(pixels), rtol=1e-12, atol=0)


def test_preprocessing_is_the_checkpoints_own_and_says_its_backend(clip_dir: Path) -> None:
    from PIL import Image
    from transformers import CLIPImageProcessorPil

    model = ra.load_model(clip_dir)
    image = Image.effect_noise((41, 29), 90).convert("RGB")
    expected = CLIPImageProcessorPil.from_pretrained(clip_dir)(images=image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(model.preprocess(image), expected)
    described = model.preprocess.describe()
    assert described["backend"] == "pil"
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no/such/dir/here", "no such directory"),
        ("./nowhere", "no such directory"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name: str, says: str) -> None:
    with pytest.raises(ra.BadInputError, match=says):
        ra.load_model(name)


def test_a_hub_id_without_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ra.BadInputError, match="local cache") as caught:
        ra.load_model("hf:openai/clip-vit-base-patch32-absent")
    assert "\n" not in str(caught.value)


def test_missing_preprocessing_is_refused(clip_dir: Path, tmp_path: Path) -> None:
    bare = _copy(clip_dir, tmp_path / "bare", leave_out="processor_config.json")
    with pytest.raises(ra.BadInputError, match="image preprocessing"):
        ra.load_model(bare)


@pytest.mark.parametrize("save", [random_models.save_clip, random_models.save_blip, random_models.save_altclip])
def test_a_tokenizer_that_is_not_there_is_not_made_up(save: Callable[[Path], Path], tmp_path: Path) -> None:
    bare = save(tmp_path / "model")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ra.BadInputError, match="no readable tokenizer"):
        ra.load_model(bare)


def test_nan_in_a_weight_is_named(clip_dir: Path, tmp_path: Path) -> None:
    bad = _copy(clip_dir, tmp_path / "nan")
    tensors = load_file(bad / "model.safetensors")
    tensors["vision_model.encoder.layers.1.mlp.fc1.weight"][2, 3] = float("nan")
    save_file(tensors, bad / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ra.BadInputError, match=r"block\.1\.mlp\.in\.weight"):
        ra.load_model(bad)


def test_a_missing_weight_is_not_drawn_at_random(clip_dir: Path, tmp_path: Path) -> None:
    bad = _copy(clip_dir, tmp_path / "lacking")
    tensors = load_file(bad / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, bad / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ra.BadInputError, match=r"lacks 'visual_projection\.weight'"):
        ra.load_model(bad)


def test_truncated_weights_are_refused(clip_dir: Path, tmp_path: Path) -> None:
    bad = _copy(clip_dir, tmp_path / "short")
    data = (bad / "model.safetensors").read_bytes()
    (bad / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ra.BadInputError, match="safetensors"):
        ra.load_model(bad)


def test_another_architecture_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ra.BadInputError, match="type 'bert'"):
        ra.load_model(tmp_path)


def test_a_tower_whose_units_do_not_add_up_is_refused(clip_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from residualign.models import clip

    honest = clip.tower

    def forgetful(model: object) -> object:
        from dataclasses import replace

        tower = honest(model)
        return replace(tower, blocks=tower.blocks[:-1])

    monkeypatch.setattr(clip, "tower", forgetful)
    with pytest.raises(ra.BadInputError, match="do not sum"):
        ra.load_model(clip_dir)


@pytest.mark.parametrize("argument", [{"dtype": "int8"}, {"device": "nonsense"}])
def test_wrong_dtype_or_device(clip_dir: Path, argument: dict[str, str]) -> None:
    with pytest.raises(ra.BadInputError, match=next(iter(argument))):
        ra.load_model(clip_dir, **argument)


def test_importing_the_package_loads_no_model_library() -> None:
    code = "import sys, residualign; sys.exit(any(m in sys.modules for m in ('transformers', 'torch', 'sklearn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    assert set(ra.__all__) == set(ra._HOMES)
    for name in ra.__all__:
        assert getattr(ra, name).__name__ == name


def _copy(source: Path, target: Path, leave_out: str = "") -> Path:
    target.mkdir()
    for file in source.iterdir():
        if not (leave_out and file.name.endswith(leave_out)):
            (target / file.name).write_bytes(file.read_bytes())
    return target


def test_mini_is_the_bundled_model_whatever_the_current_folder_holds(
    clip_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ra.load_model("mini").fingerprint
    (tmp_path / "mini").symlink_to(clip_dir, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert ra.load_model("mini").fingerprint == expected
    assert ra.load_model("./mini").fingerprint == ra.load_model(clip_dir).fingerprint
    shipped = bundled_spectra("mini")
    assert shipped is not None
    assert Spectra.load(shipped).model_fingerprint == expected
    assert bundled_spectra("./mini") is None
