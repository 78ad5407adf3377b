"""One run per folder, and none is shut out by a run that is dead."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from residualign.errors import BadInputError
from residualign.store import DirectoryLock

HOLD = """
import sys
from residualign.store import DirectoryLock
with DirectoryLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_until_the_first_dies(tmp_path, holder):
    folder = tmp_path / "out"
    with pytest.raises(BadInputError, match=f"another run is writing to {folder}"), DirectoryLock(folder):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with DirectoryLock(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert list(folder.iterdir()) == []


def test_a_second_lock_in_the_same_process_is_refused_and_changes_nothing(tmp_path):
    with DirectoryLock(tmp_path):
        for _ in range(2):
            with pytest.raises(BadInputError, match="another run"), DirectoryLock(tmp_path):
                pass
        assert Path(tmp_path / ".lock").exists()
    with DirectoryLock(tmp_path):
        pass


def test_it_is_let_go_when_the_body_raises(tmp_path):
    with pytest.raises(KeyError), DirectoryLock(tmp_path / "new" / "folder"):
        raise KeyError
    with DirectoryLock(tmp_path / "new" / "folder"):
        pass


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="is a file"), DirectoryLock(tmp_path / "file"):
        pass
