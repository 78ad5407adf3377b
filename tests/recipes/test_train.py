"""Training: the loss is what it says, a resumed run is the same run, an export is checked."""

from pathlib import Path

import pytest
import torch
from recipes.mini.export import export
from recipes.mini.loss import contrastive_loss
from recipes.mini.tokenizer import train_tokenizer
from recipes.mini.train import Steps, learning_rate, parser, train
from torch.nn.functional import normalize

TINY = ["--size", "tiny", "--batch-size", "17", "--no-compile", "--steps", "3", "--warmup", "2", "--seed", "5"]


def slow_loss(images: torch.Tensor, texts: torch.Tensor, own: list[int], true: torch.Tensor, scale: float) -> float:
    """The same as a loop over images: own pair against the false ones, in both directions."""
    x, t = normalize(images, dim=-1), normalize(texts, dim=-1)
    e = torch.exp(scale * x @ t.T)
    total = 0.0
    for i, c in enumerate(own):
        false_captions = sum(float(e[i, k]) for k in range(len(t)) if not true[i, k])
        false_images = sum(float(e[k, c]) for k in range(len(x)) if not true[k, c])
        total -= 0.5 * torch.log(e[i, c] / (e[i, c] + false_captions)).item()
        total -= 0.5 * torch.log(e[i, c] / (e[i, c] + false_images)).item()
    return total / len(own)


def test_loss_equals_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (11, 7))
    own = torch.randint(7, (11,), generator=generator)
    true = torch.rand(11, 7, generator=generator) < 0.3
    true[torch.arange(11), own] = True
    fast = contrastive_loss(images, texts, own, true, torch.tensor(3.0, dtype=torch.float64))
    assert fast.item() == pytest.approx(slow_loss(images, texts, own.tolist(), true, 3.0), rel=1e-12)


def test_true_captions_are_never_negatives() -> None:
    images, texts = torch.randn(5, 3), torch.randn(4, 3, requires_grad=True)
    own = torch.tensor([0, 1, 0, 1, 0])
    true = torch.zeros(5, 4, dtype=torch.bool)
    true[torch.arange(5), own] = True
    true[:, 3] = True  # true of every image, the caption of none
    contrastive_loss(images, texts, own, true, torch.tensor(10.0)).backward()
    assert texts.grad is not None
    assert texts.grad[3].abs().max() == 0
    assert texts.grad[2].abs().max() > 0


def test_a_batch_of_training_has_consistent_captions() -> None:
    images, ids, mask, own, true = Steps(train_tokenizer(), 0, 67, 16)[4]
    assert images.shape == (67, 3, 16, 16)
    assert ids.shape == mask.shape
    assert own.max() + 1 == len(ids) == true.shape[1]
    assert len(ids.unique(dim=0)) == len(ids) <= 67
    assert true[torch.arange(67), own].all()


def test_a_resumed_run_has_the_same_weights(tmp_path: Path) -> None:
    whole = train(parser().parse_args(["--out", str(tmp_path / "a"), *TINY]))
    options = parser().parse_args(["--out", str(tmp_path / "b"), *TINY, "--save-every", "1"])
    options.steps, options.decay = 2, 0.0  # stop after two; the rate of these steps does not depend on the end
    train(options)
    resumed = train(parser().parse_args(["--out", str(tmp_path / "b"), *TINY]))
    assert resumed.step == whole.step == 3
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
        assert torch.equal(whole.average[name], resumed.average[name]), name
    assert len((tmp_path / "b" / "log.jsonl").read_text().splitlines()) == 2  # one line at each end
    with pytest.raises(ValueError, match="--batch-size is 19"):
        train(parser().parse_args(["--out", str(tmp_path / "b"), *TINY, "--batch-size", "19"]))


def test_rate_before_the_decay_does_not_depend_on_the_length() -> None:
    short, long = ([learning_rate(s, steps, 1e-3, warmup=5, decay=0.25) for s in range(steps)] for steps in (40, 400))
    assert short[:30] == long[:30]
    assert short[0] < short[4] == 1e-3
    assert short[30:] == sorted(short[30:], reverse=True)
    assert short[-1] < 1e-4


def test_export_refuses_what_is_not_finite_and_keeps_the_old_folder(tmp_path: Path) -> None:
    trainer = train(parser().parse_args(["--out", str(tmp_path), *TINY]))
    checkpoint, out = tmp_path / "checkpoint.pt", tmp_path / "export"
    export(checkpoint, out)
    before = {f.name: f.read_bytes() for f in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= set(before)
    trainer.average["visual_projection.weight"][0, 0] = float("nan")
    trainer.save(checkpoint)
    with pytest.raises(ValueError, match=r"visual_projection.weight has values that are not finite"):
        export(checkpoint, out)
    assert {f.name: f.read_bytes() for f in out.iterdir()} == before
    assert not list(tmp_path.glob(".export*"))
