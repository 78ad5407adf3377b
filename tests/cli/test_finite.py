"""Numbers that are not finite are refused by one sentence wherever embeddings and coordinates are made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import residualign as ra
from residualign.classification.evaluation import evaluate
from residualign.decomposition.statistics import relative_error
from residualign.decomposition.trace import trace_coordinates
from residualign.models.finite import is_finite
from tests.adapter.make_adapter import random_adapter
from tests.cli.conftest import Ran

# that the checkpoint overflows on pictures is told when it is loaded
pytestmark = pytest.mark.filterwarnings("ignore:model .* NaN or infinite:UserWarning")

OVERFLOW = r"1 image is NaN or infinite \('images\[1\]'\): the activations of this model overflow float16; load it with"


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that runs in float16 on what it is tried on at load, but not on brighter pixels or plain colors.

    The stream before the first norm is scaled up, which the norms take out again. The patch embedding answers a plain
    color more strongly than noise and the pictures of the trial.
    """
    folder = tmp_path_factory.mktemp("tight") / "model"
    shutil.copytree(str(files("residualign") / "models" / "mini"), folder)
    (folder / "spectra.safetensors").unlink()
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    at = "vision_model.embeddings."
    noise = ra.load_model("mini").tower.probe(4)
    largest = torch.nn.functional.conv2d(noise, tensors[at + "patch_embedding.weight"], stride=8).abs().max()
    for part in ("patch_embedding.weight", "position_embedding.weight", "class_embedding"):
        tensors[at + part] *= 4.5e4 / largest
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def too_bright() -> torch.Tensor:
    """Two images of finite pixels, of which the second is too much for the activations of a tower in float16."""
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pixels[1] *= 20
    return pixels


def adapter(model: ra.VisionModel, method: str = "residual-heads") -> ra.Adapter:
    made = random_adapter(ra.load_model(model.name), method)
    made.attach(model)
    return made


ENTRIES: dict[str, Callable[[ra.VisionModel, torch.Tensor], object]] = {
    "encode_pixels": lambda model, images: model.encode_pixels(model.pixels(images)),
    "trace": lambda model, images: trace_coordinates(model.tower, model.pixels(images)),
    "decompose": ra.decompose,
    "decompose in batches": lambda model, images: ra.decompose(model, images, batch_size=1),
    "locate": lambda model, images: ra.locate(model, images, ["L1.H0"]),
    "predict": lambda model, images: adapter(model).predict(images),
    "predict without units": lambda model, images: adapter(model, "linear").predict_proba(images),
    "attribution": lambda model, images: adapter(model).attribution(images),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_overflows_half_precision_is_refused_by_the_image(entry: str, tight: Path) -> None:
    model = ra.load_model(tight, dtype="float16")
    with pytest.raises(ra.BadInputError, match=OVERFLOW):
        ENTRIES[entry](model, too_bright())
    # the same pixels are no trouble for bfloat16
    ENTRIES[entry](ra.load_model(tight, dtype="bfloat16"), too_bright())


def test_a_model_that_overflows_on_the_pictures_of_the_trial_loads_with_a_warning(tight: Path, tmp_path: Path) -> None:
    shutil.copytree(tight, tmp_path / "model")
    settings = json.loads((tight / "preprocessor_config.json").read_text())
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(settings | {"image_std": [0.02] * 3}))
    with pytest.warns(UserWarning, match="the activations of this model overflow float16; load it with"):
        ra.load_model(tmp_path / "model", dtype="float16")
    ra.load_model(tmp_path / "model")


@pytest.mark.parametrize("entry", ENTRIES)
def test_pixels_that_are_not_finite_are_named_as_the_reason(entry: str) -> None:
    pixels = torch.zeros(3, 3, 32, 32)
    pixels[2, 0, 5, 5] = float("nan")
    with pytest.raises(ra.BadInputError, match=r"NaN or infinite \('images\[2\]'\): so are the pixels given"):
        ENTRIES[entry](ra.load_model("mini"), pixels)


def test_plain_embeddings_come_with_a_warning(tight: Path) -> None:
    model = ra.load_model(tight, dtype="float16")
    with pytest.warns(UserWarning, match=OVERFLOW):
        embeddings = model.encode_image(too_bright())
    assert embeddings.isfinite().all(dim=1).tolist() == [True, False]


def test_coordinates_and_logits_given_by_hand() -> None:
    model = ra.load_model("mini")
    coordinates = trace_coordinates(model.tower, model.tower.probe(3))
    coordinates.heads[1, 2, 3, 0] = float("inf")
    for use in (adapter(model).predict, adapter(model).attribution):
        with pytest.raises(ra.BadInputError, match=r"coordinates of L2\.H3 hold NaN or infinity"):
            use(coordinates)
    logits = torch.tensor([[1.0, 2.0], [float("nan"), 0.0]])
    with pytest.raises(ra.BadInputError, match="logits of 1 of 2 images are NaN or infinite"):
        evaluate(logits, torch.tensor([0, 0]), ("a", "b"))


def test_texts_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ra.load_model("mini")
    assert model.text is not None
    encode = model.text.encode

    def broken(texts: list[str]) -> torch.Tensor:
        vectors = encode(texts)
        vectors[texts.index("a dog")] = float("inf")
        return vectors

    monkeypatch.setattr(model.text, "encode", broken)
    with pytest.raises(ra.BadInputError, match=r"1 of 2 texts are NaN or infinite \('a dog'\)"):
        model.encode_text(["a cat", "a dog"])


def test_a_sum_that_overflows_is_no_infinity() -> None:
    assert is_finite(torch.full((9,), 6e4, dtype=torch.float16))
    assert not is_finite(torch.tensor([1.0, float("inf"), float("-inf")]))


def test_an_output_of_zeros_has_no_error_or_an_infinite_one() -> None:
    assert relative_error(0.0, 0.0) == 0.0
    assert relative_error(1e-9, 0.0) == float("inf")
    assert relative_error(1.0, 4.0) == 0.25


def test_every_command_refuses_and_names_flag_and_image(run: Callable[..., Ran], tight: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for i in range(24):
        # nearly cyan and nearly red
        color = (5 * i, 255, 255 - i) if i % 2 else (255 - i, 5 * (i % 5), i)
        file = data / ("cat", "dog")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), color).save(file)
    assert run("adapt", tight, data, "--out", tmp_path / "a", "--method", "coarse").code == 0
    image = next((data / "cat").iterdir())
    for command in (
        ["classify", tmp_path / "a", image],
        ["evaluate", tmp_path / "a", data],
        ["extract", tight, data, "--store", tmp_path / "s"],
        ["decompose", tight, data],
        ["geometry", tight, data],
        ["where", tight, image, "--unit", "L1.H0", "--out", tmp_path / "w"],
    ):
        ran = run(*command, "--dtype", "float16")
        assert ran.code == 2, command
        assert "overflow float16; load it with --dtype float32 or --dtype bfloat16" in ran.sentence
        assert "cat" in ran.sentence or "dog" in ran.sentence
        assert "images[" not in ran.sentence
