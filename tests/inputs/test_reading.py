"""What is read, batch by batch: a store, image files, a reference, a sample; and what is said of bad images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from residualign._progress import SILENT, Silent
from residualign.data.sample import QUICK_MOST, sample_rows
from residualign.errors import BadInputError
from residualign.extraction import fit_spectrum
from residualign.fitting.fit import few_images
from residualign.inputs.coordinates import coordinates_of_store, images_to_read
from residualign.inputs.images import read_in_batches
from residualign.inputs.options import LoadingOptions
from residualign.inputs.spectra import BUNDLED_NAME, choose_spectra, given_spectra
from residualign.inputs.subject import Subject, open_store
from residualign.spectrum import Moments, Spectra
from tests.cli.conftest import make_images
from tests.store.make_store import fill, make_plan


class Heard(Silent):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


def test_keys_and_labels_of_a_store_stay_with_their_images_over_several_batches(tmp_path: Path) -> None:
    split = fill(tmp_path / "store").split("train")
    read = list(coordinates_of_store([split], 13))
    assert len(read) == 5
    assert tuple(key for one in read for key in one.keys) == split.keys
    assert [label for one in read for label in one.labels] == split.labels.tolist()
    assert all(len(one.keys) == len(one.labels) == len(one.coordinates) for one in read)


def test_files_that_are_not_images_are_refused_unless_skipped(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "images", {"cat": 10, "dog": 10})
    (folder / "dog" / "notes.txt").write_text("good dogs")
    with pytest.raises(BadInputError, match=r"'dog/notes\.txt' is not an image; remove it or add --skip-bad"):
        images_to_read(str(folder), LoadingOptions())
    assert images_to_read(str(folder), LoadingOptions(skip_bad=True)).strays == ("dog/notes.txt",)


def test_skipped_image_files_are_told_at_the_end(tmp_path: Path) -> None:
    folder, heard, skipped = make_images(tmp_path / "images", {"cat": 3}), Heard(), list[str]()
    (folder / "cat" / "01.png").write_bytes(b"")
    files = sorted((folder / "cat").iterdir())
    names = [name for names, _ in read_in_batches(files, 2, True, skipped, heard) for name in names]
    assert names == [str(files[0]), str(files[2])]
    assert skipped == [str(files[1])]
    assert len(heard.warnings) == 1
    assert "01.png" in heard.warnings[0]


def test_a_sample_of_many_classes_is_small_too() -> None:
    n_classes = 300
    rows = sample_rows([i % n_classes for i in range(10 * n_classes)])
    assert len(rows) <= QUICK_MOST
    assert set(Counter(row % n_classes for row in rows).values()) == {QUICK_MOST // n_classes}


def test_the_store_inside_a_run_is_suggested(tmp_path: Path) -> None:
    fill(tmp_path / "run" / "store")
    with pytest.raises(BadInputError) as told:
        open_store(str(tmp_path / "run"))
    assert f"is not a store (did you mean {str(tmp_path / 'run' / 'store')!r}?)" in str(told.value)
    with pytest.raises(BadInputError) as told:
        open_store(str(tmp_path))
    assert "did you mean" not in str(told.value)


def test_components_of_few_shots_are_those_of_the_images_that_the_seed_chooses(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    subject = Subject("tiny", LoadingOptions(), store=store)
    chosen = choose_spectra(store, subject, None, SILENT, shots=4, seed=3)
    moments = Moments.empty(store.maps)
    moments.update(few_images(store, 4, 3).split("train").coordinates())
    assert (chosen.kind, chosen.spectra.n_samples) == ("training split", 12)
    assert chosen.spectra.fingerprint == moments.spectra(store.maps, source=chosen.spectra.source).fingerprint


@pytest.mark.parametrize("fingerprint", ["f00d", "other"])
def test_spectra_beside_a_model_are_used_if_they_are_of_its_weights(tmp_path: Path, fingerprint: str) -> None:
    model = {**make_plan().model, "fingerprint": fingerprint}
    made = choose_spectra(
        fill(tmp_path / "first", make_plan(model=model)), Subject("tiny", LoadingOptions()), None, SILENT
    )
    (tmp_path / "model").mkdir()
    made.spectra.save(tmp_path / "model" / BUNDLED_NAME)
    store, heard = fill(tmp_path / "store"), Heard()
    chosen = choose_spectra(store, Subject(str(tmp_path / "model"), LoadingOptions(), store=store), None, heard)
    if fingerprint == "f00d":
        assert (chosen.kind, heard.warnings) == ("shipped", [])
    else:
        assert chosen.kind == "training split"
        assert "were computed with different weights; the training split is used instead" in heard.warnings[0]


def test_a_reference_with_splits_gives_its_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, split in enumerate(("train", "val", "test")):
        make_images(tmp_path / "images" / split, {"cat": 3, "dog": 3}, seed=i)
    read: list[str] = []

    def counted(model: Any, split: Any, **options: Any) -> Spectra:
        read.append(split.name)
        return fit_spectrum(fill(tmp_path / "store"))

    monkeypatch.setattr("residualign.inputs.spectra.reference_spectra", counted)
    given_spectra(str(tmp_path / "images"), lambda: None, LoadingOptions(), SILENT)
    assert read == ["train"]


def test_dtype_float64_reaches_the_model_and_the_store(tmp_path: Path) -> None:
    from residualign.commands._flags import Inputs
    from residualign.inputs.store import analyzed_store
    from tests.random_models import save_vit

    images = make_images(tmp_path / "images", {"cat": 10, "dog": 10})
    (images / "cat" / "00.png").write_bytes(b"")
    asked = Inputs(
        source=str(save_vit(tmp_path / "vit")),
        data=str(images),
        store=str(tmp_path / "asked"),
        dtype="float64",
        workers=0,
        skip_bad=True,
    )
    heard = Heard()
    with analyzed_store(asked, heard, keep=tmp_path / "usual") as (store, subject):
        assert subject.model().dtype == store.split("test").coordinates().output.dtype == torch.float64
        # --store wins over where the command keeps it, and skipped images are told
        assert store.path == str(tmp_path / "asked")
    assert any("00.png" in one for one in heard.warnings)
