"""The real command on tiny random models and small folders of images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from residualign.cli import main
from tests.random_models import save_clip, save_vit


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; fails where there is anything else."""
        content = json.loads(self.out)
        assert isinstance(content, dict)
        assert self.out.isascii()
        return content

    @property
    def sentence(self) -> str:
        """The error: one line, no traceback."""
        lines = self.err.strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1, self.err
        assert "Traceback" not in self.err
        return errors[0].removeprefix("error: ")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs a command in this process: `run("adapt", model, data, "--json")`."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return Ran(code, streams.out, streams.err)

    return run


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vit(tmp_path_factory.mktemp("models") / "vit")


def make_images(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Class folders of noisy images; each class has a color of its own, so that there is something to learn."""
    generator = np.random.default_rng(seed)
    for label, (name, count) in enumerate(counts.items()):
        folder = root / name
        folder.mkdir(parents=True)
        color = np.random.default_rng(label).integers(40, 215, 3)
        for i in range(count):
            pixels = np.clip(color + generator.normal(0, 30, (13, 11, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three classes of ten images."""
    return make_images(tmp_path / "images", {"cat": 10, "dog": 10, "zero": 10})
