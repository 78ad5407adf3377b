"""A store that was stopped anywhere, in whatever way, ends with the bytes of one that never was."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from residualign.errors import BadInputError, RunError
from residualign.store import SplitPlan, Store, StoreWriter
from tests.spectrum.random_tower import make_maps
from tests.store.make_store import BROKEN, fill, make_plan, text_vectors, tree, write_pending

ROOT = Path(__file__).resolve().parents[2]


class Killed(BaseException):
    """What a signal would be, if it could be raised at a chosen line."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores") / "undisturbed"
    fill(folder, skip=BROKEN)
    return tree(folder)


def resume(folder, **kwargs):
    with StoreWriter(folder, make_plan(**kwargs), make_maps(), text_vectors()) as writer:
        pass
    return writer


def test_killed_at_every_step_and_continued(tmp_path, undisturbed, monkeypatch):
    """Every write, sync and rename in turn is the last thing that happens."""
    steps = ["fsync", "replace", "unlink"]
    originals = {name: getattr(os, name) for name in steps}
    n_kills = 0
    for last in range(1000):
        folder = tmp_path / str(last)
        count = 0

        def counted(name, last=last):
            def call(*args, **kwargs):
                nonlocal count
                if args and not isinstance(args[0], int) and Path(args[0]).name == ".lock":
                    return originals[name](*args, **kwargs)
                count += 1
                if count > last:
                    raise Killed
                return originals[name](*args, **kwargs)

            return call

        with monkeypatch.context() as patched:
            for name in steps:
                patched.setattr(os, name, counted(name))
            try:
                fill(folder, skip=BROKEN)
            except Killed:
                n_kills += 1
            else:
                break
        partial = set(tree(folder))
        store = fill(folder, skip=BROKEN)
        assert tree(folder) == undisturbed, (last, partial)
        store.verify()
    assert tree(folder) == undisturbed
    # three or more steps for each of the nine files and the note of an unfinished store
    assert n_kills >= 30


@pytest.mark.slow
def test_killed_by_the_system_at_random_moments_and_continued(tmp_path, undisturbed):
    """Real processes and SIGKILL: however often it is killed, no image is lost, doubled or changed."""
    moments = random.Random(5)
    folder = tmp_path / "store"
    kills = 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.make_store", str(folder), "0.03"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        if kills < 3:
            time.sleep(moments.uniform(0, 0.25))
            process.send_signal(signal.SIGKILL)
        rest = process.communicate(timeout=120)[0]
        if process.returncode == 0:
            assert rest == "done\n"
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    assert kills >= 2
    assert tree(folder) == undisturbed


def test_what_is_done_is_not_done_again(tmp_path):
    folder = tmp_path / "store"
    with StoreWriter(folder, make_plan(), make_maps(), text_vectors()) as writer:
        first, second = writer.pending_shards()[:2]
        with pytest.raises(Killed):
            write_some(writer, [first, second])
        assert writer.n_done == 26
    before = {name: (folder / name).stat().st_mtime_ns for name in (first.name, second.name, "maps.safetensors")}
    with StoreWriter(folder, make_plan(), make_maps(), text_vectors()) as writer:
        assert writer.n_done == 26
        assert [s.name for s in writer.pending_shards()] == [s.name for s in make_plan().shards()[2:]]
        write_pending(writer)
        writer.finish()
    assert before == {name: (folder / name).stat().st_mtime_ns for name in before}


def write_some(writer, shards):
    class Some:
        plan = writer.plan
        write_shard = writer.write_shard

        @staticmethod
        def pending_shards():
            return shards

    write_pending(Some)
    raise Killed


def begun(folder):
    with StoreWriter(folder, make_plan(), make_maps(), text_vectors()) as writer, pytest.raises(Killed):
        write_some(writer, writer.pending_shards()[:2])


def test_an_unfinished_store_says_how_to_go_on(tmp_path):
    begun(tmp_path / "store")
    with pytest.raises(BadInputError, match="unfinished store with 26 of 72 images; run the command"):
        Store.open(tmp_path / "store")


def test_a_finished_store_has_nothing_pending(tmp_path):
    folder = tmp_path / "store"
    fill(folder)
    before = tree(folder)
    with StoreWriter(folder, make_plan(), make_maps(), text_vectors()) as writer:
        assert writer.pending_shards() == ()
        writer.finish()
    assert tree(folder) == before


@pytest.mark.parametrize("finish", [False, True], ids=["unfinished", "finished"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {**make_plan().model, "fingerprint": "beef"}}, r'model\.fingerprint \("f00d" there, "beef" here\)'),
        ({"model": {**make_plan().model, "preprocessing": {"size": 64}}}, r"preprocessing\.size \(32 there, 64 here\)"),
        ({"batch_size": 7}, r"batch_size \(5 there, 7 here\)"),
        ({"shard_size": 7}, r"shard_size \(13 there, 7 here\)"),
        ({"dtype": "float16"}, "dtype"),
        ({"class_names": ("a", "b", "d")}, "class_names"),
        ({"splits": {"train": SplitPlan(("x",), (0,))}}, r"splits\.train\.keys \(61 entries, \w+ there, 1 entries"),
        ({"logit_scale": None}, "logit_scale"),
    ],
)
def test_a_store_of_another_plan_is_refused_by_what_differs(tmp_path, changes, message, finish):
    folder = tmp_path / "store"
    fill(folder) if finish else begun(folder)
    before = tree(folder)
    with pytest.raises(BadInputError, match=message):
        resume(folder, **changes)
    assert tree(folder) == before


def test_the_same_model_under_another_path_goes_on(tmp_path, undisturbed):
    folder = tmp_path / "store"
    with StoreWriter(folder, make_plan(), make_maps(), text_vectors()) as writer:
        write_pending(writer, skip=BROKEN)
    renamed = {"model": {**make_plan().model, "name": "./elsewhere/tiny"}, "data": {"name": "other"}}
    with StoreWriter(folder, make_plan(**renamed), make_maps(), text_vectors()) as writer:
        writer.finish()
    assert tree(folder) == undisturbed


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:20], lambda b: b"", lambda b: b[:-1] + b"\x55"])
def test_a_damaged_shard_is_refused_by_name_before_anything_is_done(tmp_path, damage):
    folder = tmp_path / "store"
    begun(folder)
    shard = folder / "train-00001.safetensors"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(BadInputError, match=r"train-00001\.safetensors is damaged"):
        resume(folder)


def test_a_foreign_shard_is_refused_by_name(tmp_path):
    folder = tmp_path / "store"
    begun(folder)
    (folder / "train-00001.safetensors").write_bytes((folder / "maps.safetensors").read_bytes())
    with pytest.raises(BadInputError, match=r"train-00001\.safetensors is not a shard of a store"):
        resume(folder)


def test_a_damaged_file_beside_the_shards_is_written_again(tmp_path):
    folder = tmp_path / "store"
    begun(folder)
    before = tree(folder)
    for name in ("maps.safetensors", "classes.safetensors"):
        (folder / name).write_bytes(b"half of it")
    resume(folder)
    assert tree(folder) == before


@pytest.mark.parametrize("finish", [False, True], ids=["unfinished", "finished"])
def test_what_a_killed_run_had_begun_to_write_is_removed(tmp_path, finish):
    folder = tmp_path / "store"
    fill(folder) if finish else begun(folder)
    before = tree(folder)
    (folder / "train-00000.safetensors.partial").write_bytes(b"half")
    (folder / ".lock").touch()
    resume(folder)
    assert tree(folder) == before


def test_the_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BadInputError, match=r"is not a store: it holds thesis\.tex"):
        resume(tmp_path)
    assert list(tree(tmp_path)) == ["thesis.tex"]
    with pytest.raises(BadInputError, match="is a file"):
        resume(tmp_path / "thesis.tex")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "no space left on the device"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EDQUOT, "the disk quota is used up"),
    ],
)
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_full_or_locked_disk_is_one_sentence_and_keeps_what_is_done(tmp_path, monkeypatch, code, reason, call):
    folder = tmp_path / "store"

    def fail(*args):
        raise OSError(code, os.strerror(code))

    with StoreWriter(folder, make_plan(), make_maps(), text_vectors()) as writer:
        with pytest.raises(Killed):
            write_some(writer, writer.pending_shards()[:2])
        with monkeypatch.context() as patched:
            patched.setattr(os, call, fail)
            with pytest.raises(RunError) as failure:
                write_pending(writer)
    message = str(failure.value)
    assert reason in message
    assert "26 of 72 images are kept there and the same command continues" in message
    assert "\n" not in message
    assert not [name for name in tree(folder) if "partial" in name]
    fill(folder)


def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and _run("mount", "-t", "tmpfs", "-o", "size=28k", "tmpfs", str(disk))
    if not mounted:
        pytest.skip("needs the right to mount a small disk")
    try:
        with pytest.raises(RunError, match=r"no space left on the device; \d+ of 72 images are kept"):
            fill(disk / "store")
        assert _run("mount", "-o", "remount,size=1m", str(disk))
        fill(disk / "store").verify()
        fill(tmp_path / "store")
        assert tree(disk / "store") == tree(tmp_path / "store")
    finally:
        _run("umount", str(disk))


def _run(*command):
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "mkdir", fail)
    with pytest.raises(RunError, match="permission denied; nothing was changed there"):
        resume(tmp_path / "store")


def test_a_remote_failure_is_one_sentence(tmp_path, monkeypatch):
    url = f"memory://{tmp_path.name}/failing"
    with StoreWriter(url, make_plan(), make_maps()) as writer:

        def fail(*args):
            raise OSError("the connection was reset")

        monkeypatch.setattr(writer._folder._filesystem, "pipe_file", fail)
        with pytest.raises(RunError, match="the connection was reset; 0 of 72 images are kept"):
            write_pending(writer)
