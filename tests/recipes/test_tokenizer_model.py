"""Tokenizer and model folder: as transformers expects them."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from recipes.mini.generate import generate
from recipes.mini.model import SIZES, build_model, image_processor
from recipes.mini.tokenizer import BOS_ID, EOS_ID, MAX_LENGTH, PAD_ID, UNK_ID, train_tokenizer, words
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained model saved as the export does."""
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    build_model(SIZES["tiny"]).save_pretrained(path)
    train_tokenizer().save_pretrained(path)
    image_processor(SIZES["tiny"]).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(folder)


def test_round_trip(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [*generate(1, 1, 97, 8).captions, "Größe of a naïve 3.14 m² zebra!", *words()[:50]]
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        back = tokenizer.decode(ids, skip_special_tokens=True)
        assert back.replace(" ", "") == text.lower().replace(" ", "")
        assert UNK_ID not in ids
        assert max(ids) < len(tokenizer)


def test_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer(["3", "a photo of the digit 3."], padding=True)["input_ids"]
    assert ids[0][0] == ids[1][0] == BOS_ID
    assert ids[1][-1] == EOS_ID
    assert ids[0].count(EOS_ID) == 1
    assert ids[0][-1] == PAD_ID
    assert ids[0][1] in ids[1]  # "3" is the same token alone and inside of a caption
    photo = tokenizer("photo", add_special_tokens=False)["input_ids"]
    assert set(photo) <= set(ids[1])  # so is a word
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (PAD_ID, BOS_ID, EOS_ID)
    long = tokenizer("zebra " * 100, truncation=True)["input_ids"]
    assert len(long) == MAX_LENGTH
    assert long[-1] == EOS_ID


def test_unknown_words_differ(tokenizer: PreTrainedTokenizerFast) -> None:
    names = ["airplane", "automobile", "bird", "cat", "frobnicate", "xyzzy"]
    assert len({tuple(tokenizer(n)["input_ids"]) for n in names}) == len(names)


def test_padding_does_not_change_the_embedding(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = CLIPModel.from_pretrained(folder).eval()
    assert model.config.text_config.eos_token_id == EOS_ID != 2
    text = "a photo of the digit 3."
    with torch.inference_mode():
        alone = model.get_text_features(**tokenizer(text, return_tensors="pt")).pooler_output
        padded = tokenizer(text, padding="max_length", return_tensors="pt")
        longer = model.get_text_features(**padded).pooler_output
        unmasked = model.get_text_features(input_ids=padded["input_ids"]).pooler_output
        other = model.get_text_features(**tokenizer("the digit 4", return_tensors="pt")).pooler_output
    assert padded["input_ids"].shape[1] == MAX_LENGTH
    torch.testing.assert_close(alone, longer, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone, unmasked, atol=1e-5, rtol=1e-5)
    assert (alone - other).abs().max() > 1e-2


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (40, 17), (5, 90)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_of_any_shape_and_mode(folder: Path, shape: tuple[int, int], mode: str) -> None:
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(Image.new(mode, shape, "white"), return_tensors="pt")["pixel_values"]
    size = SIZES["tiny"].image
    assert pixels.shape == (1, 3, size, size)
    assert torch.allclose(
        pixels, torch.ones_like(pixels), atol=1e-6
    )  # nothing cropped to black, [-1, 1] as in training
