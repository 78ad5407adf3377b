"""Work done ahead of the caller, in order: by threads if there is little of it, by worker processes otherwise."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

from residualign.data import _processes
from residualign.errors import BadInputError, RunError

__all__ = ["WorkAhead"]

Job = TypeVar("Job")
Result = TypeVar("Result")

WORTH_STARTING = 30.0
"""Processor seconds of work that must be left before processes are started: starting them takes up to ten."""

# results held beyond one per worker: enough to bridge a slow one, and a bound on memory
_BEYOND = 1


class WorkAhead(Generic[Job, Result]):
    """Calls a function on many jobs, ahead of the caller. A context manager: workers live until it is left.

    function
        Called with one job. Threads and processes call it at the same time; each process has a copy of its own.
    workers
        0 calls it in the caller's thread, when a result is asked for.
    processes
        None starts processes once at least `WORTH_STARTING` seconds of work are left for one thread, judged by the
        fastest job so far, and uses threads otherwise. True starts them at once, False never. A function that cannot be
        pickled, or is defined in the user's script, is called by threads.

    Results are the same either way. Processes end when the context is left or this process is killed, and ignore
    Ctrl-C.
    """

    def __init__(self, function: Callable[[Job], Result], *, workers: int = 2, processes: bool | None = None) -> None:
        if workers < 0:
            raise BadInputError(f"workers must be 0 or larger, got {workers}")
        self._function = function
        self._workers = workers
        self._may_start = processes is not False and workers > 0
        self._at_once = processes is True
        self._threads = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="ahead")
        self._pool: ProcessPoolExecutor | None = None
        self._payload = b""
        self._launched: _processes.Launched | None = None
        self._quickest: float | None = None

    def __enter__(self) -> WorkAhead[Job, Result]:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        # if the caller stops early, do not wait for queued jobs
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._pool is not None:
            self._pool.shutdown(wait=error is None, cancel_futures=True)

    def map(self, jobs: Sequence[Job]) -> Generator[Result, None, None]:
        """Results in the order of the jobs; at most workers + 1 are held besides the one in use.

        An error of the function is raised here at its job's turn and ends the results. Raises `RunError` if a worker
        process dies.
        """
        if self._workers == 0:
            yield from (self._function(job) for job in jobs)
            return
        pending: deque[Future[Any]] = deque()
        try:
            for i, job in enumerate(jobs):
                pending.append(self._submit(job, len(jobs) - i))
                if len(pending) > self._workers + _BEYOND:
                    yield self._result(pending.popleft())
            while pending:
                yield self._result(pending.popleft())
        finally:
            for future in pending:
                future.cancel()

    def _submit(self, job: Job, left: int) -> Future[Any]:
        if self._may_start and self._launched is None and self._is_worth_starting(left):
            self._launch()
        if self._pool is None and self._launched is not None:
            while self._at_once and not self._launched.is_ready():
                time.sleep(0.01)
            # until they are ready, threads do the work
            if self._launched.is_ready():
                self._pool = _processes.start_pool(self._payload, self._workers)
        if self._pool is None:
            return self._threads.submit(self._timed, job)
        try:
            return _processes.submit(self._pool, job)
        except BrokenProcessPool as error:
            raise _died() from error

    def _is_worth_starting(self, left: int) -> bool:
        return self._at_once or (self._quickest is not None and self._quickest * left >= WORTH_STARTING)

    def _launch(self) -> None:
        packed = _processes.packed(self._function)
        if packed is None:
            self._may_start = False
            return
        self._payload, modules = packed
        self._launched = _processes.launch(modules)

    def _timed(self, job: Job) -> _processes.Answer:
        # processor time of this thread: other programs' load is not a reason to start processes
        start = time.thread_time()
        result = self._function(job)
        seconds = time.thread_time() - start
        self._quickest = seconds if self._quickest is None else min(seconds, self._quickest)
        return result, ()

    def _result(self, future: Future[Any]) -> Result:
        result: Result
        try:
            result, warned = future.result()
        except BrokenProcessPool as error:
            raise _died() from error
        for message, category in warned:
            warnings.warn(message, category, stacklevel=3)
        return result


def _died() -> RunError:
    return RunError(
        "a worker process that reads images was killed, most likely for lack of memory; "
        "fewer --workers or a smaller --batch-size need less"
    )
