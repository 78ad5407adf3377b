"""Train a model. Every batch is a function of seed and step, so a resumed run equals an uninterrupted one."""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import AutoTokenizer, CLIPModel

from recipes.mini.attributes import true_of
from recipes.mini.generate import generate
from recipes.mini.kinds import MIXES
from recipes.mini.loss import contrastive_loss
from recipes.mini.model import SIZES, build_model
from recipes.mini.tokenizer import MAX_LENGTH, train_tokenizer

Step = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class Steps(Dataset[Step]):
    """Batch i of training: images uint8, token ids and mask of the unique captions, own caption, truth table."""

    def __init__(self, tokenizer: Callable[..., Any], seed: int, batch_size: int, image_size: int,
                 mix: str = "general") -> None:  # fmt: skip
        self.tokenizer, self.seed, self.batch_size = tokenizer, seed, batch_size
        self.image_size, self.mix = image_size, mix

    def __getitem__(self, index: int) -> Step:
        batch = generate(self.seed, index, self.batch_size, self.image_size, self.mix)
        first: dict[str, int] = {}
        for i, caption in enumerate(batch.captions):
            first.setdefault(caption, i)
        order = {caption: k for k, caption in enumerate(first)}
        own = torch.tensor([order[caption] for caption in batch.captions])
        tokens = self.tokenizer(list(first), padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        # Equal texts can have different claims ("a 3" for either of two objects); both images count as true.
        true = true_of(batch.claims[list(first.values())], batch.views)
        true[torch.arange(len(own)), own] = True
        return batch.images, tokens["input_ids"], tokens["attention_mask"], own, true


def learning_rate(step: int, steps: int, peak: float, warmup: int, decay: float) -> float:
    """Warm-up, constant, then 1 - sqrt down to zero over the last `decay` share of `steps`.

    Unlike with a cosine schedule, the rate before the decay does not depend on `steps`, so a run can be extended, or
    branched into a finished model, from any checkpoint.
    """
    start = round(steps * (1 - decay))
    if step >= start:
        return peak * (1 - math.sqrt((step - start) / max(steps - start, 1)))
    return peak * min(1.0, (step + 1) / warmup)


def optimizer_of(model: CLIPModel, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices only; positions, norms, biases and the logit scale are left alone."""
    matrices = [p for name, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in name]
    kept = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in kept]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-6, fused=True)


class Trainer:
    """Model, optimizer, averaged weights and the step reached; saved and loaded as one file."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        torch.manual_seed(args.seed)
        self.size = SIZES[args.size]
        self.model = build_model(self.size).to(args.device).train()
        self.optimizer = optimizer_of(self.model, args.weight_decay)
        self.average = {name: p.detach().clone() for name, p in self.model.state_dict().items()}
        self.vision = torch.compile(self.model.vision_model) if args.compile else self.model.vision_model
        self.step = 0

    def save(self, path: Path) -> None:
        """Write to a temporary file, then rename, so a killed run leaves the old checkpoint."""
        state = {"step": self.step, "model": self.model.state_dict(), "average": self.average,
                 "optimizer": self.optimizer.state_dict(), "size": self.args.size, "seed": self.args.seed,
                 "batch_size": self.args.batch_size, "mix": self.args.mix}  # fmt: skip
        temporary = path.with_suffix(".part")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same size, seed and batch size."""
        state = torch.load(path, map_location=self.args.device, weights_only=True)
        for name in ("size", "seed", "batch_size", "mix"):
            if state[name] != getattr(self.args, name):
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self.args, name)!r}, "
                                 f"but {path.name} was made with {state[name]!r}")  # fmt: skip
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.step = state["step"]

    def update(self, batch: Step) -> dict[str, float]:
        """One optimizer step; returns loss, accuracy of the own caption against false ones, and logit scale."""
        args = self.args
        images, ids, mask, own, true = (t.to(args.device, non_blocking=True) for t in batch)
        rate = learning_rate(self.step, args.steps, args.lr, args.warmup, args.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        pixels = images.float() / 127.5 - 1
        with torch.autocast(torch.device(args.device).type, dtype=torch.bfloat16, enabled=args.bf16):
            seen = self.model.visual_projection(self.vision(pixel_values=pixels).pooler_output)
            said = self.model.text_projection(self.model.text_model(input_ids=ids, attention_mask=mask).pooler_output)
        loss = contrastive_loss(seen.float(), said.float(), own, true, self.model.logit_scale.exp())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
            weight = 1 - min(args.average, (1 + self.step) / (10 + self.step))
            state = self.model.state_dict()
            names = [name for name, t in state.items() if t.is_floating_point()]
            torch._foreach_lerp_([self.average[n] for n in names], [state[n] for n in names], weight)
        return {"loss": loss.item(), "lr": rate, "scale": self.model.logit_scale.exp().item()}


def report(line: dict[str, Any], log: Path, last: bool) -> None:
    """Append to the JSON-lines log; show progress on a terminal."""
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")
    if sys.stderr.isatty():
        text = " ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items())
        print(f"\r{text}   ", end="\n" if last else "", file=sys.stderr, flush=True)


def train(args: argparse.Namespace) -> Trainer:
    """Train to `args.steps`, continuing from the checkpoint in `args.out` if there is one."""
    if args.threads:
        torch.set_num_threads(args.threads)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "tokenizer").exists():
        train_tokenizer().save_pretrained(out / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(out / "tokenizer")
    trainer = Trainer(args)
    checkpoint = out / "checkpoint.pt"
    start_from = checkpoint if checkpoint.exists() else Path(args.init) if args.init else None
    if start_from:
        trainer.load(start_from)
    data = Steps(tokenizer, args.seed, args.batch_size, trainer.size.image, args.mix)
    loader = DataLoader(data, batch_size=None, sampler=range(trainer.step, args.steps), num_workers=args.workers)
    start, first = time.perf_counter(), trainer.step
    for batch in loader:
        numbers = trainer.update(batch)
        last = trainer.step == args.steps
        if trainer.step % args.log_every == 0 or last:
            rate = (trainer.step - first) * args.batch_size / (time.perf_counter() - start)
            images = trainer.step * args.batch_size
            report({"step": trainer.step, "of": args.steps, "images": images, **numbers, "images_per_s": rate,
                    "seconds": time.perf_counter() - start}, out / "log.jsonl", last)  # fmt: skip
        if trainer.step % args.save_every == 0 or last:
            trainer.save(checkpoint)
    return trainer


def parser() -> argparse.ArgumentParser:
    """The options of the training command."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument(
        "--out", required=True, help="output directory for checkpoint and log; an unfinished run there is resumed"
    )
    p.add_argument("--size", choices=sorted(SIZES), default="mini")
    p.add_argument("--steps", type=int, default=1500)
    p.add_argument("--batch-size", type=int, default=256)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--warmup", type=int, default=200, help="number of warm-up steps")
    p.add_argument(
        "--decay", type=float, default=0.0, help="share of the steps, at the end, in which the learning rate decays"
    )
    p.add_argument("--weight-decay", type=float, default=0.05)
    p.add_argument("--average", type=float, default=0.998, help="decay of the weight average, which is exported")
    p.add_argument("--mix", choices=sorted(MIXES), default="general", help="shares of the kinds of image")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cpu")
    p.add_argument(
        "--workers", type=int, default=0, help="number of processes that generate images; 0 generates between steps"
    )
    p.add_argument("--init", help="checkpoint to start from if --out has none, to branch from a run")
    p.add_argument("--log-every", type=int, default=20)
    p.add_argument("--save-every", type=int, default=200)
    p.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument(
        "--threads", type=int, default=0, help="torch threads; 0 for torch's own choice. One is best on a busy machine"
    )
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    return p


if __name__ == "__main__":
    train(parser().parse_args())
