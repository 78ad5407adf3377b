"""Tiny random models from configs, with every bias, gamma and scale perturbed and prime sizes wherever they can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    BertTokenizer,
    BitImageProcessorPil,
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessorPil,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)
from transformers.models.siglip import (
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

N_LAYERS, N_HEADS, HEAD_DIM, DIM = 3, 5, 7, 11
WIDTH = N_HEADS * HEAD_DIM
IMAGE_SIZE = 26
WORDS = ["a", "photo", "of", "the", "digit", "cat", "dog", "zero", "one", "two", "."]

_VISION = {
    "hidden_size": WIDTH,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "intermediate_size": 53,
    "image_size": IMAGE_SIZE,
    "patch_size": 13,
}


def perturb(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random values in every parameter, so that no bias is zero and no gamma one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            center = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            spread = 0.3 if parameter.ndim < 2 else 1.0 / parameter[0].numel() ** 0.5
            parameter.copy_(center + spread * noise)
        if hasattr(model, "logit_scale"):
            model.logit_scale.fill_(2.0)
    return model.eval()


def save_clip(path: Path, seed: int = 0) -> Path:
    """A full CLIPModel with processor and a word-level tokenizer."""
    text = {"hidden_size": 17, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 19}
    text |= {"vocab_size": len(WORDS) + 4, "max_position_embeddings": 13}
    text |= {"bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0}
    config = CLIPConfig(vision_config={**_VISION, "projection_dim": DIM}, text_config=text, projection_dim=DIM)
    perturb(CLIPModel(config), seed).save_pretrained(path)
    _clip_processor().save_pretrained(path)
    _tokenizer().save_pretrained(path)
    return path


def save_clip_vision(path: Path, seed: int = 0, *, projection: bool = True) -> Path:
    """The CLIP vision tower alone, with or without its projection."""
    kind: Any = CLIPVisionModelWithProjection if projection else CLIPVisionModel
    perturb(kind(CLIPVisionConfig(**_VISION, projection_dim=DIM)), seed).save_pretrained(path)
    _clip_processor().save_pretrained(path)
    return path


_BERT = {"hidden_size": 17, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 19}


def save_chinese_clip(path: Path, seed: int = 0) -> Path:
    """A ChineseCLIPModel with processor and a BERT tokenizer."""
    text = {**_BERT, "vocab_size": len(WORDS) + 5, "max_position_embeddings": 13, "pad_token_id": 0}
    vision = {**_VISION, "projection_dim": DIM}
    config = ChineseCLIPConfig(vision_config=vision, text_config=text, projection_dim=DIM)
    perturb(ChineseCLIPModel(config), seed).save_pretrained(path)
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    ChineseCLIPImageProcessorPil(size=side, do_center_crop=False).save_pretrained(path)
    _bert_tokenizer().save_pretrained(path)
    return path


def save_altclip(path: Path, seed: int = 0) -> Path:
    """An AltCLIPModel with processor and a word-level tokenizer; its text half has positions for 13 tokens."""
    text = {**_BERT, "vocab_size": len(WORDS) + 4, "max_position_embeddings": 14, "pad_token_id": 0}
    text |= {"bos_token_id": 1, "eos_token_id": 3, "project_dim": 23}
    vision = {**_VISION, "projection_dim": DIM}
    config = AltCLIPConfig(vision_config=vision, text_config=text, projection_dim=DIM)
    perturb(AltCLIPModel(config), seed).save_pretrained(path)
    _clip_processor().save_pretrained(path)
    _tokenizer().save_pretrained(path)
    return path


def save_blip(path: Path, seed: int = 0, kind: Any = BlipForImageTextRetrieval) -> Path:
    """A BLIP with processor and a BERT tokenizer; `kind` is the class, for image-text retrieval by default."""
    text = {**_BERT, "vocab_size": len(WORDS) + 5, "max_position_embeddings": 13, "encoder_hidden_size": WIDTH}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    config = BlipConfig(vision_config=_VISION, text_config=text, projection_dim=DIM, image_text_hidden_size=DIM)
    perturb(kind(config), seed).save_pretrained(path)
    BlipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}).save_pretrained(path)
    _bert_tokenizer().save_pretrained(path)
    return path


def save_vit(path: Path, seed: int = 0, **changes: Any) -> Path:
    """A ViTModel without pooler; `changes` go to its config."""
    perturb(ViTModel(ViTConfig(**{**_VISION, **changes}), add_pooling_layer=False), seed).save_pretrained(path)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    ViTImageProcessorPil(size=size, do_convert_rgb=True).save_pretrained(path)
    return path


def save_dinov2(path: Path, seed: int = 0, *, registers: int = 0, **changes: Any) -> Path:
    """A Dinov2Model, with registers where asked; its positions are those of 39 x 39 pixels and are interpolated."""
    settings = {**_VISION, "image_size": IMAGE_SIZE + _VISION["patch_size"], **changes}
    if registers:
        config = Dinov2WithRegistersConfig(**settings, num_register_tokens=registers)
        perturb(Dinov2WithRegistersModel(config), seed).save_pretrained(path)
    else:
        perturb(Dinov2Model(Dinov2Config(**settings)), seed).save_pretrained(path)
    BitImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    ).save_pretrained(path)
    return path


def save_dinov3(path: Path, seed: int = 0, **changes: Any) -> Path:
    """A DINOv3ViTModel; rotary positions want heads of a multiple of four."""
    settings = {**_VISION, "hidden_size": N_HEADS * 8, "num_register_tokens": 3, "use_gated_mlp": True, **changes}
    perturb(DINOv3ViTModel(DINOv3ViTConfig(**settings)), seed).save_pretrained(path)
    preprocessing = {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "resample": 2,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "do_center_crop": None,
    }
    (path / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return path


def save_siglip(path: Path, seed: int = 0, *, text: bool = True, **changes: Any) -> Path:
    """A SiglipModel with processor and a word-level tokenizer, or its vision tower alone."""
    vision = {**_VISION, "hidden_act": "gelu_pytorch_tanh", **changes}
    if text:
        words = {"hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 19}
        words |= {"vocab_size": len(WORDS) + 4, "max_position_embeddings": 13, "projection_size": WIDTH}
        model = perturb(SiglipModel(SiglipConfig(vision_config=vision, text_config=words)), seed)
        with torch.no_grad():
            model.logit_bias.fill_(-3.0)
        model.save_pretrained(path)
        _tokenizer().save_pretrained(path)
    else:
        perturb(SiglipVisionModel(SiglipVisionConfig(**vision)), seed).save_pretrained(path)
    SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}).save_pretrained(path)
    return path


def save_open_clip(
    path: Path, seed: int = 0, *, quick_gelu: bool = False, dim: int = DIM, coca: bool = False, **vision: Any
) -> Path:
    """An open_clip CLIP in a local folder, or a CoCa; `vision` goes to its vision_cfg."""
    sizes = {"image_size": IMAGE_SIZE, "patch_size": 13, "width": WIDTH, "head_width": HEAD_DIM, "layers": N_LAYERS}
    config = {"embed_dim": dim, "quick_gelu": quick_gelu, "vision_cfg": {**sizes, "mlp_ratio": 2.0, **vision}}
    return _save_open_clip(path, seed, config, kind="CoCa" if coca else "CLIP")


def _save_open_clip(path: Path, seed: int, config: dict[str, Any], *, kind: str = "CLIP") -> Path:
    import open_clip

    text: dict[str, Any] = {"context_length": 13, "vocab_size": 49408, "width": 6, "heads": 2, "layers": 2}
    config = {"embed_dim": DIM, "text_cfg": text, **config}
    if kind == "CoCa":
        config["multimodal_cfg"] = {**text, "layers": 1}
        text |= {"embed_cls": True, "output_tokens": True}
        config["vision_cfg"]["output_tokens"] = True
    model = perturb(getattr(open_clip, kind)(**config), seed)
    path.mkdir()
    save_model(model, str(path / "open_clip_model.safetensors"))
    preprocessing = {"size": IMAGE_SIZE, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "interpolation": "bicubic"}
    model_cfg = config if kind == "CLIP" else {**config, "custom_text": True}
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocessing}))
    return path


def save_timm(path: Path, seed: int = 0, architecture: str = "vit_tiny_patch16_224", **changes: Any) -> Path:
    """A timm model with a class head in a local folder; `changes` go to its arguments."""
    import timm

    sizes = {"img_size": IMAGE_SIZE, "patch_size": 13, "embed_dim": WIDTH, "depth": N_LAYERS, "num_heads": N_HEADS}
    sizes |= {"mlp_ratio": 2.0, **changes}
    model = perturb(timm.create_model(architecture, num_classes=5, **sizes), seed)
    path.mkdir()
    save_model(model, str(path / "model.safetensors"))
    pretrained = {"input_size": [3, IMAGE_SIZE, IMAGE_SIZE], "crop_pct": 0.9, "interpolation": "bicubic"}
    pretrained |= {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "num_classes": 5}
    pretrained |= {"first_conv": "patch_embed.proj", "classifier": "head"}
    config = {"architecture": architecture, "num_classes": 5, "pretrained_cfg": pretrained, "model_args": sizes}
    (path / "config.json").write_text(json.dumps(config))
    return path


def save_timm_eva(path: Path, seed: int = 0, architecture: str = "eva02_base_patch16_clip_224", **changes: Any) -> Path:
    """A timm Eva with a class head; rotary positions want heads of a multiple of four."""
    return save_timm(path, seed, architecture, **{"embed_dim": N_HEADS * 8, **changes})


# what open_clip's config cannot ask timm for: small towers, under names of their own
_TRUNKS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny_eva02": ("eva02_base_patch16_clip_224", {"embed_dim": N_HEADS * 8}),
    "tiny_eva": ("eva_giant_patch14_clip_224", {"embed_dim": N_HEADS * 8}),
    "tiny_post_norm": ("eva02_enormous_patch14_clip_224", {"embed_dim": N_HEADS * 8}),
    "tiny_siglip": ("vit_base_patch16_siglip_224", {"embed_dim": WIDTH}),
    "tiny_vit": ("vit_large_patch14_clip_224", {"embed_dim": WIDTH}),
    "tiny_eva02_dynamic": ("eva02_base_patch16_clip_224", {"embed_dim": N_HEADS * 8, "dynamic_img_size": True}),
    "tiny_vit_dynamic": ("vit_large_patch14_clip_224", {"embed_dim": WIDTH, "dynamic_img_size": True}),
    "tiny_resnet": ("resnet10t", {}),
}


def _register_trunk(name: str) -> None:
    import timm

    architecture, changes = _TRUNKS[name]
    sizes = {"img_size": IMAGE_SIZE, "patch_size": 13, "depth": N_LAYERS, "num_heads": N_HEADS, "mlp_ratio": 2.0}
    settings = {**sizes, **changes} if changes else {}

    def entrypoint(pretrained: bool = False, **options: Any) -> Any:
        return timm.create_model(architecture, **settings, **options)

    entrypoint.__name__ = name
    if not timm.is_model(name):
        timm.models.register_model(entrypoint)


def save_open_clip_timm(
    path: Path, seed: int = 0, trunk: str = "tiny_eva02", pool: str = "token", **vision: Any
) -> Path:
    """An open_clip CLIP with one of timm's towers in a local folder; `vision` goes to its vision_cfg."""
    _register_trunk(trunk)
    settings = {"image_size": IMAGE_SIZE, "timm_model_name": trunk, "timm_pool": pool, "timm_proj": None, **vision}
    config: dict[str, Any] = {"vision_cfg": settings}
    if trunk == "tiny_siglip":
        config |= {"embed_dim": WIDTH, "init_logit_bias": -5.0}
    return _save_open_clip(path, seed, config, kind="CustomTextCLIP")


def save_two_colors(path: Path, n: int = 10) -> Path:
    """Class folders "red" and "blue" of n noisy images each."""
    for label, color in (("red", (200, 30, 20)), ("blue", (10, 40, 210))):
        (path / label).mkdir(parents=True)
        for i in range(n):
            noise = np.random.default_rng(i).normal(0, 25, (33, 37, 3)) + color
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path / label / f"{i}.png")
    return path


def _bert_tokenizer() -> BertTokenizer:
    return BertTokenizer(
        vocab={word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    )


def _clip_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=IMAGE_SIZE)


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[BOS]", "[UNK]", "[EOS]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 1), ("[EOS]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", bos_token="[BOS]", unk_token="[UNK]", eos_token="[EOS]"
    )
