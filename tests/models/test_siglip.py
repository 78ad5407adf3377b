"""SigLIP: the same tower in transformers and timm, its text as it was trained, its tokenizers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from tests import random_models
from transformers import AutoImageProcessor

import residualign as ra
from residualign.models import timm_vit
from residualign.models.tower import fingerprint
from residualign.models.vision_model import VisionModel

N = 3


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_models.save_siglip(tmp_path_factory.mktemp("models") / "siglip")


@pytest.fixture(scope="module")
def model(saved: Path) -> VisionModel:
    return ra.load_model(saved, dtype="float64")


def test_one_checkpoint_is_one_tower_in_both_libraries(saved: Path) -> None:
    single = ra.load_model(saved)
    other = _as_timm(single.tower.module)
    assert fingerprint(timm_vit.tower(other, "x")) == single.fingerprint
    pixels = single.tower.probe(N)
    torch.testing.assert_close(other(pixels), single.encode_pixels(pixels), rtol=1e-4, atol=1e-5)


def test_full_and_vision_only_are_one_tower(saved: Path, tmp_path: Path, model: VisionModel) -> None:
    ra.load_model(saved).tower.module.save_pretrained(tmp_path)
    for file in saved.glob("*processor*"):
        shutil.copy(file, tmp_path)
    alone = ra.load_model(tmp_path)
    assert alone.fingerprint == model.fingerprint
    assert not alone.has_text


def test_text_is_padded_to_the_right_up_to_all_positions(model: VisionModel) -> None:
    short, length = "the cat", 13
    ids = model.text._tokenizer(short)["input_ids"]
    padded = torch.tensor([[*ids, *[model.text._tokenizer.pad_token_id] * (length - len(ids))]])
    with torch.no_grad():
        expected = model.module.get_text_features(input_ids=padded).pooler_output
    torch.testing.assert_close(model.encode_text([short]), expected)
    # a text's embedding does not hang on its neighbors, and long ones are cut
    together = model.encode_text([short, "a photo of the digit zero ."])
    torch.testing.assert_close(together[:1], expected)
    assert model.encode_text(["cat " * 30]).shape == (1, model.dim)


def test_pixels_are_those_of_the_processor(saved: Path, model: VisionModel) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    processor = AutoImageProcessor.from_pretrained(saved, backend="pil")
    expected = processor(images=image, return_tensors="pt")["pixel_values"]
    assert torch.equal(model.pixels([image]).float(), expected)


def test_without_its_pooling_head_it_is_refused(tmp_path: Path) -> None:
    saved = random_models.save_siglip(tmp_path / "headless", text=False, vision_use_head=False)
    with pytest.raises(ra.BadInputError, match="SigLIP without its pooling head"):
        ra.load_model(saved)


def test_a_model_of_flexible_resolution_is_refused_by_its_type(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "naflex")
    config = tmp_path / "naflex" / "config.json"
    config.write_text(config.read_text().replace('"model_type": "siglip"', '"model_type": "siglip2"'))
    with pytest.raises(ra.BadInputError, match="is of type 'siglip2'"):
        ra.load_model(tmp_path / "naflex")


def test_a_sentencepiece_tokenizer_is_read(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the first SigLIP checkpoints ship it; without the package the extra is named."""
    path = _with_sentencepiece(saved, tmp_path / "model")
    model = ra.load_model(path)
    assert type(model.text._tokenizer).__name__ == "SiglipTokenizer"
    assert torch.equal(model.encode_text(["A Photo of the Cat"]), model.encode_text(["a photo of the cat"]))
    assert not torch.allclose(model.encode_text(["cat"]), model.encode_text(["dog"]))
    code = (
        "import sys; sys.modules['sentencepiece'] = None\n"
        "import residualign as ra\n"
        f"try: ra.load_model({str(path)!r})\n"
        "except ra.BadInputError as error: print(error)"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'residualign[siglip]'" in done.stdout


def _with_sentencepiece(saved: Path, path: Path) -> Path:
    """The same model with a tiny SentencePiece vocabulary in place of its word list."""
    import sentencepiece
    from transformers import SiglipTokenizer

    shutil.copytree(saved, path, ignore=shutil.ignore_patterns("tokenizer*", "special_tokens*"))
    sentences = path.parent / "sentences.txt"
    sentences.write_text("\n".join(["a photo of the cat", "a photo of the dog", "one two zero digit"] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(sentences), model_prefix=str(path / "spiece"), vocab_size=15, hard_vocab_limit=False,
        character_coverage=1.0, pad_id=0, unk_id=2, eos_id=1, bos_id=-1, minloglevel=2, model_type="char",
    )  # fmt: skip
    (path / "spiece.vocab").unlink()
    SiglipTokenizer(str(path / "spiece.model")).save_pretrained(path)
    return path


def _as_timm(vision: Any) -> Any:
    config = vision.config
    other = timm.create_model(
        "vit_base_patch16_siglip_224", num_classes=0, img_size=config.image_size, patch_size=config.patch_size,
        embed_dim=config.hidden_size, depth=config.num_hidden_layers, num_heads=config.num_attention_heads,
        mlp_ratio=config.intermediate_size / config.hidden_size, act_layer="gelu_tanh",
    ).eval()  # fmt: skip
    head = vision.head
    width = config.hidden_size
    q, k, v = (head.attention.in_proj_weight[i * width : (i + 1) * width] for i in range(3))
    q_bias, k_bias, v_bias = (head.attention.in_proj_bias[i * width : (i + 1) * width] for i in range(3))
    with torch.no_grad():
        other.pos_embed.copy_(vision.embeddings.position_embedding.weight)
        other.attn_pool.latent.copy_(head.probe)
        pairs = [
            (other.patch_embed.proj, vision.embeddings.patch_embedding),
            (other.norm, vision.post_layernorm),
            (other.attn_pool.proj, head.attention.out_proj),
            (other.attn_pool.norm, head.layernorm),
            (other.attn_pool.mlp.fc1, head.mlp.fc1),
            (other.attn_pool.mlp.fc2, head.mlp.fc2),
        ]
        other.attn_pool.q.weight.copy_(q)
        other.attn_pool.q.bias.copy_(q_bias)
        other.attn_pool.kv.weight.copy_(torch.cat([k, v]))
        other.attn_pool.kv.bias.copy_(torch.cat([k_bias, v_bias]))
        for block, layer in zip(other.blocks, vision.encoder.layers, strict=True):
            a = layer.self_attn
            block.attn.qkv.weight.copy_(torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]))
            block.attn.qkv.bias.copy_(torch.cat([a.q_proj.bias, a.k_proj.bias, a.v_proj.bias]))
            pairs += [
                (block.attn.proj, a.out_proj),
                (block.norm1, layer.layer_norm1),
                (block.norm2, layer.layer_norm2),
                (block.mlp.fc1, layer.mlp.fc1),
                (block.mlp.fc2, layer.mlp.fc2),
            ]
        for ours, theirs in pairs:
            ours.weight.copy_(theirs.weight)
            ours.bias.copy_(theirs.bias)
    return other
