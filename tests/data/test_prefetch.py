"""Work done ahead: in order, by threads or processes, with one sentence when a worker dies, and nothing left behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from residualign.data import _processes
from residualign.data import prefetch as ahead
from residualign.data.prefetch import WorkAhead
from residualign.errors import BadInputError, RunError

pytestmark = pytest.mark.usefixtures("fork_server")

WAYS = [{"workers": 0}, {"workers": 3, "processes": False}, {"workers": 2, "processes": True}]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Work:
    """Told to do things; tells which process did."""

    offset: int

    def __call__(self, job: int | str) -> tuple[int | str, int]:
        if job == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if job == "warn":
            warnings.warn("mind the gap", UserWarning, stacklevel=1)
        if job == "fail":
            raise BadInputError("one sentence")
        if isinstance(job, int):
            time.sleep(0.003 * (job % 3))  # so that workers finish out of order
            return job + self.offset, os.getpid()
        return job, os.getpid()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [0, 1, 2, 23])
def test_results_come_in_order(way: dict[str, int], n: int) -> None:
    with WorkAhead(Work(100), **way) as work:
        answers = list(work.map(range(n)))
        again = list(work.map(range(n)))
    assert [answer for answer, _ in answers] == [answer for answer, _ in again] == list(range(100, 100 + n))
    others = {process for _, process in answers} - {os.getpid()}
    assert bool(others) == bool(way.get("processes") and n)


@pytest.mark.parametrize("way", WAYS)
def test_what_the_function_raises_comes_at_its_turn(way: dict[str, int]) -> None:
    with WorkAhead(Work(0), **way) as work:
        answers = work.map([5, "fail", 7])
        assert next(answers)[0] == 5
        with pytest.raises(BadInputError, match="one sentence"):
            next(answers)
        assert next(work.map([8]))[0] == 8


@pytest.mark.parametrize("way", WAYS)
def test_warnings_reach_the_caller(way: dict[str, int]) -> None:
    with WorkAhead(Work(0), **way) as work, pytest.warns(UserWarning, match="mind the gap"):
        assert [answer for answer, _ in work.map(["warn", 3])] == ["warn", 3]


def test_a_killed_worker_is_one_sentence() -> None:
    with WorkAhead(Work(0), workers=2, processes=True) as work:
        answers = work.map([1, "die", *range(50)])
        with pytest.raises(RunError, match="worker process that reads images was killed"):
            list(answers)


def test_little_is_held_beside_the_one_in_use() -> None:
    begun: list[int] = []

    def note(job: int) -> int:
        begun.append(job)
        return job

    with WorkAhead(note, workers=3, processes=False) as work:
        answers = work.map(range(100))
        for i in range(7):
            assert next(answers) == i
            time.sleep(0.02)
            assert len(begun) <= i + 1 + 4


def test_stopping_early_leaves_no_process_waiting() -> None:
    with WorkAhead(Work(0), workers=2, processes=True) as work:
        answers = work.map(range(1000))
        worker = next(answers)[1]
        answers.close()
    assert _gone(worker, within=5)


@pytest.mark.parametrize("left", [10, 100_000])
def test_processes_start_only_where_there_is_much_to_do(left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "WORTH_STARTING", 0.2)
    with WorkAhead(Busy(), workers=2) as work:
        answers = work.map(range(left))
        processes = [next(answers) for _ in range(10)]
        end = time.monotonic() + 60
        while left > 10 and processes[-1] == os.getpid() and time.monotonic() < end:
            processes.append(next(answers))
    assert processes[0] == os.getpid()
    assert (processes[-1] != os.getpid()) == (left > 10)


class Busy:
    def __call__(self, job: int) -> int:
        end = time.thread_time() + 0.003
        while time.thread_time() < end:
            pass
        return os.getpid()


def test_what_cannot_be_pickled_stays_with_threads() -> None:
    with WorkAhead(lambda job: os.getpid(), workers=2, processes=True) as work:
        assert set(work.map(range(5))) == {os.getpid()}


def test_what_a_script_defines_stays_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _processes.packed(Work(3)) is not None
    monkeypatch.setattr(Work, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Work", Work, raising=False)
    assert pickle.dumps(Work(3))
    assert _processes.packed(Work(3)) is None


def test_wrong_number_of_workers() -> None:
    with pytest.raises(BadInputError, match="workers must be 0 or larger, got -1"):
        WorkAhead(Work(0), workers=-1)


# no guard: a worker that ran the script again would print a second greeting
SCRIPT = """
import signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from residualign.data.prefetch import WorkAhead
from tests.data.test_prefetch import Slow
# a job in the background of a shell is started with Ctrl-C ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
print("hello", flush=True)
try:
    with WorkAhead(Slow(), workers=2, processes=True) as work:
        for pid in work.map(range(400)):
            print(pid, flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


class Slow:
    def __call__(self, job: int) -> int:
        time.sleep(0.02)
        return os.getpid()


@pytest.fixture
def script(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-W", "error", str(tmp_path / "script.py"), str(ROOT)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        yield running
        running.kill()


@pytest.mark.parametrize("answers", [0, 9], ids=["while processes start", "in mid work"])
def test_ctrl_c_ends_script_and_workers_without_a_word(script: subprocess.Popen[str], answers: int) -> None:
    assert script.stdout is not None
    assert script.stdout.readline() == "hello\n"
    time.sleep(0.15)
    workers = {int(script.stdout.readline()) for _ in range(answers)}
    # as a terminal does: to every process of the group
    os.killpg(script.pid, signal.SIGINT)
    out, err = script.communicate(timeout=30)
    assert (script.returncode, err) == (130, "")
    assert "hello" not in out
    assert all(_gone(worker, within=5) for worker in workers)


def test_kill_9_leaves_no_orphan(script: subprocess.Popen[str]) -> None:
    assert script.stdout is not None
    assert script.stdout.readline() == "hello\n"
    assert int(script.stdout.readline()) != script.pid
    family = psutil.Process(script.pid).children(recursive=True)
    assert len(family) >= 3
    script.kill()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def _gone(process: int, within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False
