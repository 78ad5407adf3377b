"""What all tests share: a seed, and the data and weights beside the repository where they exist."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

# the same examples on every run; a busy machine must not turn a slow example into a failure
hypothesis.settings.register_profile("residualign", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("residualign")

# the tensors here are tiny: a second thread costs more than it brings, many times more on a machine that is busy
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seeds every global generator before each test; 42, for those who seed their own."""
    random.seed(42)
    np.random.seed(42)
    torch.manual_seed(42)
    return 42


@pytest.fixture(scope="session")
def fork_server() -> None:
    """The server that worker processes come from, begun with all that any test's workers import: there is only one."""
    from residualign.data import _processes

    _processes.launch(frozenset({"residualign.models.preprocess", "open_clip.transform", "tests.data.test_batches"}))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of data packs and weights beside the repository; without it the test is skipped."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder shared/ beside the repository")
    return folder


@pytest.fixture(scope="session")
def pack(shared_dir: Path) -> Callable[[str], Path]:
    """The folder of a data pack, by its name: `pack("mnist")`."""

    def find(name: str) -> Path:
        folder = shared_dir / "data" / name
        if not folder.is_dir():
            pytest.skip(f"needs the data pack {name}")
        return folder

    return find


@pytest.fixture(scope="session")
def deit_dir(shared_dir: Path) -> Path:
    """A real vision transformer in transformers format."""
    folders = sorted((shared_dir / "weights").glob("*deit*"))
    if not folders:
        pytest.skip("needs real DeiT weights")
    return folders[0]
