"""Models of the hub: from its cache without a network, from a server with one, and each refusal in one sentence."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from tests import hub, random_models

import residualign as ra

HUB_ID = "some-lab/tiny-clip"


@pytest.fixture(scope="module")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_models.save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def online(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Starts a hub of one model: `with online(folder) as asked`."""

    @contextmanager
    def start(folder: Path, **options: Any) -> Iterator[list[str]]:
        with hub.serve_model(HUB_ID, folder, **options) as (address, asked):
            _go_online(monkeypatch, address)
            yield asked

    return start


def _go_online(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """What HF_ENDPOINT decides when the client is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def refusal(name: str) -> str:
    """The one sentence with which a model is refused."""
    with pytest.raises(ra.BadInputError) as caught:
        ra.load_model(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [HUB_ID, f"hf:{HUB_ID}", f"hf:{HUB_ID}@main", f"{HUB_ID}@{hub.COMMIT}"])
def test_a_cached_model_needs_no_network(clip_dir: Path, cache: Path, name: str) -> None:
    hub.cache_model(cache, HUB_ID, clip_dir)
    model = ra.load_model(name, dtype="float64")
    assert (model.name, model.source, model.revision) == (name, HUB_ID, hub.COMMIT)
    assert model.residual_error < 1e-10
    assert model.has_text
    assert model.fingerprint == ra.load_model(clip_dir).fingerprint
    assert model.describe()["name"] == name


def test_a_revision_pins_the_weights(clip_dir: Path, cache: Path, tmp_path: Path) -> None:
    older = random_models.save_clip(tmp_path / "older", seed=1)
    hub.cache_model(cache, HUB_ID, clip_dir)
    hub.cache_model(cache, HUB_ID, older, revision="v1", commit="2718281828459045235360287471352662497757")
    hub.cache_model(cache, HUB_ID, older, revision="refs/pr/7", commit="1618033988749894848204586834365638117720")
    newest, pinned, proposed = (ra.load_model(f"hf:{HUB_ID}{at}") for at in ("", "@v1", "@refs/pr/7"))
    assert newest.fingerprint == ra.load_model(clip_dir).fingerprint
    assert pinned.fingerprint == proposed.fingerprint == ra.load_model(older).fingerprint != newest.fingerprint
    assert pinned.revision.startswith("2718281828")
    assert proposed.revision.startswith("1618033988")


def test_an_open_clip_model_of_the_hub(cache: Path, tmp_path: Path) -> None:
    saved = random_models.save_open_clip(tmp_path / "saved")
    hub.cache_model(cache, HUB_ID, saved)
    model = ra.load_model(f"open_clip:hf-hub:{HUB_ID}")
    assert model.fingerprint == ra.load_model(f"open_clip:local-dir:{saved}").fingerprint
    assert model.name == f"open_clip:hf-hub:{HUB_ID}"


def test_a_timm_model_of_the_hub(cache: Path, tmp_path: Path) -> None:
    saved = random_models.save_timm(tmp_path / "saved")
    hub.cache_model(cache, HUB_ID, saved)
    hub.cache_model(cache, HUB_ID, random_models.save_timm(tmp_path / "older", seed=1), "v1", commit="2" * 40)
    model = ra.load_model(f"timm:hf-hub:{HUB_ID}")
    assert model.fingerprint == ra.load_model(f"timm:local-dir:{saved}").fingerprint
    assert ra.load_model(f"timm:hf-hub:{HUB_ID}@v1").fingerprint != model.fingerprint


def test_a_registered_name_loads_its_source(clip_dir: Path, cache: Path) -> None:
    source = "wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M"
    hub.cache_model(cache, source, clip_dir)
    model = ra.load_model("tinyclip")
    assert (model.name, model.source, model.revision) == ("tinyclip", source, hub.COMMIT)
    assert model.fingerprint == ra.load_model(clip_dir).fingerprint


@pytest.mark.parametrize(("name", "quick_gelu"), [("clip-b", True), ("openclip-b", False)])
def test_a_registered_tag_of_open_clip(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, quick_gelu: bool
) -> None:
    """open_clip fetches a tag's weights from the hub id in its own table; the architecture is made tiny here."""
    architecture, tag = {
        "clip-b": ("ViT-B-16-quickgelu", "openai"),
        "openclip-b": ("ViT-B-16", "laion2b_s34b_b88k"),
    }[name]
    saved = random_models.save_open_clip(tmp_path / "saved", quick_gelu=quick_gelu)
    tiny = json.loads((saved / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, tiny)
    hub_id = open_clip.get_pretrained_cfg(architecture, tag)["hf_hub"].rstrip("/")
    hub.cache_model(cache, hub_id, saved)
    model = ra.load_model(name)
    assert (model.name, model.source) == (name, f"{architecture}/{tag}")
    assert model.fingerprint == ra.load_model(f"open_clip:local-dir:{saved}").fingerprint


def test_a_saved_adapter_finds_the_model_by_the_short_name(clip_dir: Path, cache: Path, tmp_path: Path) -> None:
    hub.cache_model(cache, "wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M", clip_dir)
    data = ra.load_data(random_models.save_two_colors(tmp_path / "images"))
    model = ra.load_model("tinyclip")
    store = ra.extract(model, data, tmp_path / "store", workers=0)
    assert store.model["name"] == "tinyclip"
    adapter = ra.fit(store, method="coarse", classifier="means")
    adapter.save(tmp_path / "adapter")
    again = ra.load_adapter(tmp_path / "adapter")
    assert again.model.name == "tinyclip"
    assert again.model.fingerprint == store.model["fingerprint"]


@pytest.mark.parametrize("name", [f"hf:{HUB_ID}", "dinov2-l"])
def test_what_is_not_in_the_cache_is_said_without_a_network(cache: Path, name: str) -> None:
    said = refusal(name)
    assert "could not be reached, and the local cache does not hold it" in said
    if name == "dinov2-l":
        assert said.startswith("'dinov2-l' stands for 'facebook/dinov2-large': ")


@pytest.mark.parametrize("name", ["open_clip:hf-hub:some-lab/nothing", "timm:hf-hub:some-lab/nothing", "clip-b"])
def test_other_libraries_without_a_network(cache: Path, name: str) -> None:
    assert "could not be loaded by" in refusal(name)


@pytest.mark.parametrize("lacking", ["model.safetensors", "config.json"])
def test_a_cache_that_holds_a_part(clip_dir: Path, cache: Path, lacking: str) -> None:
    snapshot = hub.cache_model(cache, HUB_ID, clip_dir)
    # what a cleaned cache leaves: a link to nothing
    (snapshot / lacking).resolve().unlink()
    assert f"has no {lacking}" in refusal(HUB_ID)


def test_a_revision_that_is_not_in_the_cache(clip_dir: Path, cache: Path) -> None:
    hub.cache_model(cache, HUB_ID, clip_dir)
    assert "the local cache holds only a part of it or a different revision" in refusal(f"{HUB_ID}@v9")


@pytest.mark.parametrize("keep", [0, 5, 1000])
def test_damaged_weights_in_the_cache(clip_dir: Path, cache: Path, keep: int) -> None:
    blob = (hub.cache_model(cache, HUB_ID, clip_dir) / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:keep])
    assert "could not be loaded from its safetensors weights" in refusal(HUB_ID)


def test_a_name_that_no_hub_id_can_be(cache: Path) -> None:
    assert "is not a hub id; expected org/name" in refusal("hf:some-lab/a..b")


def test_a_download_fetches_what_loading_reads_and_no_more(
    clip_dir: Path, cache: Path, tmp_path: Path, online: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "published"
    shutil.copytree(clip_dir, folder)
    for other in ("pytorch_model.bin", "tf_model.h5", "model.fp16.safetensors", "README.md"):
        (folder / other).write_bytes(b"of no use here")
    with online(folder) as asked:
        model = ra.load_model(HUB_ID)
        n_asked = len(asked)
    assert (model.revision, model.has_text) == (hub.COMMIT, True)
    assert model.fingerprint == ra.load_model(clip_dir).fingerprint
    fetched = {path.rpartition("/")[2] for path in asked if "/resolve/" in path}
    assert fetched == {file.name for file in clip_dir.iterdir()}
    # the hub is gone; what was fetched stays
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert ra.load_model(HUB_ID).fingerprint == model.fingerprint
    assert len(asked) == n_asked
    next(cache.glob("models--*/snapshots/*/tokenizer.json")).unlink()
    assert "the local cache holds only a part of it or a different revision" in refusal(HUB_ID)


def test_a_checkpoint_without_safetensors_is_fetched_in_the_older_format(
    clip_dir: Path, cache: Path, tmp_path: Path, online: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = older_format(clip_dir, tmp_path / "published")
    with online(folder) as asked:
        model = ra.load_model(HUB_ID)
    assert model.fingerprint == ra.load_model(clip_dir).fingerprint
    assert "pytorch_model.bin" in {path.rpartition("/")[2] for path in asked if "/resolve/" in path}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert ra.load_model(HUB_ID).fingerprint == model.fingerprint
    assert ra.load_model(folder).fingerprint == model.fingerprint


def test_older_weights_that_bring_code_along_are_refused(clip_dir: Path, tmp_path: Path) -> None:
    folder = older_format(clip_dir, tmp_path / "model")
    ran = tmp_path / "ran"
    (folder / "pytorch_model.bin").unlink()
    torch.save({"logit_scale": Runs(str(ran))}, folder / "pytorch_model.bin")
    said = refusal(str(folder))
    assert "could not be loaded from pytorch_model.bin" in said
    assert "\n" not in said
    assert not ran.exists()


class Runs:
    """Unpickled as a pickle, it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def older_format(clip_dir: Path, folder: Path) -> Path:
    """The same checkpoint with its weights in torch's own format."""
    shutil.copytree(clip_dir, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_without_an_answer_libraries_look_into_the_cache_alone(
    clip_dir: Path, online: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from residualign.models.hub import cache_alone_without_network

    with online(clip_dir), cache_alone_without_network():
        assert not constants.HF_HUB_OFFLINE
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        # bound and not listening: every connection is refused
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        with pytest.raises(ZeroDivisionError), cache_alone_without_network():  # noqa: PT012
            assert constants.HF_HUB_OFFLINE
            raise ZeroDivisionError
        assert not constants.HF_HUB_OFFLINE
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with cache_alone_without_network():
            pass
        assert constants.HF_HUB_OFFLINE


def test_a_revision_that_the_hub_lacks(clip_dir: Path, online: Callable[..., Any]) -> None:
    with online(clip_dir):
        assert f"the hub's '{HUB_ID}' has no revision 'v9'" in refusal(f"hf:{HUB_ID}@v9")


def test_a_model_that_the_hub_lacks(clip_dir: Path, online: Callable[..., Any]) -> None:
    with online(clip_dir):
        assert "no public model 'some-lab/absent'" in refusal("some-lab/absent")


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "GatedRepo", "is gated: accept its terms at"),
        (401, "GatedRepo", "is gated: accept its terms at"),
        (403, "", "is gated: accept its terms at"),
        (401, "RepoNotFound", "no public model"),
        (401, "", "no public model"),
        (500, "", "could not be reached (HTTP 500), and the local cache does not hold it"),
    ],
)
def test_what_the_hub_refuses(
    clip_dir: Path, online: Callable[..., Any], status: int, code: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the client waits longer and longer between its questions to a server in trouble
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with online(clip_dir, status=status, code=code):
        assert says in refusal(HUB_ID)


def test_what_was_cached_is_used_when_the_hub_refuses(clip_dir: Path, cache: Path, online: Callable[..., Any]) -> None:
    hub.cache_model(cache, HUB_ID, clip_dir)
    with online(clip_dir, status=403, code="GatedRepo"):
        assert ra.load_model(HUB_ID).revision == hub.COMMIT


def test_nobody_listens_at_the_address(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    _go_online(monkeypatch, address)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert "could not be reached" in refusal(HUB_ID)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_not_blamed_on_the_model(monkeypatch: pytest.MonkeyPatch, wrapped: bool) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def snapshot_download(*arguments: object, **options: object) -> None:
        if wrapped:
            raise RuntimeError("download failed") from full
        raise full

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(OSError, match="No space left") as caught:
        ra.load_model(HUB_ID)
    assert caught.value is full


@pytest.mark.slow
def test_the_environment_alone_decides(clip_dir: Path, tmp_path: Path) -> None:
    """The real command in a process of its own, with HF_HOME and HF_HUB_OFFLINE as users set them."""
    hub.cache_model(tmp_path / "home" / "hub", HUB_ID, clip_dir)
    plain = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-m", "residualign.cli", "models", "check", HUB_ID, "--dtype", "float64", "--json"]
    environment = {**plain, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    (report,) = json.loads(ran.stdout)["models"]
    assert report["revision"] == hub.COMMIT
    assert report["sums"][0]["error"] < 1e-10
