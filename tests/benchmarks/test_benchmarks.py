"""Each benchmark runs at a tiny size and answers in the stated structure; nothing here looks at a clock."""

import json
import math
import platform
from dataclasses import asdict

import pytest
import torch
from benchmarks import families, fit_growth, similarity, spectra, two_nn
from benchmarks.__main__ import NAMES, main
from benchmarks.fresh import in_fresh_process
from benchmarks.harness import Result
from benchmarks.machine import describe

TINY = {
    "tracing": "--batch 2 --layers 1 --image-size 32 --rounds 2 --calls 1",
    "families": "--families vit-b32 siglip-b16 coca-b32 timm-mean-b16 --layers 1 --image-size 32 --rounds 2 "
    "--batch 2 --memory-batch 1 --memory-runs 2",
    "epochs": "--images 7 --batch 3 --classes 5 --layers 1 --image-size 32 --spectrum-images 20 --rounds 1",
    "adapted_inference": "--batch 2 --layers 1 --image-size 32 --rounds 1 --calls 1",
    "spectra": "--images 30 --layers 1 --heads 2 --dim 11 --svd-units 1 --rounds 1 --memory-images 20 40",
    "one_pass": "--images 50 --part 20 --batch 7 --classes 2 --layers 1 --image-size 32 --rounds 1 --fits 1",
    "decoding": "--images 7 --batch 3 --workers 1 --image-size 32 --rounds 2",
    "somp": "--images 23 --dim 11 --rank 5 --texts 31 --chosen 3 --rounds 2",
    "two_nn": "--images 600 --heads 2 --dim 11 --head-dim 5 --subsamples 2 --compared 530 570 --rounds 1",
    "fit_growth": "--base-images 20 --base-layers 1 --base-classes 3 --images 20 30 --heads 12 24 --classes 3 5 "
    "--width 24 --dim 11 --repeats 1",
    "similarity": "--images 30 --layers 1 --heads 2 --dim 11 --loop-pairs 3 --rounds 1",
}


def in_this_process(function, **arguments):
    """Starting Python and loading torch five times over would take most of the time of these tests."""
    return {**function(**arguments), "base_rss_bytes": 100, "peak_rss_bytes": 300}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.filterwarnings("ignore:.*os.fork.*:DeprecationWarning")
def test_prints_a_table_and_writes_the_same_as_json(name, tmp_path, capsys, monkeypatch):
    for module in (families, fit_growth, similarity, spectra, two_nn):
        monkeypatch.setattr(module, "in_fresh_process", in_this_process)
    file, page = tmp_path / "out.json", tmp_path / "out.md"
    assert main([name, "--json", str(file), "--markdown", str(page), *TINY[name].split()]) == 0
    report = json.loads(file.read_text())
    (result,) = report["benchmarks"]
    assert result["name"] == name
    assert result["limits"]
    for row in result["rows"]:
        assert math.isfinite(row["value"])
        if row["low"] is not None:
            assert row["low"] <= row["value"] <= row["high"]
    table = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(result["rows"])
    assert {line.count("|") for line in table} == {6}
    printed = capsys.readouterr().out
    assert result["title"][:20] in printed
    assert {"processor", "cores", "torch_threads", "float32_gflops", "copy_gb_s"} <= report["machine"].keys()


def test_peak_memory_is_that_of_the_measured_process_alone():
    held = torch.zeros(150 * 2**20 // 4)
    small, large = (in_fresh_process(hold, megabytes=n) for n in (1, 64))
    assert held.nbytes > small["peak_rss_bytes"] - small["base_rss_bytes"]
    grown = (large["peak_rss_bytes"] - small["peak_rss_bytes"]) / 2**20
    assert 50 < grown < 80


def hold(megabytes):
    return {"sum": float(torch.ones(megabytes * 2**20 // 4).sum())}


def test_machine_is_described_without_its_name():
    assert platform.node() not in json.dumps(describe())


def test_flags_of_tuples_and_numbers_reach_the_sizes(monkeypatch, tmp_path):
    monkeypatch.setattr(spectra, "run", lambda sizes: Result("spectra", "", asdict(sizes), ()))
    file = tmp_path / "out.json"
    assert main(["spectra", "--json", str(file), "--memory-images", "20", "40", "--dim", "11"]) == 0
    sizes = json.loads(file.read_text())["benchmarks"][0]["sizes"]
    assert sizes == asdict(spectra.Sizes()) | {"memory_images": [20, 40], "dim": 11}


def test_unknown_benchmark_is_refused():
    with pytest.raises(SystemExit) as refused:
        main(["tracin"])
    assert refused.value.code == 2
    assert "tracing" in NAMES


@pytest.mark.slow
def test_where_points_at_the_right_thing(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import where

    where.main(200)
    printed = capsys.readouterr().out
    assert float(printed.split("all heads summed ")[1].split()[0]) > 80
