"""The commands on data sets of the hub, downloaded and streamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Features, Image

from tests.cli.conftest import Ran
from tests.data.make import hub_parquet, hub_repo, noise, png
from tests.hub_server import HubServer

Run = Callable[..., Ran]
FEATURES = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog", "zero"])})


def content(start: int, count: int) -> bytes:
    images = [{"bytes": png(noise(start + i, (11, 13))), "path": None} for i in range(count)]
    return hub_parquet({"image": images, "label": [i % 3 for i in range(count)]}, FEATURES, row_group_size=5)


def test_a_streamed_set_gives_the_same_store_and_results(run: Run, hub: HubServer, clip: Path, tmp_path: Path) -> None:
    hub.repos["org/pets"] = hub_repo({"train": content(0, 24), "test": content(50, 9)})

    def adapt(name: str, *flags: str) -> dict[str, Any]:
        made = run("adapt", clip, "hf:org/pets", "--out", tmp_path / name, "--method", "coarse", "--json", *flags)
        return made.json

    streamed = adapt("streamed", "--stream", "--reference", "hf:org/pets")
    evaluated = run("evaluate", tmp_path / "streamed", "hf:org/pets", "--stream", "--json").json
    taken_apart = run("decompose", clip, "hf:org/pets", "--stream", "--json").json
    extracted = run("extract", clip, "hf:org/pets", "--store", tmp_path / "store", "--stream", "--json").json
    assert not list((tmp_path / "hub-cache").rglob("*.arrow"))
    assert evaluated["accuracy"]["adapted"] == streamed["accuracy"]["adapted"]
    assert (taken_apart["n_images"], extracted["classes"]) == (33, 3)

    kept = adapt("kept", "--reference", "hf:org/pets")
    assert list((tmp_path / "hub-cache").rglob("*.arrow"))
    assert (kept["n_train"], kept["n_val"], kept["n_test"]) == (21, 3, 9)
    assert kept["accuracy"] == streamed["accuracy"]
    shards = sorted(path.name for path in (tmp_path / "kept" / "store").glob("*.safetensors"))
    assert shards
    for name in shards:
        one, other = (tmp_path / which / "store" / name for which in ("kept", "streamed"))
        assert one.read_bytes() == other.read_bytes()


def test_what_the_hub_has_not_is_bad_input(run: Run, hub: HubServer, clip: Path, tmp_path: Path) -> None:
    for flags in ((), ("--stream",)):
        ran = run("extract", clip, "hf:org/nothing", "--store", tmp_path / "store", *flags)
        assert ran.code == 2
        assert "no data set 'hf:org/nothing' on the hub" in ran.sentence
    assert not (tmp_path / "store").exists()
