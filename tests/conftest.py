"""What all tests share: a seed, and the data and weights beside the repository where they exist."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from tests.hub_server import HubServer

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


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models that tests load are not noted among those of the user who runs them; commands in processes inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


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


@pytest.fixture(scope="session")
def _hub_server() -> Iterator[HubServer]:
    # one for all tests: the libraries keep connections to an address
    with HubServer().running() as server:
        yield server


@pytest.fixture
def hub(_hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A hub on this machine in place of the real one, empty, with an empty cache."""
    import datasets.config as of_datasets
    import huggingface_hub.constants as of_hub
    from huggingface_hub import HfFileSystem

    server = _hub_server
    server.clear()
    HfFileSystem.clear_instance_cache()
    cache = tmp_path / "hub-cache"
    monkeypatch.setattr(of_hub, "ENDPOINT", server.url)
    monkeypatch.setattr(of_hub, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(of_hub, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(of_datasets, "HF_ENDPOINT", server.url)
    monkeypatch.setattr(of_datasets, "HF_DATASETS_CACHE", str(cache / "datasets"))
    monkeypatch.setattr(of_datasets, "DOWNLOADED_DATASETS_PATH", str(cache / "downloads"))
    monkeypatch.setattr(of_datasets, "EXTRACTED_DATASETS_PATH", str(cache / "extracted"))
    return server
