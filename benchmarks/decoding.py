"""Images per second without a tower: read in the caller, by threads of its process, or by worker processes."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import residualign as ra
from benchmarks.harness import Result, Row, Timings, interleave, median_interval
from residualign.data.batches import PixelLoader, runs
from residualign.data.split import Split
from residualign.models.preprocess import Preprocess

__all__ = ["Sizes", "run", "save_photographs", "threaded"]

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Sizes:
    """Images per call, and how they are read. image_size: side length in pixels."""

    images: int = 384
    batch: int = 32
    workers: int = 2
    image_size: int = 224
    rounds: int = 9


def run(sizes: Sizes) -> Result:
    """JPEG files of about 500 x 375 to normalized pixels of a CLIP; nothing is done with them."""
    with tempfile.TemporaryDirectory() as scratch:
        split = ra.load_data(save_photographs(Path(scratch), sizes.images), split=False).train
        return _run(sizes, split, clip_pixels(sizes.image_size))


def _run(sizes: Sizes, split: Split, transform: Transform) -> Result:
    wanted = runs(split, range(len(split)), sizes.batch)

    def in_caller() -> None:
        with PixelLoader([split], transform, workers=0) as loader:
            _consume(batch.pixels for batch in loader.read(wanted))

    def by_threads() -> None:
        _consume(threaded(split, transform, sizes.batch, sizes.workers))

    with PixelLoader([split], transform, workers=sizes.workers, processes=True) as loader:

        def by_processes() -> None:
            _consume(batch.pixels for batch in loader.read(wanted))

        start = time.perf_counter()
        first = next(iter(loader.read(wanted)))
        start_seconds = time.perf_counter() - start
        ways = {"caller": in_caller, "threads": by_threads, "processes": by_processes}
        timings = _with_processor_time_of_all(ways, sizes.rounds)
        memory = {name: _peak_bytes(way, name == "processes") for name, way in ways.items()}
    assert first.pixels is not None
    names = {
        "caller": "in the caller",
        "threads": f"{sizes.workers} threads",
        "processes": f"{sizes.workers} processes",
    }
    rows = []
    for name, words in names.items():
        rates = median_interval([len(split) / seconds for seconds in timings.wall[name]])
        cpu = float(np.median(timings.cpu[name])) / len(split)
        rows.append(Row.of(words, rates, "images/s", note=f"{1000 * cpu:.2f} ms of CPU time per image"))
    for name, to, aim in (("threads", "caller", ""), ("processes", "caller", ""), ("processes", "threads", "> 1")):
        # being k times as fast means that the other takes k times as long
        ratio = timings.ratio(to, name)
        rows.append(Row.of(f"{names[name]} / {names[to]}", ratio.of_medians, "x", aim, "of medians"))
        rows.append(Row.of(f"{names[name]} / {names[to]}", ratio.per_round, "x", aim, "median of rounds"))
    rows.append(Row("first batch of the first processes", start_seconds, "s", note="once; threads read meanwhile"))
    rows += [
        Row(f"{words}: peak memory beyond this process at rest", memory[name] / 2**20, "MiB", note="all processes")
        for name, words in names.items()
    ]
    return Result(
        "decoding",
        f"{len(split)} JPEG files of about 500 x 375 to {tuple(first.pixels.shape[1:])} pixels, no tower",
        asdict(sizes),
        rows,
        (
            "Decoding and resizing is Pillow outside the interpreter's lock, rescaling and normalizing is numpy, "
            "partly inside it: threads wait for one another, and for whatever else Python does in the process.",
            "Processes cost the start of an interpreter with the model library, and a copy of each batch.",
            "More workers than cores do not help.",
        ),
        {"wall": dict(timings.wall), "cpu": dict(timings.cpu), "memory_bytes": memory, "start_seconds": start_seconds},
    )


def threaded(split: Split, transform: Transform, batch_size: int, workers: int) -> Iterator[Tensor]:
    """The alternative that is not used: one job per image for threads of the model's process, two batches ahead."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[list[Any]] = deque()
        for start in range(0, len(split), batch_size):
            positions = range(start, min(start + batch_size, len(split)))
            pending.append([pool.submit(lambda i: transform(split.image(i)), i) for i in positions])
            if len(pending) > 2:
                yield torch.stack([future.result() for future in pending.popleft()])
        while pending:
            yield torch.stack([future.result() for future in pending.popleft()])


def clip_pixels(image_size: int) -> Preprocess:
    """The preprocessing of OpenAI's CLIP."""
    from transformers import CLIPImageProcessorPil

    return Preprocess(CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=image_size))


def save_photographs(folder: Path, n: int, seed: int = 0) -> Path:
    """n JPEG files, 500 x 375 or upright: a smooth background, shapes and noise, about as large as photographs."""
    generator = np.random.default_rng(seed)
    for i in range(n):
        size = (500, 375) if i % 3 else (375, 500)
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        for _ in range(9):
            x, y, r = (int(generator.integers(0, limit)) for limit in (*size, 90))
            color = tuple(int(value) for value in generator.integers(0, 256, 3))
            draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
        noisy = np.asarray(image, np.float32) + generator.normal(0, 8, (size[1], size[0], 3)).astype(np.float32)
        place = folder / f"class_{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(place / f"{i:05d}.jpg", quality=88)
    return folder


def _consume(batches: Iterator[Tensor | None] | Sequence[Tensor]) -> None:
    for pixels in batches:
        assert pixels is not None
        # touch one number per memory page, so that the batch has really arrived
        float(pixels.flatten()[:: 4096 // 4].sum())


def _with_processor_time_of_all(ways: dict[str, Callable[[], None]], rounds: int) -> Timings:
    """As `interleave`, but the CPU time counts the workers too."""
    cpu: dict[str, list[float]] = {name: [] for name in ways}

    def counted(name: str) -> Callable[[], None]:
        def once() -> None:
            before = _processor_seconds()
            ways[name]()
            cpu[name].append(_processor_seconds() - before)

        return once

    timings = interleave({name: counted(name) for name in ways}, rounds)
    return Timings(timings.wall, {name: tuple(seconds[1:]) for name, seconds in cpu.items()})


def _family() -> list[psutil.Process]:
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def _processor_seconds() -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in _family()))


def _peak_bytes(way: Callable[[], None], with_workers: bool) -> int:
    """Peak memory of this process (and its workers) during the call, minus this process's own before it.

    Proportional set size where the system reports it, so that shared memory counts once.
    """
    rest = _bytes(psutil.Process())
    with _sampled(lambda: sum(map(_bytes, _family() if with_workers else [psutil.Process()]))) as seen:
        way()
    return max(seen) - rest


@contextmanager
def _sampled(measure: Callable[[], int]) -> Iterator[list[int]]:
    seen, stop = [measure()], threading.Event()

    def sample() -> None:
        while not stop.wait(0.05):
            seen.append(measure())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def _bytes(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.uss))
