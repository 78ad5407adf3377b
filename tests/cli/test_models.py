"""`residualign models` and `residualign models check`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import residualign as ra
from residualign.fitting.methods import most_parameters
from residualign.models.names import registered_models
from tests import hub
from tests.random_models import HEAD_DIM, N_HEADS, N_LAYERS, save_clip_vision

from .conftest import Ran

Run = Callable[..., Ran]


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_the_table_names_every_model_and_method(run: Run) -> None:
    ran = run("models")
    assert ran.code == 0
    for entry in registered_models().values():
        of_model = [line.split() for line in ran.out.splitlines() if line.split()[:1] == [entry.name]]
        assert len(of_model) == 3
        assert of_model[0] == [entry.name, entry.source]
        assert of_model[1][1:7] == [
            *(f"{size:,}" for size in (entry.layers, entry.heads, entry.width, entry.dim, entry.image_size)),
            f"{entry.parameters / 1e6:.1f}",
        ]
        assert of_model[2][1] == f"{entry.layers * entry.heads:,}"
    assert ran.out.count("<= ") == 2 * len(registered_models())
    # a terminal of 80 columns holds the tables whole: no name is cut
    assert max(len(line.rstrip()) for line in ran.out.splitlines()) <= 80


def test_the_json_says_the_same(run: Run) -> None:
    models = {model["name"]: model for model in run("models", "--json").json["models"]}
    assert models.keys() == registered_models().keys()
    for name, entry in registered_models().items():
        model = models[name]
        for key in ("source", "layers", "heads", "width", "dim", "parameters", "licence", "text", "gated", "pooling"):
            assert model[key] == getattr(entry, key)
        counts = most_parameters(
            entry.layers, entry.heads, entry.width, entry.dim, attention_pooled=name.startswith("siglip")
        )
        assert model["learned"] == {method: counts[method] for method in model["learned"]}
        assert set(model["learned"]) == {"coarse", "spectral-output", "residual-heads", "residual", "linear"}
        assert set(model["learned_at_most"]) == {"residual-heads", "residual"}


def test_check_reports_what_was_found(run: Run, clip: Path) -> None:
    ran = run("models", "check", clip, "--json")
    assert ran.code == 0
    assert ran.json["passed"]
    (report,) = ran.json["models"]
    model = ra.load_model(clip)
    assert report["name"] == report["source"] == str(clip)
    assert report["revision"] is None
    assert (report["library"], report["family"]) == ("transformers", "CLIPModel")
    assert report["fingerprint"] == model.fingerprint
    assert report["units"] == {"embedding": 1, "mlp": N_LAYERS, "head": N_LAYERS * N_HEADS}
    assert (report["width"], report["dim"], report["text"]) == (N_HEADS * HEAD_DIM, 11, True)
    assert report["preprocessing"] == model.preprocess.describe()
    assert report["parameters"] == sum(p.numel() for p in model.module.vision_model.parameters()) + 11 * 35
    sums = {check["dtype"]: check for check in report["sums"]}
    assert {dtype: check["tolerance"] for dtype, check in sums.items()} == {"float64": 1e-10, "float32": 1e-4}
    assert 0 < sums["float64"]["error"] < 1e-12 < sums["float32"]["error"] < 1e-5
    assert report["seconds"] > 0
    assert 2**20 < report["peak_memory"] < 2**40
    assert report["differs"] == []


def test_check_in_the_dtypes_asked_for(run: Run, vit: Path) -> None:
    ran = run("models", "check", vit, "--dtype", "bfloat16", "--dtype", "float64", "--json")
    (report,) = ran.json["models"]
    assert [(check["dtype"], check["tolerance"]) for check in report["sums"]] == [("float64", 1e-10), ("bfloat16", 0.1)]
    assert 1e-4 < report["sums"][1]["error"] < 0.1
    assert not report["text"]


def test_check_prints_for_people(run: Run, vit: Path) -> None:
    ran = run("models", "check", vit)
    assert ran.code == 0
    lines = {line.strip().partition("  ")[0]: line for line in ran.out.splitlines()}
    assert "ViTModel of transformers" in lines["family"]
    assert "19: 1 embedding, 3 MLPs, 15 heads" in lines["units"]
    assert ", at most 1e-10 allowed" in lines["sum, float64"]
    assert ", at most 1e-04 allowed" in lines["sum, float32"]
    assert "backend pil" in lines["preprocessing"]
    assert "GiB" in lines["peak memory"]


def test_a_refusal_does_not_keep_the_others_from_being_checked(
    run: Run, clip: Path, vit: Path, tmp_path: Path, no_network: Path
) -> None:
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    ran = run("models", "check", clip, tmp_path / "bert", "dinov2-l", vit, "--json")
    assert ran.code == 2
    assert [report["passed"] for report in ran.json["models"]] == [True, False, False, True]
    assert not ran.json["passed"]
    reasons = [report["reason"] for report in ran.json["models"] if not report["passed"]]
    assert "is of type 'bert'" in reasons[0]
    assert "'dinov2-l' stands for 'facebook/dinov2-large'" in reasons[1]
    said = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert said == [f"error: {reason}" for reason in reasons]


def test_a_model_whose_units_do_not_add_up_keeps_what_it_passed(
    run: Run, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setitem(ra.load.TOLERANCES, torch.float32, 1e-30)
    ran = run("models", "check", clip, "--json")
    assert ran.code == 2
    (report,) = ran.json["models"]
    assert "do not sum to the model's output" in report["reason"]
    assert [check["dtype"] for check in report["sums"]] == []
    ran = run("models", "check", clip, "--dtype", "float64", "--dtype", "float32", "--json")
    assert ran.code == 2


def test_a_model_of_the_cache_that_is_not_what_the_registry_says(run: Run, no_network: Path, tmp_path: Path) -> None:
    hub.cache_model(no_network, "facebook/dinov2-large", save_clip_vision(tmp_path / "other"))
    ran = run("models", "check", "dinov2-l", "--dtype", "float64", "--json")
    assert ran.code == 0
    (report,) = ran.json["models"]
    assert (report["name"], report["source"]) == ("dinov2-l", "facebook/dinov2-large")
    assert report["revision"] == hub.COMMIT
    assert "layers 3 (registered: 24)" in report["differs"]
    assert "width 35 (registered: 1024)" in report["differs"]
    assert not any(phrase.startswith("text") for phrase in report["differs"])
    assert "warning: dinov2-l is not what the registry says: layers 3" in ran.err


def test_mini_is_what_the_registry_says(run: Run) -> None:
    ran = run("models", "check", "mini", "--dtype", "float64", "--json")
    assert ran.code == 0
    assert ran.json["models"][0]["differs"] == []


def test_the_report_can_be_kept(run: Run, vit: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.json"
    ran = run("models", "check", vit, "nowhere-to-be-found", "--dtype", "float64", "--out", out, "--json")
    assert ran.code == 2
    assert json.loads(out.read_text()) == ran.json
    refused = run("models", "check", vit, "--out", out)
    assert refused.code == 2
    assert "exists; add --overwrite" in refused.sentence
    assert run("models", "check", vit, "--dtype", "float64", "--out", out, "--overwrite").code == 0
    assert json.loads(out.read_text())["passed"]
    assert "is a folder" in run("models", "check", vit, "--out", tmp_path).sentence


def test_the_flag_may_come_before_the_command(run: Run) -> None:
    ran = run("models", "--json", "check", "mini", "--dtype", "float32")
    assert [model["name"] for model in ran.json["models"]] == ["mini"]
    assert "passed" in ran.json


def test_check_needs_a_name(run: Run) -> None:
    assert run("models", "check").code == 2
    assert "blip-l" not in run("models", "check").out
    assert run("models", "chekc", "mini").code == 2
