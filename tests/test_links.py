"""A folder from a stranger may hold links and names that are paths: nothing outside of it is written or removed."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from residualign._files import LOCK_NAME, DirectoryLock, check_file_name, publish, publish_together
from residualign.errors import BadInputError
from residualign.runs.folder import RunLog, check_run_folder, open_run_folder
from residualign.store import Store, StoreWriter, remove_store
from residualign.store.folder import LocalFolder, RemoteFolder
from residualign.store.plan import ShardRange, SplitPlan
from tests.spectrum.random_tower import make_maps
from tests.store.make_store import fill, make_plan, text_vectors, write_pending

REQUEST, COMMAND = {"verb": "adapt"}, ("residualign", "adapt")
PRECIOUS = b"precious"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file outside of every folder that is written to."""
    file = tmp_path / "outside" / "precious"
    file.parent.mkdir()
    file.write_bytes(PRECIOUS)
    return file


@pytest.mark.parametrize("planted", ["page.html", "page.html.partial"])
@pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to"])
def test_a_file_is_not_written_through_a_link(tmp_path: Path, precious: Path, planted: str, kind: str) -> None:
    getattr(tmp_path / planted, kind)(precious)
    publish(tmp_path / "page.html", b"new")
    publish_together(tmp_path, {"page.html": b"newer", "other": b"x"})
    assert precious.read_bytes() == PRECIOUS
    assert (tmp_path / "page.html").read_bytes() == b"newer"
    assert not (tmp_path / "page.html").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "outside", "page.html"]


def test_a_dangling_link_makes_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.partial").symlink_to(tmp_path / "made")
    publish(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to"])
def test_a_lock_is_not_taken_through_a_link(tmp_path: Path, precious: Path, kind: str) -> None:
    (tmp_path / "run").mkdir()
    getattr(tmp_path / "run" / LOCK_NAME, kind)(precious)
    with DirectoryLock(tmp_path / "run"):
        assert not (tmp_path / "run" / LOCK_NAME).samefile(precious)
    assert precious.read_bytes() == PRECIOUS


def test_a_log_is_not_continued_through_a_link(tmp_path: Path, precious: Path) -> None:
    log = RunLog(tmp_path / "run", {"model": "m"})
    (tmp_path / "run" / "runs.jsonl").unlink()
    (tmp_path / "run" / "runs.jsonl").symlink_to(precious)
    with pytest.raises(RuntimeError, match="cannot write"):
        log.add({"setting": 1})
    assert precious.read_bytes() == PRECIOUS


def test_a_store_is_filled_beside_planted_links_and_never_through_them(tmp_path: Path, precious: Path) -> None:
    plan, folder = make_plan(), tmp_path / "store"
    with StoreWriter(folder, plan, make_maps(), text_vectors()):
        pass
    for name in (plan.shards()[0].name, "manifest.json"):
        (folder / f"{name}.partial").symlink_to(precious)
    with StoreWriter(folder, plan, make_maps(), text_vectors()) as writer:
        (folder / f"{plan.shards()[1].name}.partial").symlink_to(precious)
        write_pending(writer)
        writer.finish()
    assert precious.read_bytes() == PRECIOUS
    assert not list(folder.glob("*.partial"))


@pytest.mark.parametrize("inner", ["store", "methods", "methods/linear"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_with_a_link_for_a_folder_is_refused(tmp_path: Path, precious: Path, inner: str, overwrite: bool) -> None:
    outside = precious.parent
    for name in ("adapter.safetensors", "adapter_config.json", "linear"):
        (outside / name).write_bytes(PRECIOUS)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), open_run_folder(out, REQUEST, COMMAND):
        raise KeyboardInterrupt
    (out / inner).parent.mkdir(exist_ok=True)
    (out / inner).symlink_to(outside)
    with (
        pytest.raises(BadInputError, match=f"{inner}' is a link, expected a folder.*remove it, or choose"),
        open_run_folder(out, REQUEST, COMMAND, overwrite=overwrite),
    ):
        pass
    assert len(list(outside.iterdir())) == 4


def test_what_is_replaced_is_named_itself_not_by_a_link(tmp_path: Path) -> None:
    with open_run_folder(tmp_path / "out", REQUEST, COMMAND) as run:
        run.finish()
    fill(tmp_path / "store")
    for name in ("out", "store"):
        (tmp_path / f"to_{name}").symlink_to(tmp_path / name)
    with pytest.raises(BadInputError, match=r"to_out' is a link.*give the path of the folder itself"):
        check_run_folder(tmp_path / "to_out", REQUEST, overwrite=True)
    with pytest.raises(BadInputError, match=r"to_store' is a link.*give the path of the folder itself"):
        remove_store(tmp_path / "to_store")
    # reading through a link that the user names is as good as ever
    assert len(Store.open(tmp_path / "to_store").split("train"))


PATHS = ["../other/weights", "a/b", "..", ".", "", "/etc/passwd", "a\\b", "c:evil", "a\0b", "a\x1b[2J"]


@pytest.mark.parametrize("name", PATHS)
def test_names_that_are_paths_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError, match="cannot be used in a file name"):
        check_file_name(name)
    with pytest.raises(BadInputError, match="cannot be used in a file name"):
        check_file_name(7)
    with pytest.raises(BadInputError, match=r"split .* cannot be used in a file name"):
        make_plan(splits={name: SplitPlan((), ())})
    for folder in (LocalFolder(tmp_path), RemoteFolder("memory://x", fsspec.filesystem("memory"), "x")):
        with pytest.raises(BadInputError, match="cannot be used in a file name"):
            folder.read(name)


def test_names_of_all_scripts_are_file_names() -> None:
    for name in ("train", "test-00001.safetensors", "tr\u00e4in", "訓練", "a b", "residual-heads", ".hidden"):
        assert check_file_name(name) == name


def test_a_manifest_lists_no_files_but_those_of_its_plan(tmp_path: Path, precious: Path) -> None:
    folder = tmp_path / "store"
    fill(folder)
    whole = json.loads((folder / "manifest.json").read_text())
    other = json.loads(json.dumps(whole))
    other["shards"][0]["name"] = "../outside/precious"
    (folder / "manifest.json").write_text(json.dumps(other))
    with pytest.raises(BadInputError, match=r"manifest.json was changed"):
        Store.open(folder)
    # a split called like a path, with the fingerprint that belongs to it
    other = json.loads(json.dumps(whole))
    other["plan"]["splits"]["../outside/precious"] = other["plan"]["splits"].pop("train")
    for shard in other["shards"]:
        if shard["split"] == "train":
            shard["split"] = "../outside/precious"
    (folder / "manifest.json").write_text(json.dumps(other))
    victim = tmp_path / "outside" / ShardRange("precious", 0, 0, 1).name
    victim.write_bytes(PRECIOUS)
    with pytest.raises(BadInputError, match="cannot be used in a file name"):
        remove_store(folder)
    assert victim.read_bytes() == PRECIOUS


def test_the_folder_of_a_method_is_in_the_run(tmp_path: Path) -> None:
    with open_run_folder(tmp_path / "out", REQUEST, COMMAND) as run:
        with pytest.raises(BadInputError, match=r"method '../../x' cannot be used"):
            run.method_path("../../x")
        (tmp_path / "out" / "methods").mkdir()
        assert run.method_path("linear") == tmp_path / "out" / "methods" / "linear"
