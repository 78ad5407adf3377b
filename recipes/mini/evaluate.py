"""Zero-shot accuracy of a checkpoint or an exported folder on real images, which training never sees."""

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

DIGIT_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
DIGIT_TEMPLATES = ["a photo of the digit {}.", "a photo of the number {}.", "the digit {}", "a handwritten digit {}"]
TEMPLATES = ["a photo of a {}."]


def digits() -> tuple[list[Image.Image], Tensor]:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, white on black."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = [Image.fromarray((image * 255 / 16).round().astype("uint8")) for image in data.images]
    return images, torch.from_numpy(data.target)


def parquet(path: Path) -> tuple[list[Image.Image], Tensor, list[str]]:
    """Images, labels and class names of a parquet split in the convention of `datasets`."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    names = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    images: list[Image.Image] = [Image.open(io.BytesIO(row["bytes"])) for row in table["image"].to_pylist()]
    return images, torch.tensor(table["label"].to_pylist()), names


@torch.inference_mode()
def encode_images(
    model: CLIPModel, processor: Callable[..., Any], images: list[Image.Image], batch: int = 256
) -> Tensor:
    """(image, dim) unit vectors."""
    parts = []
    for i in range(0, len(images), batch):
        pixels = processor([im.convert("RGB") for im in images[i : i + batch]], return_tensors="pt")["pixel_values"]
        parts.append(model.get_image_features(pixel_values=pixels).pooler_output)
    return normalize(torch.cat(parts), dim=-1)


@torch.inference_mode()
def class_vectors(model: CLIPModel, tokenizer: Callable[..., Any], names: list[str], templates: list[str]) -> Tensor:
    """(class, dim): mean of the unit vectors of all templates, renormalized."""
    texts = [template.format(name) for name in names for template in templates]
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    vectors = normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    return normalize(vectors.view(len(names), len(templates), -1).mean(1), dim=-1)


def accuracy(images: Tensor, classes: Tensor, labels: Tensor) -> float:
    """Share of images whose nearest class vector is their own."""
    return ((images @ classes.T).argmax(1) == labels).float().mean().item()


def evaluate(folder: Path, packs: Path | None = None, split: str = "test") -> dict[str, float]:
    """Accuracies of an exported folder on `digits`, and on the data sets (folders of parquet files) in `packs`."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    images, labels = digits()
    x = encode_images(model, processor, images)
    result = {}
    for name, classes in (("figures", list("0123456789")), ("words", DIGIT_WORDS)):
        for templates in [*([t] for t in DIGIT_TEMPLATES), DIGIT_TEMPLATES]:
            key = repr(templates[0]) if len(templates) == 1 else "all templates"
            vectors = class_vectors(model, tokenizer, classes, templates)
            result[f"digits, {name}, {key}"] = accuracy(x, vectors, labels)
    if packs is not None:
        for pack in sorted(p.parent for p in packs.glob(f"*/{split}.parquet")):
            images, labels, names = parquet(pack / f"{split}.parquet")
            templates = DIGIT_TEMPLATES if pack.name == "mnist" else TEMPLATES
            vectors = class_vectors(model, tokenizer, names, templates)
            result[f"{pack.name} {split}"] = accuracy(encode_images(model, processor, images), vectors, labels)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--packs", type=Path, help="folder of data sets, each with test.parquet")
    parser.add_argument("--split", default="test")
    args = parser.parse_args()
    print(json.dumps(evaluate(args.folder, args.packs, args.split), indent=2))


if __name__ == "__main__":
    main()
