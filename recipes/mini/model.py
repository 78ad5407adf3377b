"""The model: a transformers CLIP of one of a few sizes, and its image processor."""

from dataclasses import dataclass

from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from recipes.mini.tokenizer import BOS_ID, EOS_ID, MAX_LENGTH, PAD_ID, VOCABULARY


@dataclass(frozen=True)
class Size:
    """Sizes of both towers; pixels for `image` and `patch`."""

    image: int
    patch: int
    width: int
    blocks: int
    heads: int
    text_width: int
    text_blocks: int
    text_heads: int
    embedding: int


SIZES = {
    "tiny": Size(16, 8, 32, 2, 2, 32, 1, 2, 16),  # for tests
    "mini": Size(32, 8, 192, 6, 6, 128, 3, 4, 128),
    "large": Size(64, 8, 384, 12, 6, 256, 6, 4, 256),  # for a GPU
}


def build_model(size: Size, vocabulary: int = VOCABULARY) -> CLIPModel:
    """A fresh CLIP. Eager attention trains twice as fast on a CPU as the fused kernel at 17 to 65 tokens, because its
    backward pass in bfloat16 is slow there.
    """
    config = CLIPConfig(
        projection_dim=size.embedding,
        text_config={
            "vocab_size": vocabulary, "hidden_size": size.text_width, "intermediate_size": 4 * size.text_width,
            "num_hidden_layers": size.text_blocks, "num_attention_heads": size.text_heads,
            "max_position_embeddings": MAX_LENGTH, "bos_token_id": BOS_ID, "eos_token_id": EOS_ID,
            "pad_token_id": PAD_ID, "hidden_act": "quick_gelu", "projection_dim": size.embedding,
        },
        vision_config={
            "image_size": size.image, "patch_size": size.patch, "hidden_size": size.width,
            "intermediate_size": 4 * size.width, "num_hidden_layers": size.blocks,
            "num_attention_heads": size.heads, "hidden_act": "quick_gelu", "projection_dim": size.embedding,
        },
    )  # fmt: skip
    config._attn_implementation = "eager"
    return CLIPModel(config)


def image_processor(size: Size) -> CLIPImageProcessorPil:
    """Resize to a square without cropping, so images of any shape keep all their content, as generated ones do."""
    square = {"height": size.image, "width": size.image}
    return CLIPImageProcessorPil(
        size=square, crop_size=square, do_resize=True, resample=3, do_center_crop=False, do_rescale=True,
        do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True,
    )  # fmt: skip
