"""A stranger's checkpoint runs no code and asks nothing; a stranger's adapter or store loads no model unasked."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from tests import hub, random_models
from tests.adapter.make_adapter import pictures, random_adapter

import residualign as ra
from residualign.cli import main
from residualign.models import trust

MINI = Path(str(files("residualign") / "models" / "mini"))


@pytest.fixture(autouse=True)
def nothing_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def forget(tmp_path: Path) -> Callable[[], None]:
    """A user who has named no model yet."""
    return lambda: shutil.rmtree(tmp_path / "state", ignore_errors=True)


def _own_code(folder: Path, marker: Path, base: str) -> None:
    (folder / "own_code.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nfrom transformers import {base}\nclass Own({base}):\n    pass\n"
    )


def _asks(*_: Any) -> str:
    pytest.fail("a question was asked")


@pytest.mark.parametrize("file", ["preprocessor_config.json", "tokenizer_config.json", "config.json"])
def test_code_of_a_checkpoint_does_not_run(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", _asks)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, marker = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(MINI, folder)
    kinds = {"preprocessor_config.json": "AutoImageProcessor", "tokenizer_config.json": "AutoTokenizer"}
    base = {"AutoImageProcessor": "CLIPImageProcessor", "AutoTokenizer": "CLIPTokenizerFast"}
    kind = kinds.get(file, "AutoModel")
    own: Any = ["own_code.Own", None] if kind == "AutoTokenizer" else "own_code.Own"
    config = json.loads((folder / file).read_text()) | {"auto_map": {kind: own}}
    if kind != "AutoModel":
        # a class that only the checkpoint's own code has
        config |= {"image_processor_type": "Own"} if kind == "AutoImageProcessor" else {"tokenizer_class": "Own"}
    (folder / file).write_text(json.dumps(config))
    _own_code(folder, marker, base.get(kind, "CLIPModel"))
    with contextlib.suppress(ra.BadInputError):
        ra.load_model(folder)
    assert not marker.exists()


def test_code_does_not_run_even_where_a_library_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer, dynamic_module_utils

    monkeypatch.setattr("builtins.input", _asks)
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, marker = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(MINI, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["own_code.Own", None]}, "tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    _own_code(folder, marker, "CLIPTokenizer")
    before = dynamic_module_utils.get_class_in_module
    with trust.no_remote_code(), pytest.raises(ra.BadInputError, match="code of its own"):
        AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert not marker.exists()
    assert dynamic_module_utils.get_class_in_module is before


@pytest.mark.parametrize("keyword", ["trust_remote_code", "bpe_path", "tokenizer_file"])
def test_open_clip_hands_on_only_harmless_keywords(keyword: str, tmp_path: Path) -> None:
    folder = random_models.save_open_clip(tmp_path / "model")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    ra.load_model(f"open_clip:local-dir:{folder}")
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"][keyword] = True
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ra.BadInputError, match=f"tokenizer_kwargs of open_clip_config.json has '{keyword}'"):
        ra.load_model(f"open_clip:local-dir:{folder}")


def test_timm_hands_on_only_settings_of_the_architecture(tmp_path: Path) -> None:
    folder = random_models.save_timm(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["model_args"]["pretrained_cfg_overlay"] = {"file": "/etc/hostname"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ra.BadInputError, match=r"model_args of config.json has 'pretrained_cfg_overlay'"):
        ra.load_model(f"timm:local-dir:{folder}")


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """An adapter that names a model in a folder."""
    model = ra.load_model(random_models.save_clip(tmp_path / "clip"))
    random_adapter(model, "residual-heads", None, None).save(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_does_not_load_a_model_nobody_named(
    stranger: Path, tmp_path: Path, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = ra.load_adapter(stranger)
    expected = adapter.predict(pictures(2))
    forget()
    with monkeypatch.context() as patch:
        patch.setattr("residualign.load._load", lambda source: pytest.fail("the model was loaded"))
        with pytest.raises(ra.BadInputError, match=rf"the adapter names the model '{tmp_path / 'clip'}'.*--model "):
            ra.load_adapter(stranger).predict(pictures(2))
    assert ra.load_adapter(stranger, model=tmp_path / "clip").predict(pictures(2)) == expected
    # named once, it is known
    assert ra.load_adapter(stranger).predict(pictures(2)) == expected


def test_the_command_asks_for_the_model(
    stranger: Path, tmp_path: Path, forget: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    forget()
    picture = tmp_path / "one.png"
    pictures(1)[0].save(picture)
    assert main(["classify", str(stranger), str(picture)]) == 2
    assert f"--model {tmp_path / 'clip'}" in capsys.readouterr().err
    assert main(["classify", str(stranger), str(picture), "--model", str(tmp_path / "clip")]) == 0
    assert main(["classify", str(stranger), str(picture)]) == 0


def test_a_store_does_not_load_a_model_nobody_named(
    tmp_path: Path, forget: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = random_models.save_clip(tmp_path / "clip")
    root = tmp_path / "data"
    for i, picture in enumerate(pictures(24)):
        (root / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        picture.save(root / "ab"[i % 2] / f"{i}.png")
    store = ra.extract(ra.load_model(folder), ra.load_data(root), tmp_path / "store", workers=0)
    forget()
    with pytest.raises(ra.BadInputError, match="the store names the model"):
        ra.explain(store)
    assert main(["explain", str(tmp_path / "store")]) == 2
    assert "the store names the model" in capsys.readouterr().err


def test_names_of_one_model_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = random_models.save_clip(tmp_path / "clip")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    trust.remember_model("clip")
    for name in ("clip", "./clip", str(folder), str(tmp_path / "link"), "clip#mean", "mini", "mini#mean"):
        trust.refuse_unnamed_model(name, "the adapter")
    trust.remember_model("open_clip:local-dir:clip")
    trust.refuse_unnamed_model(f"open_clip:local-dir:{folder}", "the adapter")
    for name in ("timm:local-dir:clip", "open_clip:ViT-B-32/openai", "some-lab/model", "clip-b"):
        with pytest.raises(ra.BadInputError, match="which you have not loaded before"):
            trust.refuse_unnamed_model(name, "the adapter")


def test_a_cached_model_of_the_hub_is_loaded_without_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    hub.cache_model(cache, "some-lab/tiny-clip", random_models.save_clip(tmp_path / "clip"))
    trust.refuse_unnamed_model("some-lab/tiny-clip", "the adapter")
    trust.refuse_unnamed_model("hf:some-lab/tiny-clip", "the adapter")
    with pytest.raises(ra.BadInputError, match="not loaded before"):
        trust.refuse_unnamed_model("some-lab/tiny-clip@other", "the adapter")


@pytest.mark.parametrize("content", ["", "[]", '{"models": 3}', '{"models": [[', "\x00"])
def test_a_damaged_list_names_nothing(content: str, tmp_path: Path) -> None:
    trust.remember_model("clip-b")
    (path,) = (tmp_path / "state").rglob("models.json")
    path.write_text(content)
    with pytest.raises(ra.BadInputError, match="not loaded before"):
        trust.refuse_unnamed_model("clip-b", "the adapter")
    trust.remember_model("clip-b")
    trust.refuse_unnamed_model("clip-b", "the adapter")


def test_a_state_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert ra.load_model("mini").name == "mini"
    trust.remember_model("clip-b")
    with pytest.raises(ra.BadInputError, match="not loaded before"):
        trust.refuse_unnamed_model("clip-b", "the adapter")
