"""Export a checkpoint's averaged weights as a transformers folder in float16, or refuse and leave the old one."""

import argparse
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from recipes.mini.evaluate import class_vectors
from recipes.mini.model import SIZES, build_model, image_processor

LIMIT = 10 * 1024 * 1024  # bytes, the whole folder


def check(folder: Path) -> None:
    """Raise ValueError unless the folder is small enough, loads, is finite, and distinguishes digits."""
    total = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    if total > LIMIT:
        raise ValueError(f"{folder.name} has {total:,} bytes, more than the {LIMIT:,} that fit into the package")
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has values that are not finite")
    AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vectors = class_vectors(model, tokenizer, list("0123456789"), ["the digit {}"])
    similarity = (vectors @ vectors.T).fill_diagonal_(-1).max().item()
    if not similarity < 0.999:
        raise ValueError(f"text vectors of two digits have cosine {similarity:.4f}: they cannot be told apart")


def export(checkpoint: Path, out: Path, card: Path | None = None) -> None:
    """Write a folder next to `out`, check it, then swap the two."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    size = SIZES[state["size"]]
    model = build_model(size)
    model.load_state_dict(state["average"])
    new, old = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    model.half().save_pretrained(new)
    # The tokenizer of the run itself: a different version of captions or word list would give different token ids.
    shutil.copytree(checkpoint.parent / "tokenizer", new, dirs_exist_ok=True)
    image_processor(size).save_pretrained(new)
    for file in new.iterdir():
        file.chmod(0o644)
    if card is not None:
        shutil.copyfile(card, new / "README.md")
    try:
        check(new)
    except ValueError:
        shutil.rmtree(new)
        raise
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--card", type=Path, help="model card, becomes README.md")
    args = parser.parse_args()
    try:
        export(args.checkpoint, args.out, args.card)
    except ValueError as error:
        sys.exit(f"not exported: {error}")


if __name__ == "__main__":
    main()
